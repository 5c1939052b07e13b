"""The run state machine: events in, instructions out, no IO, no clock, no randomness of its own.

Only sealed outcomes advance the graph. While a run is replayed every task that becomes ready is probed in the
store; once ``DriverTook`` says that a driver holds the run, ready tasks are submitted.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Literal

from flowkiln.executor import cohort as states
from flowkiln.executor.board import FIRST_TASK, Place
from flowkiln.executor.following import unfollowable, why
from flowkiln.executor.history import History
from flowkiln.executor.retries import Policy, owner_of
from flowkiln.executor.situation import FirstFailure, Situation
from flowkiln.executor.vocabulary import (
    Absent,
    Append,
    Began,
    CancelAsked,
    CancelConfirmed,
    Close,
    DriverTook,
    ObservationLost,
    Observed,
    Probe,
    Report,
    RunOpened,
    Seal,
    Sealed,
    Submit,
    SubmitAccepted,
    SubmitRefused,
    SubmitUnknown,
    TimerFired,
    Verdict,
)
from flowkiln.executor.watching import Watch
from flowkiln.store import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.board import TaskRow
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.retries import Owner
    from flowkiln.executor.situation import Ending
    from flowkiln.executor.vocabulary import Event, Instruction

LARGEST_BATCH = 1000
LARGEST_REPLAY = 256


class Machine:
    """One run. ``handle`` is its only way in; the other methods only look."""

    def __init__(
        self,
        plan: RunPlan,
        run: str,
        *,
        policy: Policy | None = None,
        seed: int = 0,
        history: History | None = None,
    ) -> None:
        self._at = Situation(plan, run, policy or Policy(), seed, history or History())
        self._board = self._at.board
        self._watch = Watch(self._at)
        self._asked: set[int] = set()
        self._parked = array("q")
        self._unopened: list[tuple[Place, int]] = []
        self._closed = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            RunOpened: self._opened,
            DriverTook: self._took,
            Sealed: self._sealed,
            CancelAsked: self._cancel_asked,
            Absent: self._absent,
            Began: self._began,
            SubmitAccepted: self._watch.accepted,
            SubmitRefused: self._watch.refused,
            SubmitUnknown: self._watch.unknown,
            Observed: self._watch.observed,
            ObservationLost: self._watch.observation_lost,
            CancelConfirmed: self._watch.cancel_confirmed,
            TimerFired: self._watch.timer_fired,
        }

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What is to be done about ``event`` at ``now`` (seconds, never falling), in order.

        An ``Append`` comes first: what follows it must not be performed unless it succeeded.
        """
        at = self._at
        at.now, at.out = now, []
        if self._closed:
            return []
        self._handlers[type(event)](event)
        if at.replaying:
            self._probe_ready()
            return at.out
        self._submit_ready()
        self._close_if_over()
        if at.decisions:
            at.out.insert(0, Append({"epoch": at.epoch, **at.decisions}))
            at.decisions = {}
        return at.out

    # -- what others ask ---------------------------------------------------------------------------------------

    @property
    def failure(self) -> FirstFailure | None:
        """The failure that ended the run."""
        return self._at.failure

    @property
    def ending(self) -> bool:
        """Whether nothing more is started."""
        return self._at.ending is not None

    @property
    def in_flight(self) -> int:
        """How many attempts are with the backend."""
        return len(self._at.flights)

    def where(self, task: int) -> tuple[str, tuple[int, ...]] | None:
        """The step and foreach indices of ``task``."""
        place = self._board.locate(task)
        return None if place is None else (place.node.plan.name, place.cohort.indices(place.at))

    def inputs(self, task: int) -> Iterator[tuple[str, int, int]]:
        """(step, task, attempt) of the inputs of a join that is ready or later, in branch or index order."""
        place = self._board.locate(task)
        assert place is not None
        return self._board.inputs(place)

    def assignment(self, task: int) -> Assignment | None:
        """The last attempt of ``task`` as it was handed to a backend; None for a task that there is none of."""
        place = self._board.locate(task)
        if place is None:
            return None
        at = self._at
        inputs = keys.inputs(at.run, task) if place.node.plan.closes is not None else None
        return self._board.assignment(place, at.plan, at.run, inputs)

    def counts(self) -> JSONObject:
        """Per step, how many tasks are in which state."""
        return self._board.counts()

    def rows(self) -> Iterator[TaskRow]:
        """Every task by id, for the end record."""
        return self._board.rows()

    def snapshot(self) -> JSONObject:
        """The state in a few words, for people and tests; its size does not depend on any width."""
        at = self._at
        return {
            "epoch": at.epoch,
            "ending": at.ending,
            "closed": self._closed,
            "next_id": self._board.next_id,
            "in_flight": len(at.flights),
            "paused": len(at.paused),
            "counts": self._board.counts(),
        }

    # -- opening and taking ------------------------------------------------------------------------------------

    def _opened(self, event: RunOpened) -> None:  # noqa: ARG002  carries no data
        if self._board.next_id != FIRST_TASK:
            return
        self._board.open(0, 1, FIRST_TASK)
        self._board.next_id = max(self._board.next_id, self._at.history.next_id)

    def _took(self, event: DriverTook) -> None:
        at = self._at
        if not at.replaying:
            return
        at.replaying = False
        at.epoch = event.epoch
        at.decisions["took"] = True
        if at.history.cancelled is not None and at.history.failed is None:
            at.ending, at.failure = at.history.cancelled, None
        elif at.failure is not None and at.history.failed is None:
            at.decisions["failed"] = [at.failure.task, at.failure.attempt]
        for task in self._parked:
            self._unpark(task)
        for place, width in self._unopened:
            self._open_block(place, width)
        self._parked, self._unopened = array("q"), []
        if at.ending is not None:
            self._end(at.ending)
        self._watch.find_inherited()

    def _unpark(self, task: int) -> None:
        place = self._at.find(task, self._board.attempt(task))
        if place is not None and self._board.state(place) == states.READY:
            self._board.ready(place)

    # -- outcomes ----------------------------------------------------------------------------------------------

    def _sealed(self, event: Sealed) -> None:
        at = self._at
        self._asked.discard(event.task)
        place = at.find(event.task, event.attempt)
        if place is None:
            return
        at.flights.land(event.task)
        at.paused.discard(event.task)
        at.returned.discard(event.task)
        at.refusals.pop(event.task, None)
        verdict = event.outcome
        if verdict.ok:
            problem = unfollowable(place.node.plan, verdict, at.plan.max_splits)
            if problem is None:
                self._succeeded(place, event.attempt, verdict)
            else:
                self._lost(place, event.attempt, problem)
            return
        tries = self._board.tries(event.task)
        owner = owner_of(place.node.plan, tries, verdict, at.policy)
        if owner is None or (at.ending is not None and not at.replaying):
            self._lost(place, event.attempt, verdict, retryable=owner is not None)
        else:
            self._retry(place, verdict, owner)

    def _succeeded(self, place: Place, attempt: int, verdict: Verdict) -> None:
        at = self._at
        task = self._board.task(place)
        self._board.succeed(place)
        self._report_end(task, attempt, "ok", verdict)
        if place.node.opens is None:
            return
        assert verdict.width is not None
        block = at.history.blocks.get((task, attempt))
        if block is not None:
            self._board.open(place.node.opens, block[1], block[0], place)
        elif at.replaying:
            self._unopened.append((place, verdict.width))
        else:
            self._open_block(place, verdict.width)

    def _open_block(self, place: Place, width: int) -> None:
        at = self._at
        if at.ending is not None:
            return
        task, first = self._board.task(place), self._board.next_id
        assert place.node.opens is not None
        size = self._board.open(place.node.opens, width, first, place).size
        attempt = self._board.attempt(task)
        at.decisions.setdefault("blocks", []).append([task, attempt, width, first, size])
        data: JSONObject = {"width": width, "first": first, "targets": list(place.node.plan.targets)}
        at.out.append(Report("foreach", task, attempt, data))

    def _retry(self, place: Place, verdict: Verdict, owner: Owner) -> None:
        at = self._at
        task = self._board.task(place)
        tries = self._board.tries(task)
        failed = tries.attempt
        tries.advance(owner)
        self._board.keep(task, tries)
        delay = place.node.plan.retry_delay if owner == "user" and not at.replaying else 0.0
        if delay > 0:
            at.hold(place)
            at.timer("retry", task, delay)
        else:
            at.queue(place)
        if not at.replaying:
            data = why(verdict) | {"next": tries.attempt, "delay": delay, "owner": owner}
            at.out.append(Report("task-retrying", task, failed, data))

    def _lost(self, place: Place, attempt: int, verdict: Verdict, *, retryable: bool = False) -> None:
        """A final failure, or one that comes while the run is ending."""
        at = self._at
        task = self._board.task(place)
        cancelled = verdict.failure_class == "cancelled" or retryable
        self._board.move(place, states.CANCELLED if cancelled else states.FAILED)
        self._report_end(task, attempt, "cancelled" if cancelled else "failed", verdict)
        if at.replaying:
            if at.failure is None or at.history.failed == (task, attempt):
                at.failure = FirstFailure(task, attempt, verdict)
            at.ending = "failed"
        elif at.ending is None:
            at.failure = FirstFailure(task, attempt, verdict)
            at.decisions["failed"] = [task, attempt]
            self._end("failed")

    def _report_end(self, task: int, attempt: int, status: str, verdict: Verdict) -> None:
        if self._at.replaying:
            return
        data: JSONObject = {"status": status, "started": verdict.started, "ended": verdict.ended}
        if verdict.caught or not verdict.ok:
            data |= {"caught": verdict.caught} | why(verdict)
        self._at.out.append(Report("task-ended", task, attempt, data))

    # -- replay, submission, end -------------------------------------------------------------------------------

    def _probe_ready(self) -> None:
        while len(self._asked) < LARGEST_REPLAY:
            for place in (places := self._board.take(LARGEST_REPLAY - len(self._asked))):
                task = self._board.task(place)
                self._asked.add(task)
                self._at.out.append(Probe(task, self._board.attempt(task)))
            if not places:
                return

    def _began(self, event: Began) -> None:
        self._asked.discard(event.task)
        self._watch.began(event)

    def _absent(self, event: Absent) -> None:
        if not self._at.replaying:
            self._watch.absent(event)
            return
        found = self._at.flights.resolve(event.handle, event.array_index)
        place = None if found is None else self._at.find(*found)
        if found is None or place is None or found[0] not in self._asked:
            return
        self._asked.discard(found[0])
        batch = self._at.history.submitted.get(found)
        if batch is None:
            self._parked.append(found[0])
        else:
            self._at.flights.adopt(*found, batch)
            self._board.move(place, states.RUNNING)

    def _submit_ready(self) -> None:
        at = self._at
        while at.ending is None:
            room = min(max(at.plan.max_workers, 1) - len(at.flights), LARGEST_BATCH)
            places = self._board.take(room) if room > 0 else []
            if not places:
                return
            self._submit(places)

    def _submit(self, places: list[Place]) -> None:
        at = self._at
        at.last_batch += 1
        step = places[0].node.plan
        assignments = []
        for place in places:
            self._board.move(place, states.RUNNING)
            at.returned.discard(self._board.task(place))
            inputs = keys.inputs(at.run, self._board.task(place)) if step.closes is not None else None
            assignments.append(self._board.assignment(place, at.plan, at.run, inputs))
        members = tuple((assignment.task, assignment.attempt) for assignment in assignments)
        at.flights.launch(at.last_batch, members)
        if at.policy.durable:
            submitted = [at.last_batch, [list(member) for member in members]]
            at.decisions.setdefault("submitted", []).append(submitted)
        at.out.append(Submit(at.last_batch, step.name, tuple(assignments)))

    def _cancel_asked(self, event: CancelAsked) -> None:
        at = self._at
        if at.ending is not None or at.history.cancelled is not None:
            return
        at.history.cancelled = event.how
        at.decisions["cancelled"] = event.how
        if not at.replaying:
            self._end(event.how)

    def _end(self, how: Ending) -> None:
        """Starts nothing more, and cancels what runs."""
        at = self._at
        at.ending = how
        for task in sorted(at.returned):
            at.out.append(Seal(task, self._board.attempt(task), "cancelled", "cancelled", "cancelled"))
        for place in self._board.retried():
            if self._board.task(place) not in at.returned:
                self._board.move(place, states.CANCELLED)
        at.paused.clear()
        for task, flight in at.flights:
            if not flight.cancels:
                at.cancel(task, flight)

    def _close_if_over(self) -> None:
        at = self._at
        if at.flights or self._closed or (at.ending is not None and at.returned):
            return
        if self._board.finished:
            status: Literal["ok"] | Ending = "ok"
        elif at.ending is not None:
            status = at.ending
        else:
            return
        self._closed = True
        at.decisions["closed"] = status
        at.out.append(Close(status))
