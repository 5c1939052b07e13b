"""Whether the kernel ended a process for memory: counters that it keeps, where it lets us read them."""

from __future__ import annotations

import os
from pathlib import Path

_GIB = 1 << 30


class MemoryKills:
    """Tells whether the kernel has killed something of ours for memory since the last look.

    Linux counts such kills by control group, and for the whole machine. Elsewhere the answer is always no.
    """

    def __init__(self) -> None:
        self._sources = [place for place in (_group_events(), Path("/proc/vmstat")) if place is not None]
        self._seen = self._count()

    def happened(self) -> bool:
        """Whether a counter has grown since this was last asked."""
        before, self._seen = self._seen, self._count()
        return self._seen > before

    def explain(self, peak: int) -> str | None:
        """One sentence if a kill has happened since the last look, else None; ``peak`` bytes were held at most."""
        if not self.happened():
            return None
        limit = memory_limit()
        of = f" of {limit / _GIB:.1f}" if limit else ""
        return f"the kernel ended the process for lack of memory (its peak was {peak / _GIB:.1f}{of} GiB)"

    def _count(self) -> int:
        """The first counter that can be read: of our control group, else of the machine."""
        for place in self._sources:
            try:
                lines = place.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        return 0


def memory_limit() -> int | None:
    """The bytes of memory that this process and its children may use together, None where unknown."""
    events = _group_events()
    if events is not None:
        try:
            text = (events.parent / "memory.max").read_text().strip()
        except OSError:
            text = "max"
        if text.isdigit():
            return int(text)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _group_events() -> Path | None:
    """The event counters of this process's control group (version 2), if it has one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            path = Path("/sys/fs/cgroup") / line[3:].lstrip("/") / "memory.events"
            return path if path.exists() else None
    return None
