"""How a run ended: the value that ``Driver.run`` returns, its exit code, its error, and the stored end record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from flowkiln._base import json
from flowkiln._base.errors import ExitCode
from flowkiln.executor import errors
from flowkiln.executor.outcome import Failure
from flowkiln.store import packs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.board import TaskRow
    from flowkiln.executor.machine import Machine
    from flowkiln.store.interfaces import Blobs

RunStatus = Literal["ok", "failed", "cancelled", "interrupted"]

_CLASS_ERRORS: dict[str, type[errors.ExecutorError]] = {
    "user": errors.StepFailed,
    "timeout": errors.StepFailed,
    "environment": errors.StepEnvironment,
    "infrastructure": errors.AttemptsLost,
    "cancelled": errors.RunCancelled,
}

_SERVICES = {"STO": ExitCode.STORE, "ENG": ExitCode.SERVICE}
"""Exit codes by the errors that others than the step made: those of their pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """The task whose failure ended the run. ``contained`` says that its step ran in containers."""

    step: str
    task: int
    attempt: int
    indices: tuple[int, ...]
    failure: Failure
    contained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The end of a run. ``counts`` says per step how many tasks are in which state."""

    run: str
    flow: str
    status: RunStatus
    failure: FailedTask | None = None
    counts: JSONObject = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """0, or the exit code of what ended the run."""
        error = self.error()
        if error is None:
            return ExitCode.OK
        failure = None if self.failure is None else self.failure.failure
        if failure is not None and failure.failure_class in ("infrastructure", "environment"):
            return _SERVICES.get((failure.code or "")[:3], error.exit_code)
        return error.exit_code

    def error(self) -> errors.ExecutorError | None:
        """What a caller shows or raises when the run did not succeed."""
        if self.status == "ok":
            return None
        if self.failure is None or self.status != "failed":
            return errors.RunCancelled(f"run {self.flow}/{self.run} was {self.status}")
        failed, failure = self.failure, self.failure.failure
        kind = _CLASS_ERRORS[failure.failure_class]
        if failure.cause == "foreach-width":
            kind = errors.ForeachWidth
        data: JSONObject = {"run": self.run, "task": failed.task, "attempt": failed.attempt}
        data |= {"indices": list(failed.indices), "failure": asdict(failure)}
        logs = f"`flowkiln run logs {self.flow}/{self.run}/{failed.step}/{failed.task}` shows what it printed."
        opened = f"`flowkiln env shell {self.flow}/{self.run}/{failed.step}/{failed.task}"
        opened += " --with docker`" if failed.contained else "`"
        logs = f"{logs}\n{opened} opens its code, inputs and environment."
        hint = f"{failure.hint}\n{logs}" if failure.hint else logs
        error = kind(failure.text, step=failed.step, hint=hint, data=data)
        error.code = failure.code or kind.code
        return error

    def to_json(self) -> JSONObject:
        """As the data of the ``run-ended`` event."""
        failed = None if self.failure is None else asdict(self.failure)
        return {"status": self.status, "exit_code": int(self.exit_code), "counts": self.counts, "failure": failed}


def end_record(end: RunEnd, machine: Machine, blobs: Blobs) -> JSONObject:
    """The document of the end record: ``tasks`` is a pack with one item per task, by id.

    An item is ``[task, step, indices, attempt, state]``.
    """
    pack = packs.write(_items(machine.rows()), blobs)
    document = end.to_json()
    document["tasks"] = pack.to_json()
    return document


def end_of(document: JSONObject) -> RunEnd:
    """The value that an end record was made from."""
    failed = document.get("failure")
    if failed is not None:
        failure = Failure(**failed["failure"])
        failed = FailedTask(**{**failed, "indices": tuple(failed["indices"]), "failure": failure})
    return RunEnd(
        run=document["run"],
        flow=document["flow"],
        status=document["status"],
        failure=failed,
        counts=document.get("counts", {}),
    )


def _items(rows: Iterator[TaskRow]) -> Iterator[bytes]:
    for row in rows:
        yield json.compact([row.task, row.step, list(row.indices), row.attempt, row.state])
