"""How a process that left no result ended: the class decides on retries, the cause explains.

A pure function of the wait status and of what the supervisor did, total over all exit codes and signals. The
exit codes of flowkiln's own child mean something only before user code began: afterwards they are the user's.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkiln.executor.outcome import Cause, FailureClass

_EARLY: dict[int, tuple[FailureClass, Cause, str]] = {
    17: ("environment", "mismatch", "the environment is not the one that was locked"),
    18: ("infrastructure", "lost", "another process holds this attempt"),
    19: ("infrastructure", "lost", "the store could not be reached"),
    126: ("environment", "not-started", "the interpreter could not be executed"),
    127: ("environment", "not-started", "the interpreter was not found"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the supervisor knows besides the wait status.

    ``began`` says that user code had begun. ``cancelled``, ``timed_out`` and ``interrupted`` say that the
    supervisor ended the process, and for which reason; ``out_of_memory`` that the kernel or platform did.
    """

    began: bool = True
    cancelled: bool = False
    timed_out: bool = False
    interrupted: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Class, cause and one sentence; ``exit_code`` or ``signal`` as far as the status holds one."""

    failure_class: FailureClass
    cause: Cause
    text: str
    exit_code: int | None = None
    signal: int | None = None


def classify(status: int, flags: Flags | None = None) -> Ending:
    """The ending told by ``status`` (as ``os.waitpid`` gives it) of a process that left no result.

    Raises ``ValueError`` for a status of a process that has not ended.
    """
    flags = flags or Flags()
    number: int | None = None
    code: int | None = None
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
    elif os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
    else:
        message = f"wait status {status:#x} is not an end"
        raise ValueError(message)
    kind, cause, text = _judge(code, number, flags)
    return Ending(failure_class=kind, cause=cause, text=text, exit_code=code, signal=number)


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11; ``signal N`` for a number without a name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _judge(code: int | None, number: int | None, flags: Flags) -> tuple[FailureClass, Cause, str]:
    if flags.cancelled:
        return "cancelled", "cancelled", "cancelled"
    if flags.timed_out:
        return "timeout", "timeout", "the time limit was reached"
    if flags.interrupted:
        return "infrastructure", "interrupted", "ended from outside before it could finish"
    if flags.out_of_memory:
        return "user", "out-of-memory", "out of memory"
    if number is not None:
        return _killed(number, flags)
    assert code is not None
    return _exited(code, flags)


def _killed(number: int, flags: Flags) -> tuple[FailureClass, Cause, str]:
    name = signal_name(number)
    if not flags.began:
        return "infrastructure", "lost", f"killed by {name} before the step began"
    more = " (out of memory, or somebody killed it)" if number == signal.SIGKILL else ""
    return "user", "signal", f"the process was killed by {name}{more}"


def _exited(code: int, flags: Flags) -> tuple[FailureClass, Cause, str]:
    if not flags.began:
        early = _EARLY.get(code)
        if early is not None:
            return early
        return "infrastructure", "not-started", f"the process ended with exit code {code} before the step began"
    return "user", "exit", f"the process ended with exit code {code} without finishing the step"
