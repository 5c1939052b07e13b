"""What a run tells while it goes: a versioned stream of events for live views, files and other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

EVENT_SCHEMA = 1

EventKind = Literal[
    "run-started",  # data: steps, attached, epoch
    "foreach",  # data: width, first (id of the first child), targets
    "task-started",
    "task-ended",  # data: status, and for failures class, cause, text; started, ended; caught
    "task-retrying",  # data: class, cause, text, next (attempt), delay, owner: user | system | catch
    "log",  # data: stream, text
    "note",  # data: text
    "run-ended",  # data: status, exit_code, counts, failure
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One thing that happened in a run. ``at_us`` is microseconds since the epoch.

    ``step``, ``task`` and ``attempt`` are set where the event concerns one; ``indices`` are its foreach
    indices, outermost first. ``data`` depends on ``kind``.
    """

    kind: EventKind
    at_us: int
    flow: str
    run: str
    step: str | None = None
    task: int | None = None
    attempt: int | None = None
    indices: tuple[int, ...] = ()
    data: JSONObject = field(default_factory=dict)

    def to_json(self) -> JSONObject:
        """As one line of ``run --events``: versioned, without what does not apply."""
        document: JSONObject = {"schema": EVENT_SCHEMA, "kind": self.kind, "at_us": self.at_us}
        document |= {"flow": self.flow, "run": self.run}
        if self.step is not None:
            document |= {"step": self.step, "task": self.task, "attempt": self.attempt}
        if self.indices:
            document["indices"] = list(self.indices)
        if self.data:
            document["data"] = self.data
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> RunEvent:
        """The value that ``to_json`` wrote."""
        values = {key: value for key, value in document.items() if key != "schema"}
        values["indices"] = tuple(values.get("indices", ()))
        return cls(**values)


class Observer(Protocol):
    """Somebody who watches a run."""

    def emit(self, event: RunEvent) -> None:
        """Takes one event; called in order, from one thread, and must return soon."""
