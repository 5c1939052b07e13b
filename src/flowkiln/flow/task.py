"""One task as the flow instance that runs it sees it: where it stands in the run, and what follows."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowkiln.flow.attributes import FOREACH_STACK
from flowkiln.store import artifacts, keys, packs
from flowkiln.store.artifacts import Artifact
from flowkiln.store.errors import BlobMissing
from flowkiln.store.packs import Pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.outcome import Transition
    from flowkiln.executor.plan import RunPlan, StepPlan
    from flowkiln.flow.attributes import Attributes
    from flowkiln.store.folder import FolderStore


class Reader:
    """Reads sealed outcomes of one run, each once."""

    def __init__(self, run: str, store: FolderStore) -> None:
        self.run = run
        self.store = store
        self._outcomes: dict[tuple[int, int], JSONObject] = {}

    def outcome(self, task: int, attempt: int) -> JSONObject:
        """The outcome document of an attempt. Raises ``BlobMissing``."""
        if (task, attempt) not in self._outcomes:
            self._outcomes[task, attempt] = self.record(keys.outcome(self.run, task, attempt))
        return self._outcomes[task, attempt]

    def record(self, key: str) -> JSONObject:
        """The JSON record at ``key``. Raises ``BlobMissing``."""
        data = self.store.records.read(key)
        if data is None:
            message = f"the record {key} is not in the store"
            raise BlobMissing(message, hint="`flowkiln store check` lists everything that is missing.")
        document: JSONObject = json.loads(data)
        return document

    def table(self, task: int, attempt: int) -> dict[str, JSONObject]:
        """The artifacts of an attempt by name."""
        table: dict[str, JSONObject] = self.outcome(task, attempt)["artifacts"]
        return table


class ForeachFrame:
    """One foreach around a task: its step, the attribute, the number of items, and this task's item."""

    def __init__(
        self, step: str, var: str, num_splits: int, index: int, *, opener: tuple[int, int], reader: Reader
    ):
        self.step = step
        self.var = var
        self.num_splits = num_splits
        self.index = index
        self._opener = opener
        self._reader = reader

    @cached_property
    def value(self) -> Any:
        """The item, read from the foreach's pack on first use."""
        pack = Pack.from_json(self._reader.outcome(*self._opener)["transition"]["pack"])
        data = packs.read(pack, self.index, self._reader.store.blobs)
        return artifacts.decode(data, name=f"{self.var}[{self.index}]")

    def to_list(self) -> list[Any]:
        """As the values that ``from_list`` takes."""
        return [self.step, self.var, self.num_splits, self.index, *self._opener]

    @classmethod
    def from_list(cls, values: Sequence[Any], reader: Reader) -> ForeachFrame:
        """The frame that ``to_list`` described."""
        step, var, num_splits, index, task, attempt = values
        return cls(step, var, num_splits, index, opener=(task, attempt), reader=reader)

    def __repr__(self) -> str:
        return f"ForeachFrame({self.step!r}, {self.var!r}, {self.num_splits}, {self.index})"


class Task:
    """The state behind a flow instance: ``attributes``, the foreach ``frames``, and the transition taken.

    ``consumed`` names iterators that a foreach has used up: they live on in its pack only. The inputs of a join
    have a task of their own, without ``plan``.
    """

    def __init__(
        self,
        *,
        step: str,
        number: int,
        reader: Reader,
        attributes: Attributes,
        frames: tuple[ForeachFrame, ...] = (),
        plan: StepPlan | None = None,
        max_splits: int = 0,
    ) -> None:
        self.step = step
        self.number = number
        self.reader = reader
        self.attributes = attributes
        self.frames = frames
        self.plan = plan
        self.max_splits = max_splits
        self.transition: Transition | None = None
        self.consumed: set[str] = set()


def frames_of(plan: RunPlan, assignment: Assignment, reader: Reader) -> tuple[ForeachFrame, ...]:
    """The foreaches around the task of ``assignment``, outermost first."""
    names = foreaches_around(plan, assignment.step)
    frames = []
    for name, index, (task, attempt, width) in zip(names, assignment.indices, assignment.frames, strict=True):
        var = plan.step(name).foreach or ""
        frames.append(ForeachFrame(name, var, width, index, opener=(task, attempt), reader=reader))
    return tuple(frames)


def foreaches_around(plan: RunPlan, step: str) -> tuple[str, ...]:
    """The foreach steps that ``step`` lies inside of, outermost first."""
    inside: dict[str, tuple[str, ...]] = {}
    foreaches = {one.name for one in plan.steps if one.kind == "foreach"}
    for one in plan.steps:
        around = inside.get(one.name, ())
        after = (*around, one.name) if one.kind in {"foreach", "split"} else around
        for target in one.targets:
            closing = plan.step(target).kind == "join"
            inside[target] = after[:-1] if closing else after
    return tuple(name for name in inside.get(step, ()) if name in foreaches)


def stored_frames(table: dict[str, JSONObject], reader: Reader) -> tuple[ForeachFrame, ...]:
    """The frames that a task wrote down among its artifacts."""
    document = table.get(FOREACH_STACK)
    if document is None:
        return ()
    values = artifacts.load(Artifact.from_json(document), reader.store.blobs, name=FOREACH_STACK)
    return tuple(ForeachFrame.from_list(one, reader) for one in values)
