"""Streams that are closed, full or left by their reader: the command's work is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flowkiln
from tests.services import unavailable
from tests.services.home import Home

FLOW = """
from flowkiln import FlowSpec, step

class Small(FlowSpec):
    @step
    def start(self):
        for number in range(100):
            print("line", number, "x" * 2000)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Small()
"""


@pytest.fixture
def full() -> None:
    """Needs a device that is always full."""
    if not Path("/dev/full").exists():
        unavailable("this system has no /dev/full")


@pytest.fixture
def folder(home: Home) -> Path:
    (home.work / "small.py").write_text(FLOW)
    return home.work


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """``line`` as a shell runs it; ``$FLOW`` and ``$FLOWKILN`` are the flow's program and ours."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(flowkiln.__file__).parents[1]),
        "FLOW": f"{sys.executable} small.py",
        "FLOWKILN": f"{sys.executable} -m flowkiln.cli.main",
    }
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(folder: Path) -> str:
    return shell(folder, "$FLOWKILN run list").stdout


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&-", ">/dev/full"])
def test_a_stream_that_takes_nothing_does_not_end_the_run(folder: Path, where: str) -> None:
    done = shell(folder, f"$FLOW run {where}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ("Done!" in done.stdout) == where.startswith("2")
    assert " ok " in status(folder)


@pytest.mark.usefixtures("full")
def test_lines_of_a_run_that_were_lost_are_told(folder: Path) -> None:
    done = shell(folder, "$FLOW run >/dev/full")
    assert "warning: cannot write to stdout: No space left on device" in done.stderr


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize(
    "words", ["$FLOWKILN run list", "$FLOWKILN --help", "$FLOWKILN run list --json", "$FLOW run --json -q"]
)
def test_a_result_that_cannot_be_written_is_one_error(folder: Path, words: str) -> None:
    done = shell(folder, f"{words} >/dev/full")
    assert done.returncode == 5
    shown = [line for line in done.stderr.splitlines() if not line[:4].isdigit()]
    assert shown[0] == "error[CLI010] cannot write to stdout: No space left on device"
    assert len(shown) == 2


@pytest.mark.usefixtures("full")
def test_an_error_that_json_cannot_hold_is_told_on_stderr(folder: Path) -> None:
    done = shell(folder, "$FLOWKILN run show 17 --json >/dev/full")
    assert done.returncode in (2, 19)
    assert done.stderr.startswith("error[")


def test_a_closed_stdout_is_no_output_wanted(folder: Path) -> None:
    done = shell(folder, "$FLOWKILN run list >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_ends_the_command(folder: Path) -> None:
    assert shell(folder, "$FLOW run -q --run-id-file run").returncode == 0
    done = shell(folder, "$FLOWKILN run logs Small/$(cat run) | { read line; }")  # more lines than a pipe holds
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("full")
def test_a_full_event_file_does_not_end_the_run(folder: Path) -> None:
    done = shell(folder, "$FLOW run --events /dev/full")
    assert done.returncode == 0, done.stderr
    assert "EventFile failed" in done.stdout


def test_a_reader_of_events_may_leave(folder: Path) -> None:
    os.mkfifo(folder / "events")

    def read_one() -> None:
        with (folder / "events").open() as stream:
            stream.readline()

    reader = threading.Thread(target=read_one)
    reader.start()
    done = shell(folder, "$FLOW run --events events")
    reader.join()
    assert done.returncode == 0, done.stderr
    assert " ok " in status(folder)
