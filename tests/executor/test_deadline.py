from __future__ import annotations

import signal
import time

import pytest

from flowkiln.executor import deadline
from flowkiln.executor.child import failure_of


def test_it_raises_when_the_time_is_up() -> None:
    deadline.start(0.05)
    with pytest.raises(deadline.TimeoutException, match=r"0\.05 seconds"):
        time.sleep(10)
    deadline.stop()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_stopped_one_never_raises() -> None:
    deadline.start(0.05)
    deadline.stop()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_its_kind_is_recognised_by_name() -> None:
    failure = failure_of(deadline.TimeoutException("late"))
    assert deadline.is_timeout(failure.kind)
    assert (failure.failure_class, failure.cause, failure.text) == ("timeout", "timeout", "late")
    assert not deadline.is_timeout("builtins.TimeoutError")
    assert not deadline.is_timeout(None)
