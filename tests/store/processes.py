"""Running pieces of Python in processes of their own, for races and for kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs ``code`` with ``sys.argv[1:] == arguments``; its stdout is a pipe."""
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def run(code: str, *arguments: str) -> str:
    """The stdout of a process that must succeed."""
    process = start(code, *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return output


def race(code: str, *arguments: str, count: int) -> list[str]:
    """The stdout of ``count`` processes that are all let go at the same moment, after printing ``ready``."""
    processes = [start(code, *arguments, str(number)) for number in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return outputs


WAIT = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"
