"""Where every task of a run stands, and what becomes ready when one succeeds.

Ids are fixed by the order in which foreach blocks are opened, and that order stands in the journal. Every
operation costs the same whatever the width: nothing here walks a cohort, except for the end record.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.executor import cohort as states
from flowkiln.executor.backend import Assignment
from flowkiln.executor.cohort import Cohort, Lane
from flowkiln.executor.retries import Tries
from flowkiln.executor.shape import regions_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.shape import Node

FIRST_TASK = 1


class Place(NamedTuple):
    """A task, found: in its cohort, of its step, ``at`` its index."""

    cohort: Cohort
    node: Node
    at: int


class TaskRow(NamedTuple):
    """One task as the end record lists it: ``attempt`` is the last one, ``state`` one of STATE_NAMES."""

    task: int
    step: str
    indices: tuple[int, ...]
    attempt: int
    state: str


class Board:
    """The tasks of one run."""

    def __init__(self, plan: RunPlan) -> None:
        self._regions = regions_of(plan)
        self._cohorts: list[Cohort] = []
        self._firsts: list[int] = []
        self._opened_by: dict[int, Cohort] = {}
        self._levels: dict[int, deque[Lane]] = {}
        self._tries: dict[int, Tries] = {}
        self._counts = {step.name: [0] * len(states.STATE_NAMES) for step in plan.steps}
        self.next_id = FIRST_TASK
        self.finished = False

    # -- tasks -------------------------------------------------------------------------------------------------

    def locate(self, task: int) -> Place | None:
        """The place of ``task``, None for an id that this run has not given out."""
        at = bisect_right(self._firsts, task) - 1
        if at < 0:
            return None
        cohort = self._cohorts[at]
        position, index = divmod(task - cohort.first, cohort.width)
        if position >= len(cohort.region.nodes):
            return None
        return Place(cohort, cohort.region.nodes[position], index)

    def task(self, place: Place) -> int:
        """The id of the task at ``place``."""
        return place.cohort.first + place.node.position * place.cohort.width + place.at

    def state(self, place: Place) -> int:
        """The state of the task at ``place``."""
        return place.cohort.states[place.node.position * place.cohort.width + place.at]

    def move(self, place: Place, state: int) -> None:
        """Puts the task at ``place`` into ``state``."""
        offset = place.node.position * place.cohort.width + place.at
        counts = self._counts[place.node.plan.name]
        counts[place.cohort.states[offset]] -= 1
        counts[state] += 1
        place.cohort.states[offset] = state

    def attempt(self, task: int) -> int:
        """The present (or last) attempt of ``task``."""
        tries = self._tries.get(task)
        return 0 if tries is None else tries.attempt

    def tries(self, task: int) -> Tries:
        """What ``task`` has used up; change it only through ``keep``."""
        return self._tries.get(task) or Tries()

    def keep(self, task: int, tries: Tries) -> None:
        """Stores what ``task`` has used up. Only tasks that failed once have an entry."""
        self._tries[task] = tries

    def retried(self) -> Iterator[Place]:
        """The tasks that have failed at least once and now wait for another attempt."""
        for task in self._tries:
            place = self.locate(task)
            if place is not None and self.state(place) in (states.READY, states.PAUSED):
                yield place

    # -- readiness ---------------------------------------------------------------------------------------------

    def open(self, region: int, width: int, first: int, place: Place | None = None) -> Cohort:
        """Opens a region ``width`` wide for the foreach task at ``place``; its ids begin at ``first``."""
        cohort = Cohort(self._regions[region], width, first)
        if place is not None:
            task = self.task(place)
            cohort.outer, cohort.index = place.cohort, place.at
            cohort.opener, cohort.opener_attempt = task, self.attempt(task)
            self._opened_by[task] = cohort
        at = bisect_right(self._firsts, first)
        self._firsts.insert(at, first)
        self._cohorts.insert(at, cohort)
        self.next_id = max(self.next_id, first + cohort.size)
        for node in cohort.region.nodes:
            self._counts[node.plan.name][states.WAITING] += width
        self._ready_all(cohort)
        return cohort

    def ready(self, place: Place) -> None:
        """Puts one task at the end of its step's queue."""
        self.move(place, states.READY)
        lane = place.cohort.lane(place.node.position)
        lane.queue.append(place.at)
        self._list(lane, place.node.depth)

    def take(self, limit: int) -> list[Place]:
        """Up to ``limit`` ready tasks of one step, the deepest step first, steps of equal depth in turn."""
        while self._levels:
            depth = max(self._levels)
            lanes = self._levels[depth]
            lane = lanes.popleft()
            node = lane.cohort.region.nodes[lane.position]
            taken: list[Place] = []
            while len(taken) < limit and (index := lane.pop()) is not None:
                taken.append(Place(lane.cohort, node, index))
            lane.listed = len(taken) == limit
            if lane.listed:
                lanes.append(lane)
            elif not lanes:
                del self._levels[depth]
            if taken:
                return taken
        return []

    def succeed(self, place: Place) -> None:
        """Marks the task done and makes ready what waited for it; a foreach is opened by ``open``."""
        self.move(place, states.OK)
        cohort, node, index = place
        for position in node.within:
            target = cohort.region.nodes[position]
            waits = cohort.waits.get(position)
            if waits is not None:
                waits[index] -= 1
                if waits[index]:
                    continue
            self.ready(Place(cohort, target, index))
        if node.leaves is not None and cohort.outer is not None:
            cohort.done += 1
            if cohort.done == cohort.width:
                outer = cohort.outer
                self.ready(Place(outer, outer.region.nodes[node.leaves], cohort.index))
        if not node.plan.targets:
            self.finished = True

    def _ready_all(self, cohort: Cohort) -> None:
        node = cohort.region.nodes[0]
        cohort.states[: cohort.width] = bytes([states.READY]) * cohort.width
        counts = self._counts[node.plan.name]
        counts[states.WAITING] -= cohort.width
        counts[states.READY] += cohort.width
        lane = cohort.lane(0)
        lane.fresh = 0
        self._list(lane, node.depth)

    def _list(self, lane: Lane, depth: int) -> None:
        if not lane.listed:
            lane.listed = True
            self._levels.setdefault(depth, deque()).append(lane)

    # -- what others ask ---------------------------------------------------------------------------------------

    def parent(self, place: Place) -> tuple[int, int] | None:
        """The (task, attempt) whose artifacts the task inherits, None for a join."""
        cohort, node, index = place
        if node.plan.closes is not None:
            return None
        if node.parent is not None:
            task = cohort.first + node.parent * cohort.width + index
            return task, self.attempt(task)
        return cohort.opener, cohort.opener_attempt

    def inputs(self, place: Place) -> Iterator[tuple[str, int, int]]:
        """(step, task, attempt) of a join's inputs, in branch or index order."""
        cohort, node, index = place
        if node.branches:
            for position in node.branches:
                task = cohort.first + position * cohort.width + index
                yield cohort.region.nodes[position].plan.name, task, self.attempt(task)
            return
        opener = next(n for n in cohort.region.nodes if n.plan.name == node.plan.closes)
        inner = self._opened_by[cohort.first + opener.position * cohort.width + index]
        tail = inner.region.nodes[inner.region.tail]
        first = inner.first + tail.position * inner.width
        for task in range(first, first + inner.width):
            yield tail.plan.name, task, self.attempt(task)

    def assignment(self, place: Place, plan: RunPlan, run: str, inputs: str | None) -> Assignment:
        """The present attempt of the task at ``place``, ready to be handed to a backend."""
        task = self.task(place)
        tries = self.tries(task)
        return Assignment(
            run=run,
            flow=plan.flow,
            step=place.node.plan.name,
            task=task,
            attempt=tries.attempt,
            retry_count=tries.user,
            indices=place.cohort.indices(place.at),
            frames=place.cohort.frames(),
            parent=self.parent(place),
            inputs=inputs,
            fallback=tries.fallback,
            last=tries.fallback or tries.user >= place.node.plan.retries,
        )

    def counts(self) -> JSONObject:
        """Per step, how many tasks are in which state (only those that occur), in the order of the plan."""
        return {
            step: {name: number for name, number in zip(states.STATE_NAMES, counts, strict=True) if number}
            for step, counts in self._counts.items()
        }

    def rows(self) -> Iterator[TaskRow]:
        """Every task, by id."""
        for cohort in self._cohorts:
            for task, node, index, state in cohort.tasks():
                name = states.STATE_NAMES[state]
                yield TaskRow(task, node.plan.name, cohort.indices(index), self.attempt(task), name)
