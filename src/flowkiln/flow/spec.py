"""``FlowSpec``: the class that flows derive from."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln.flow.marks import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowkiln.flow.joins import Inputs
    from flowkiln.flow.task import Task

WORKER_VARIABLE = "FLOWKILN_WORKER"
_SHOWN_INPUT = 20


class FlowSpec:
    """Base of every flow: its methods marked with ``@step`` are the steps, attributes set in them the artifacts.

    ``MyFlow()`` in the flow file runs the command line and does not return. ``MyFlow(use_cli=False)`` is an inert
    instance.
    """

    _flowkiln: Task | None = None

    def __init__(self, use_cli: bool = True) -> None:
        if not use_cli:
            return
        if os.environ.get(WORKER_VARIABLE):
            gc.disable()  # importing makes no garbage, but collecting between costs every start some milliseconds
            from flowkiln.flow import worker  # noqa: PLC0415  only in the process of a step

            gc.enable()
            worker.serve(type(self))
        from flowkiln.flow import entry  # noqa: PLC0415  only on the command line

        entry.main(type(self))

    # -- inside a step ---------------------------------------------------------------------------------------

    def next(self, *targets: Callable[..., Any], **keywords: Any) -> None:
        """Says which steps follow.

        ``self.next(self.a)`` goes on, ``self.next(self.a, self.b)`` splits, ``self.next(self.a, foreach="items")``
        opens one task per item of ``self.items``. It is a step's last statement. Raises ``InvalidNextException``.
        """
        from flowkiln.flow import transitions  # noqa: PLC0415  only inside a step

        transitions.follow(self, targets, keywords)

    @property
    def index(self) -> int | None:
        """Position of this task in the innermost foreach, None outside."""
        frame = self._innermost()
        return None if frame is None else frame.index

    @property
    def input(self) -> Any:
        """The item of the innermost foreach that this task works on, None outside."""
        frame = self._innermost()
        return None if frame is None else frame.value

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """The foreaches around this task, outermost first: (index, number of items, item)."""
        return [(frame.index, frame.num_splits, frame.value) for frame in self._foreach_stack]

    def merge_artifacts(
        self,
        inputs: Inputs | Sequence[FlowSpec],
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
    ) -> None:
        """In a join: takes over the attributes that the ``inputs`` agree on, by the hash of their bytes.

        Attributes already set here are left alone. ``exclude`` leaves some out, ``include`` takes only those.
        Raises ``UnhandledInMergeArtifactsException``, ``MissingInMergeArtifactsException``, ``JoinMisuse``.
        """
        from flowkiln.flow import joins  # noqa: PLC0415  only inside a step

        joins.merge(self, inputs, exclude or (), include or ())

    @property
    def _foreach_stack(self) -> list[Any]:
        return [] if self._flowkiln is None else list(self._flowkiln.frames)

    def _innermost(self) -> Any:
        stack = self._foreach_stack
        return stack[-1] if stack else None

    # -- the flow itself -------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The flow's name: that of its class."""
        return type(self).__name__

    @property
    def script_name(self) -> str:
        """The file name of the flow."""
        module = sys.modules.get(type(self).__module__)
        return os.path.basename(getattr(module, "__file__", None) or "")

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        """The step functions, in order of definition."""
        return iter(steps_of(type(self)).values())

    def __str__(self) -> str:
        task = self._flowkiln
        if task is None:
            return f"<flow {self.name}>"
        frames = self._foreach_stack
        if not frames:
            return f"<flow {self.name} step {task.step}>"
        place = ",".join(str(frame.index) for frame in frames)
        shown = str(self.input)[:_SHOWN_INPUT]
        return f"<flow {self.name} step {task.step}[{place}] (input: {shown})>"

    # -- attributes ------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        task = self._flowkiln
        if task is None or name.startswith("__"):
            message = f"Flow {type(self).__name__} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=self)
        return task.attributes.fetch(self, name)

    if not TYPE_CHECKING:  # else type checkers would ask for the declaration of every attribute

        def __setattr__(self, name: str, value: Any) -> None:
            task = self._flowkiln
            if task is not None:
                task.attributes.check_write(name)
            object.__setattr__(self, name, value)

        def __delattr__(self, name: str) -> None:
            task = self._flowkiln
            if task is not None:
                task.attributes.check_delete(name)
            if name not in self.__dict__ and task is not None and task.attributes.has(name):
                return  # what was inherited stays inherited: only the local copy can go
            object.__delattr__(self, name)

    def __getstate__(self) -> NoReturn:
        from flowkiln.flow.errors import NotAnArtifact  # noqa: PLC0415  only for the mistake

        message = f"flow {self.name} cannot be stored or sent as a value"
        raise NotAnArtifact(
            message, hint="Store the attributes that you need, for instance `self.x = inputs[0].x`."
        )
