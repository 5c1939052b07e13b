"""Why a container did not start, and how one ended that left no outcome, from what its engine knows."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from flowkiln._base.engineerrors import EngineFailed, EngineFull, EngineRefused, EngineUnreachable, ImageMissing
from flowkiln._base.errors import FlowkilnError, NoSpace
from flowkiln.executor.classify import Flags, classify, signal_name
from flowkiln.executor.errors import ForeignImage
from flowkiln.executor.memory import REMEDY, shown
from flowkiln.executor.outcome import Failure

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import StepPlan

_KILLED = 128
_REFUSED = (
    "The message is the engine's: see what @docker and @resources give the step's container; "
    "the engine's own log (`journalctl -u docker`) tells more."
)


def not_started(step: StepPlan, error: FlowkilnError | OSError) -> Failure:
    """The failure of an attempt whose container could not be made or started."""
    code, hint = None, None
    text = f"the container could not be started: {error}"
    if isinstance(error, FlowkilnError):
        code, hint = error.code, error.hint
        told_whole = isinstance(error, (ForeignImage, ImageMissing))
        text = error.message if told_whole else f"the container could not be started: {error.message}"
    if isinstance(error, (EngineFailed, EngineRefused)):
        hint = _REFUSED
    if isinstance(error, ImageMissing) and step.image is not None and step.image.baked:
        text = f"the engine has no image {step.image.reference} any more: it was there when the run began"
        hint = "Run the flow again: it makes the images that are missing."
    lost = isinstance(error, (EngineUnreachable, EngineFull, NoSpace, OSError))
    return Failure(
        failure_class="infrastructure" if lost else "environment",
        cause="mismatch" if isinstance(error, ForeignImage) else "not-started",
        text=text,
        code=code,
        hint=hint,
    )


def failure_of(found: JSONObject | None, name: str, words: str, *, cancelled: bool) -> Failure:
    """The failure of an attempt whose container ``name`` has ended; ``found`` is the engine's document of it.

    ``words`` are the last that the container wrote to standard error. The container's first process is
    flowkiln's own, which no code of a step can kill: a signal comes from outside.
    """
    if cancelled:
        return Failure(failure_class="cancelled", cause="cancelled", text="cancelled")
    if found is None:
        text = f"the container {name} was removed before the step had finished"
        return Failure(failure_class="infrastructure", cause="lost", text=text)
    state = found["State"]
    code = int(state.get("ExitCode") or 0)
    if state.get("OOMKilled"):
        limit = (found.get("HostConfig") or {}).get("Memory") or 0
        of = f" with {shown(limit)}" if limit else ""
        text = f"the container{of} ran out of memory, and the kernel ended it"
        return Failure(failure_class="user", cause="out-of-memory", text=text, signal=signal.SIGKILL, hint=REMEDY)
    told = ": ".join(part for part in (str(state.get("Error") or ""), words) if part)
    if code > _KILLED and code - _KILLED in set(signal.Signals):
        text = f"the container was killed from outside by {signal_name(code - _KILLED)}"
        return Failure(failure_class="infrastructure", cause="interrupted", text=text, signal=code - _KILLED)
    ending = classify(_status(code), Flags(began=False))
    text = f"{ending.text}: {told}" if told else ending.text
    return Failure(
        failure_class=ending.failure_class, cause=ending.cause, text=text, exit_code=code, trace=told or None
    )


def _status(code: int) -> int:
    """``code`` as waitpid gives it."""
    status = (code & 0xFF) << 8
    assert os.WIFEXITED(status)
    return status
