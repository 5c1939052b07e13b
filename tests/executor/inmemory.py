"""A backend that runs attempts in this process: the records are real, the steps are functions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.executor.outcome import Failure, Outcome, Transition
from flowkiln.executor.vocabulary import Began, CancelConfirmed, Event, Sealed, Verdict
from flowkiln.store import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.driver import Store
    from tests.executor.plans import Flow

    Perform = Callable[[Assignment], Failure | None]


class Memory:
    """``perform`` is called for each attempt, None is success. ``hold`` keeps attempts of a step running.

    ``when_idle`` is called by a poll that has nothing to start; a ``stubborn`` backend confirms no cancellation.
    """

    def __init__(self, flow: Flow, store: Store, perform: Perform | None = None, hold: str = "") -> None:
        self.flow = flow
        self.store = store
        self.perform: Perform = perform or (lambda _: None)
        self.hold = hold
        self.queue: deque[Assignment] = deque()
        self.running: dict[tuple[int, int], Assignment] = {}
        self.performed: list[Assignment] = []
        self.events: list[Event] = []
        self.widest = 0
        self.when_idle: Callable[[], object] = lambda: None
        self.stubborn = False
        self.closed = False

    def submit(self, assignments: Sequence[Assignment]) -> None:
        self.queue.extend(assignments)
        self.widest = max(self.widest, len(self.queue) + len(self.running))

    def poll(self, timeout: float) -> list[Event]:
        if self.queue:
            self.start(self.queue.popleft())
        elif not self.events:
            self.when_idle()
        events, self.events = self.events, []
        return events

    def start(self, assignment: Assignment) -> None:
        key = (assignment.task, assignment.attempt)
        assert self.store.records.create(keys.begin(assignment.run, *key), b"{}")
        self.events.append(Began(*key))
        if assignment.step == self.hold:
            self.running[key] = assignment
            return
        self.performed.append(assignment)
        self.finish(assignment, self.perform(assignment))

    def finish(self, assignment: Assignment, failure: Failure | None) -> None:
        key = (assignment.task, assignment.attempt)
        step = self.flow.plan.step(assignment.step)
        if failure is None:
            transition = Transition(targets=step.targets, width=self.flow.widths.get(step.name))
            outcome = Outcome(status="ok", transition=transition)
        else:
            outcome = Outcome(status="failed", failure=failure)
        assert self.store.records.create(keys.outcome(assignment.run, *key), json.compact(outcome.to_json()))
        self.events.append(Sealed(*key, Verdict.of(outcome)))

    def cancel(self, task: int, attempt: int) -> None:
        if self.stubborn:
            return
        self.running.pop((task, attempt), None)
        self.queue = deque(one for one in self.queue if (one.task, one.attempt) != (task, attempt))
        self.events.append(CancelConfirmed(task, attempt))

    def close(self) -> None:
        self.closed = True
