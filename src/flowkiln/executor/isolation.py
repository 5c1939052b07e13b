"""Whether a warm process may be forked: what it must not hold, read from the process itself."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
_MAPS = Path("/proc/self/maps")


def never_forks() -> str | None:
    """Why processes of this system are never forked, or None where they may be.

    Apple's frameworks start threads and caches of their own that do not survive a fork.
    """
    return None if sys.platform == "linux" else f"{sys.platform} processes are not forked"


def unsafe_to_fork(own_sockets: Collection[int]) -> str | None:
    """Why this process must not be forked now, or None: threads, GPU devices, sockets or children.

    ``own_sockets`` are the descriptors that belong to flowkiln. OpenBLAS's threads are allowed: it ends them
    before each fork and starts them again on both sides.
    """
    if threading.active_count() > 1:
        names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        return f"importing the step's modules started a thread ({', '.join(names)})"
    foreign = len(list(_TASKS.iterdir())) - 1 - _blas_threads()
    if foreign > 0:
        return f"importing the step's modules started {foreign} native thread(s)"
    return _unsafe_descriptor(own_sockets) or _unsafe_children()


def _unsafe_descriptor(own_sockets: Collection[int]) -> str | None:
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208  names are numbers here
        try:
            target = str((_DESCRIPTORS / name).readlink())
        except OSError:
            continue  # the descriptor that listed the folder
        if target.startswith("/dev/nvidia"):
            return f"importing the step's modules opened {target}"
        if target.startswith("socket:") and int(name) not in own_sockets:
            return "importing the step's modules opened a socket"
    return None


def _unsafe_children() -> str | None:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return "importing the step's modules started a process"


def _blas_threads() -> int:
    """How many threads the loaded copies of OpenBLAS hold at most: numpy and scipy bring one each."""
    if "numpy" not in sys.modules:
        return 0
    libraries = {line.rsplit(None, 1)[-1] for line in _MAPS.read_text().splitlines() if "openblas" in line.lower()}
    wanted = os.environ.get("OPENBLAS_NUM_THREADS", "")
    each = int(wanted) if wanted.isdigit() and int(wanted) > 0 else os.cpu_count() or 1
    return len(libraries) * (each - 1)
