"""Processes that outlive the one that started them, and how to end exactly those."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.home import MACHINE
from tests.stack.place import CannotRun, read_state, run_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SYSTEM_PATH = os.pathsep.join([MACHINE["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Where programs are looked for: daemons live in folders that not every ``PATH`` names."""


@dataclass(frozen=True)
class Process:
    """A process that cannot be taken for a later one with its id."""

    pid: int
    started: int
    """The kernel's ticks from its boot to the start of the process."""

    def alive(self) -> bool:
        """Whether it is still there, and no zombie."""
        return _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def launch(command: Sequence[str], log: Path, more: Mapping[str, str] | None = None) -> Process:
    """Starts a program in a session of its own, its output in ``log``."""
    local = "127.0.0.0/8,127.0.0.1,localhost"
    environ = {**MACHINE, "PATH": SYSTEM_PATH, "NO_PROXY": local, "no_proxy": local, **(more or {})}
    program = shutil.which(command[0], path=environ["PATH"])
    if program is None:
        raise CannotRun(command[0], "it is not on PATH")
    pid = os.posix_spawn(
        program,
        list(command),
        environ,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    return Process(pid, _started(pid) or 0)


def running(name: str) -> Process | None:
    """The process of a service that was started and still lives."""
    state = read_state(name)
    if state is None:
        return None
    process = Process(int(str(state["pid"])), int(str(state["started"])))
    return process if process.alive() else None


def wait_until(ready: Callable[[], bool], process: Process, log: Path, what: str, seconds: float = 60) -> None:
    """Returns when ``ready`` holds; else ends the process and raises with the end of its log."""
    give_up = time.monotonic() + seconds
    while process.alive() and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    state = "did not answer in time" if process.alive() else "ended at once"
    end(process)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
    raise CannotRun(what, f"it {state}; {log} ends with:\n" + "\n".join(lines))


def end(process: Process, seconds: float = 30) -> None:
    """Asks the process to end, waits, and kills it when it does not."""
    for sent, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if not process.alive():
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, sent)
        give_up = time.monotonic() + patience
        while process.alive() and time.monotonic() < give_up:
            time.sleep(0.05)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # ours, when this very process started it


def port(name: str, first: int) -> int:
    """The port that the service had before, if it is free, else the first free one from ``first`` on."""
    memory = run_folder(name) / "port"
    candidates = list(range(first, first + 200))
    if memory.exists():
        candidates.insert(0, int(memory.read_text(encoding="ascii")))
    for candidate in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
        memory.write_text(str(candidate), encoding="ascii")
        return candidate
    raise CannotRun(name, f"no port from {first} to {first + 200} is free")
