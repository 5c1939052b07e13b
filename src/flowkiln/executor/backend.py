"""The seam between the driver and the places where attempts run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.vocabulary import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One attempt of one task: all that a supervisor needs to run it, of bounded size.

    ``task`` is the run-wide integer id, ``attempt`` counts from 0, ``retry_count`` counts user retries only.
    ``indices`` are the foreach indices, outermost first; ``frames`` describe the same levels as
    (foreach step's task id, its sealed attempt, width). ``parent`` is the (task, attempt) whose artifacts are
    inherited, None for a join; a join has ``inputs``: the key of the packed manifest of its inputs.
    ``fallback`` is set on the attempt that runs ``@catch`` after the process itself died.
    """

    run: str
    flow: str
    step: str
    task: int
    attempt: int
    retry_count: int = 0
    indices: tuple[int, ...] = ()
    frames: tuple[tuple[int, int, int], ...] = ()
    parent: tuple[int, int] | None = None
    inputs: str | None = None
    fallback: bool = False
    last: bool = True
    """Whether no user retry is left, so that ``@catch`` applies to a failure of this attempt."""

    def to_json(self) -> JSONObject:
        """As a JSON object for the worker's channel."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, document: JSONObject) -> Assignment:
        """The value that ``to_json`` wrote, tuples restored."""
        values = dict(document)
        values["indices"] = tuple(values["indices"])
        values["frames"] = tuple(tuple(frame) for frame in values["frames"])
        values["parent"] = None if values["parent"] is None else tuple(values["parent"])
        return cls(**values)


class Backend(Protocol):
    """Where attempts run. Facts come back as events from ``poll``; nothing blocks elsewhere."""

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Accepts attempts of one step; the backend keeps within its own limits only for resources."""

    def poll(self, timeout: float) -> list[Event]:
        """What happened, waiting up to ``timeout`` seconds for the first event."""

    def cancel(self, task: int, attempt: int) -> None:
        """Begins to end an attempt; confirmed later by an event."""

    def close(self) -> None:
        """Ends everything this backend started and frees what it holds. May be called twice."""


@runtime_checkable
class DurableBackend(Backend, Protocol):
    """A backend whose attempts outlive the driver: its submissions are journalled and can be found again."""

    def find(self, batch: int, members: Sequence[tuple[int, int]]) -> None:
        """Looks for (task, attempt) members of a batch; ``poll`` gives Observed or Absent for each."""
