"""What the state machine makes of answers, observations and silence concerning submitted attempts.

None of it advances the graph: it ends in looking again, in submitting the same attempt again, or in a seal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.executor import cohort as states
from flowkiln.executor.retries import pause
from flowkiln.executor.vocabulary import Find, Probe, Report, Seal

if TYPE_CHECKING:
    from flowkiln.executor.board import Place
    from flowkiln.executor.flights import Flight
    from flowkiln.executor.situation import Situation
    from flowkiln.executor.vocabulary import (
        Absent,
        Began,
        CancelConfirmed,
        ObservationLost,
        Observed,
        SubmitAccepted,
        SubmitRefused,
        SubmitUnknown,
        TimerFired,
    )

CANCELS = 3
"""How often a cancellation is asked for before the attempt is given up."""


class Watch:
    """Handlers of all events that are hints."""

    def __init__(self, situation: Situation) -> None:
        self._at = situation

    # -- answers to submissions --------------------------------------------------------------------------------

    def accepted(self, event: SubmitAccepted) -> None:
        """The batch is with the backend."""
        self._at.flights.accepted(event.batch, event.handle)
        for _, flight in self._at.flights.members(event.batch):
            flight.seen = True

    def refused(self, event: SubmitRefused) -> None:
        """Tries again later; after too many refusals, or a final one, the attempts are sealed."""
        at = self._at
        for task, flight in list(at.flights.members(event.batch)):
            if flight.began:
                continue
            times = at.refusals[task] = at.refusals.get(task, 0) + 1
            if event.final:
                at.out.append(Seal(task, flight.attempt, "environment", "not-started", event.reason))
            elif times > at.policy.refusals or at.ending is not None:
                at.refusals.pop(task)
                at.out.append(Seal(task, flight.attempt, "infrastructure", "not-started", event.reason))
            else:
                self._set_aside(task, flight)
                at.timer("resubmit", task, pause(at.policy, at.seed, task, times))

    def unknown(self, event: SubmitUnknown) -> None:
        """Looks for the batch, for a grace period."""
        at = self._at
        for task, _ in at.flights.members(event.batch):
            at.timer("resubmit", task, at.policy.grace)
        self._look([task for task, _ in at.flights.members(event.batch)])

    def began(self, event: Began) -> None:
        """User code of the attempt may be running."""
        at = self._at
        place = at.find(event.task, event.attempt)
        if place is None:
            return
        flight = at.flights.get(event.task, event.attempt)
        if flight is None:
            batch = at.history.submitted.get((event.task, event.attempt), 0)
            flight = at.flights.adopt(event.task, event.attempt, batch)
            flight.inherited = at.replaying
            at.paused.discard(event.task)
            at.returned.discard(event.task)
            at.board.move(place, states.RUNNING)
            if at.ending is not None and not at.replaying:
                at.cancel(event.task, flight)
        if not flight.began and not at.replaying:
            at.out.append(Report("task-started", event.task, event.attempt, {}))
        flight.began = flight.seen = True

    # -- observations ------------------------------------------------------------------------------------------

    def observed(self, event: Observed) -> None:
        """An end without an outcome is read again for a grace period; anything else is a sign of life."""
        found = self._resolve(event.handle, event.array_index)
        if found is None:
            return
        task, flight = found
        flight.seen, flight.absent, flight.inherited = True, False, False
        if event.phase in ("succeeded", "failed"):
            self._doubt(task, flight, event.evidence)

    def absent(self, event: Absent) -> None:
        """Missing from a whole list: lost if it had been seen, not submitted if it never was."""
        found = self._resolve(event.handle, event.array_index)
        if found is None:
            return
        task, flight = found
        if not event.complete:
            if not flight.doubted and not flight.absent:
                self._at.timer("resubmit", task, self._at.policy.grace)
            return
        flight.absent = True
        if flight.inherited and flight.began:
            self._at.give_up(task, flight, takeover=True)
        elif flight.seen:
            self._doubt(task, flight, "the backend no longer knows the attempt")

    def observation_lost(self, event: ObservationLost) -> None:  # noqa: ARG002  carries no data
        """Reads every open attempt again, and looks for them where that is possible."""
        at = self._at
        open_tasks = []
        for task, flight in at.flights:
            at.out.append(Probe(task, flight.attempt))
            open_tasks.append(task)
        if at.policy.durable:
            self._look(open_tasks)

    def cancel_confirmed(self, event: CancelConfirmed) -> None:
        """The attempt is over; whichever outcome was sealed first holds."""
        if self._at.flights.get(event.task, event.attempt) is not None:
            self._at.out.append(Seal(event.task, event.attempt, "cancelled", "cancelled", "cancelled"))

    # -- timers ------------------------------------------------------------------------------------------------

    def timer_fired(self, event: TimerFired) -> None:
        """Does what was put off, if it still applies."""
        at = self._at
        place = at.find(event.task, event.attempt)
        if place is None:
            return
        flight = at.flights.get(event.task, event.attempt)
        if flight is None:
            if at.ending is None and event.task in at.paused and event.kind in ("retry", "resubmit"):
                at.queue(place)
        elif event.kind == "grace" and flight.doubted:
            at.give_up(event.task, flight)
        elif event.kind == "resubmit":
            self._look_again(place, event.task, flight)
        elif event.kind == "kill":
            self._press(event.task, flight)

    def _press(self, task: int, flight: Flight) -> None:
        if flight.cancels >= CANCELS:
            self._at.give_up(task, flight)
            return
        self._at.out.append(Probe(task, flight.attempt))
        self._at.cancel(task, flight)

    def _look_again(self, place: Place, task: int, flight: Flight) -> None:
        at = self._at
        if flight.began or (flight.seen and not flight.absent):
            return
        if not flight.absent:
            self._look([task])
            at.timer("resubmit", task, at.policy.grace)
        elif at.ending is not None:
            at.give_up(task, flight)
        else:
            at.flights.land(task)
            at.returned.add(task)
            at.queue(place)

    # -- shared ------------------------------------------------------------------------------------------------

    def find_inherited(self) -> None:
        """Looks for what a former driver submitted."""
        at = self._at
        inherited = [task for task, flight in at.flights if flight.inherited]
        for task in inherited:
            at.timer("resubmit", task, at.policy.grace)
        self._look(inherited)

    def _look(self, tasks: list[int]) -> None:
        at = self._at
        batches: dict[int, list[int]] = {}
        for task in tasks:
            flight = at.flights.get(task, at.board.attempt(task))
            if flight is not None:
                batches.setdefault(flight.batch, []).append(task)
        for batch, members in batches.items():
            at.out.append(Find(batch, tuple((task, at.board.attempt(task)) for task in members)))

    def _doubt(self, task: int, flight: Flight, evidence: str) -> None:
        if flight.doubted:
            return
        flight.doubted, flight.evidence = True, evidence
        self._at.out.append(Probe(task, flight.attempt))
        self._at.timer("grace", task, self._at.policy.grace)

    def _set_aside(self, task: int, flight: Flight) -> None:
        place = self._at.find(task, flight.attempt)
        assert place is not None
        self._at.flights.land(task)
        self._at.returned.add(task)
        self._at.hold(place)

    def _resolve(self, handle: str, index: int) -> tuple[int, Flight] | None:
        found = self._at.flights.resolve(handle, index)
        if found is None:
            return None
        flight = self._at.flights.get(*found)
        return None if flight is None else (found[0], flight)
