"""The tasks of one foreach level as a width and a byte per task, never an object per task.

A cohort's ids are one block: task (position p, index i) has the id ``first + p * width + i``.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence

    from flowkiln.executor.shape import Node, Region

WAITING: Final = 0
READY: Final = 1
RUNNING: Final = 2
PAUSED: Final = 3
OK: Final = 4
FAILED: Final = 5
CANCELLED: Final = 6

STATE_NAMES: Final = ("waiting", "ready", "running", "paused", "ok", "failed", "cancelled")
TERMINAL: Final = frozenset((OK, FAILED, CANCELLED))


class Lane:
    """The ready tasks of one step in one cohort, first come first served.

    ``fresh`` is the next index of a whole width that became ready at once; ``queue`` holds single ones.
    Entries may be stale: a task that is no longer ready is skipped when it comes up.
    """

    __slots__ = ("cohort", "fresh", "listed", "position", "queue")

    def __init__(self, cohort: Cohort, position: int) -> None:
        self.cohort = cohort
        self.position = position
        self.fresh: int | None = None
        self.queue: deque[int] = deque()
        self.listed = False

    def pop(self) -> int | None:
        """The index of the next ready task, None when the lane is empty."""
        cohort, start = self.cohort, self.position * self.cohort.width
        while self.queue:
            index = self.queue.popleft()
            if cohort.states[start + index] == READY:
                return index
        while self.fresh is not None:
            index = self.fresh
            self.fresh = index + 1 if index + 1 < cohort.width else None
            if cohort.states[start + index] == READY:
                return index
        return None


class Cohort:
    """One opening of a region: ``width`` indices times the region's steps.

    ``outer`` and ``index`` say whose foreach task opened it; ``opener`` is that task and ``opener_attempt`` its
    sealed attempt. ``done`` counts indices whose tail has succeeded.
    """

    __slots__ = (
        "done",
        "first",
        "index",
        "lanes",
        "opener",
        "opener_attempt",
        "outer",
        "region",
        "states",
        "waits",
        "width",
    )

    def __init__(self, region: Region, width: int, first: int) -> None:
        self.region = region
        self.width = width
        self.first = first
        self.outer: Cohort | None = None
        self.index = 0
        self.opener = 0
        self.opener_attempt = 0
        self.done = 0
        self.states = bytearray(width * len(region.nodes))
        self.waits: dict[int, MutableSequence[int]] = {
            node.position: _counters(len(node.branches), width) for node in region.nodes if node.branches
        }
        self.lanes: dict[int, Lane] = {}

    @property
    def size(self) -> int:
        """How many ids the cohort has."""
        return len(self.states)

    def lane(self, position: int) -> Lane:
        """The lane of the step at ``position``."""
        lane = self.lanes.get(position)
        if lane is None:
            lane = self.lanes[position] = Lane(self, position)
        return lane

    def indices(self, index: int) -> tuple[int, ...]:
        """The foreach indices of the tasks at ``index``, outermost first."""
        found = []
        cohort: Cohort | None = self
        while cohort is not None and cohort.outer is not None:
            found.append(index)
            index, cohort = cohort.index, cohort.outer
        return tuple(reversed(found))

    def frames(self) -> tuple[tuple[int, int, int], ...]:
        """(foreach task, its sealed attempt, width) of each level, outermost first."""
        found = []
        cohort: Cohort | None = self
        while cohort is not None and cohort.outer is not None:
            found.append((cohort.opener, cohort.opener_attempt, cohort.width))
            cohort = cohort.outer
        return tuple(reversed(found))

    def tasks(self) -> Iterator[tuple[int, Node, int, int]]:
        """(id, node, index, state) of every task, by id."""
        for offset, state in enumerate(self.states):
            position, index = divmod(offset, self.width)
            yield self.first + offset, self.region.nodes[position], index, state


def _counters(value: int, width: int) -> MutableSequence[int]:
    if value < 256:
        return bytearray([value]) * width
    return array("L", [value]) * width
