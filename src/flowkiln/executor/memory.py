"""Whether the kernel ended a process for memory: counters that it keeps, where it lets us read them."""

from __future__ import annotations

import os
from pathlib import Path

REMEDY = (
    "Hold less at once, run fewer tasks at once (--max-workers), or, in a container, give the step more: "
    "@resources(memory=MEGABYTES)."
)
_MIB, _GIB = 1 << 20, 1 << 30
_GROUPS = Path("/sys/fs/cgroup")
_EVENTS = "memory.events"
_UNLIMITED = 1 << 60
"""What version 1 of control groups writes for no limit is near the largest number of all."""


class MemoryKills:
    """Tells whether the kernel has killed something of ours for memory since the last look.

    Linux counts such kills by control group, and for the whole machine. Elsewhere the answer is always no.
    """

    def __init__(self) -> None:
        self._sources = [*_events(), Path("/proc/vmstat")]
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
        of = f" of {shown(limit)}" if limit else ""
        return f"the kernel ended the process for lack of memory (its peak was {shown(peak)}{of})"

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


def shown(size: int) -> str:
    """Bytes of memory for people, in the unit that limits are written in."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"


def memory_limit() -> int | None:
    """The bytes of memory that this process and its children may use together, None where unknown."""
    for events in _events():
        name = "memory.max" if events.name == _EVENTS else "memory.limit_in_bytes"
        try:
            text = (events.parent / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _UNLIMITED:
            return int(text)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _events() -> list[Path]:
    """The event counters of this process's control group, of version 2 or 1, where there are any.

    A container of version 1 sees the path that its group has on the host, and the group itself as the root.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        below = path.lstrip("/")
        if number == "0" and not controllers:
            found.append(_GROUPS / below / _EVENTS)
        elif "memory" in controllers.split(","):
            found += [_GROUPS / "memory" / below / "memory.oom_control", _GROUPS / "memory" / "memory.oom_control"]
    return [place for place in found if place.exists()]
