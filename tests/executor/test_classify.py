from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import get_args

import pytest

from flowkiln.executor.classify import Flags, classify, signal_name
from flowkiln.executor.outcome import Cause, FailureClass

EXITS = [code << 8 for code in range(256)]
SIGNALS = [number | core for number in range(1, 65) for core in (0, 0x80)]
FLAGS = [
    Flags(),
    Flags(began=False),
    Flags(cancelled=True),
    Flags(timed_out=True),
    Flags(interrupted=True),
    Flags(out_of_memory=True),
]


@pytest.mark.parametrize("flags", FLAGS, ids=repr)
def test_j04_every_exit_code_and_signal_has_a_class_and_a_sentence(flags: Flags) -> None:
    for status in EXITS + SIGNALS:
        ending = classify(status, flags)
        assert ending.failure_class in get_args(FailureClass)
        assert ending.cause in get_args(Cause)
        assert ending.text
        assert (ending.exit_code is None) != (ending.signal is None)


def test_after_user_code_began_every_exit_code_is_the_users() -> None:
    assert {classify(status).failure_class for status in EXITS} == {"user"}
    assert {classify(status).cause for status in EXITS} == {"exit"}


def test_before_user_code_our_own_codes_speak() -> None:
    early = Flags(began=False)
    assert (classify(17 << 8, early).failure_class, classify(17 << 8, early).cause) == ("environment", "mismatch")
    assert classify(127 << 8, early).failure_class == "environment"
    for status in (18 << 8, 19 << 8, 1 << 8, 0, signal.SIGSEGV):
        assert classify(status, early).failure_class == "infrastructure"


def test_what_the_supervisor_did_goes_before_what_the_status_says() -> None:
    assert classify(signal.SIGKILL, Flags(cancelled=True, timed_out=True)).failure_class == "cancelled"
    assert classify(signal.SIGKILL, Flags(timed_out=True)).cause == "timeout"
    assert classify(0, Flags(interrupted=True)).failure_class == "infrastructure"
    assert classify(signal.SIGKILL, Flags(out_of_memory=True)).cause == "out-of-memory"


def test_exit_zero_without_a_result_is_a_user_error() -> None:
    ending = classify(0)
    assert (ending.failure_class, ending.cause, ending.exit_code) == ("user", "exit", 0)
    assert "without finishing" in ending.text


def test_a_stopped_process_has_not_ended() -> None:
    with pytest.raises(ValueError, match="not an end"):
        classify(signal.SIGSTOP << 8 | 0x7F)


def test_signals_have_names() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert signal_name(63) == "signal 63"


def test_a_real_segfault_is_named() -> None:
    no_core = "import os, signal, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0));"
    code = no_core + "os.kill(os.getpid(), signal.SIGSEGV)"
    process = subprocess.Popen([sys.executable, "-c", code])
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    ending = classify(status)
    assert (ending.cause, ending.signal) == ("signal", signal.SIGSEGV)
    assert "SIGSEGV" in ending.text
