from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flowkiln.executor.holder import is_gone, this_process
from tests.services import unavailable


def test_this_process_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_an_ended_process_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_gone({**this_process(), "pid": ended.pid})


def test_a_process_of_an_earlier_boot_is_gone() -> None:
    if this_process()["boot"] is None:
        unavailable("this system does not number its boots")
    assert is_gone({**this_process(), "boot": "earlier"})


def test_a_number_that_was_given_again_is_gone() -> None:
    if this_process()["start"] is None:
        unavailable("this system does not tell when processes started")
    assert is_gone({**this_process(), "start": 1})


@pytest.mark.parametrize("holder", [{"host": "elsewhere", "pid": 1}, {}])
def test_what_cannot_be_known_is_not_called_gone(holder: dict[str, object]) -> None:
    assert not is_gone(holder)
    assert not is_gone({**this_process(), "pid": None})
    assert os.getpid() == this_process()["pid"]
