"""The first stage of ``@timeout``: an exception raised inside the step when its time is up.

The supervisor's signals follow when the step does not end by it: blocked in native code, or caught and ignored.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType


class TimeoutException(Exception):
    """Raised in the step's main thread when the step has run longer than its ``@timeout``."""


def is_timeout(kind: str | None) -> bool:
    """Whether ``kind``, an exception's dotted type, is this module's exception."""
    return kind == f"{TimeoutException.__module__}.{TimeoutException.__qualname__}"


def start(seconds: float) -> None:
    """Raises ``TimeoutException`` in the main thread after ``seconds``, unless ``stop`` is called before."""

    def expired(_signal: int, _frame: FrameType | None) -> NoReturn:
        message = f"the step ran longer than its time limit of {seconds:g} seconds"
        raise TimeoutException(message)

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def stop() -> None:
    """Ends the waiting for the time limit."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
