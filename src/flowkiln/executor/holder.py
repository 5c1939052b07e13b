"""Which process holds an attempt, as written into its ``begin`` record, and whether that process is gone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject


def this_process() -> JSONObject:
    """The launcher that runs now: host, pid and, where the system tells, boot and time of its start."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "boot": _boot(), "start": _start(pid)}


def is_gone(holder: JSONObject) -> bool:
    """Whether the process that ``this_process`` described has provably ended. False where one cannot know."""
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("boot") != _boot():
        return True
    pid = holder.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process has the number now, or ours runs under another user
    start = _start(pid)
    return start is not None and start != holder.get("start")


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _start(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
