"""The whole state of a run in memory, shared by the parts of the state machine, and what they do to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowkiln.executor import cohort as states
from flowkiln.executor.board import Board
from flowkiln.executor.flights import Flights
from flowkiln.executor.vocabulary import Cancel, Seal, SetTimer

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.board import Place
    from flowkiln.executor.flights import Flight
    from flowkiln.executor.history import History
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.retries import Policy
    from flowkiln.executor.vocabulary import Instruction, Verdict

Ending = Literal["failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class FirstFailure:
    """The failure that ended the run."""

    task: int
    attempt: int
    verdict: Verdict


class Situation:
    """A run as far as it is known. ``out`` collects instructions, ``decisions`` the next journal entry.

    ``paused`` are the tasks that wait for a timer, ``returned`` those whose present attempt was submitted and is
    not with the backend: a run ends only after these are sealed, since a lost submission may still turn up.
    """

    def __init__(self, plan: RunPlan, run: str, policy: Policy, seed: int, history: History) -> None:
        self.plan = plan
        self.run = run
        self.policy = policy
        self.seed = seed
        self.history = history
        self.board = Board(plan)
        self.flights = Flights()
        self.paused: set[int] = set()
        self.refusals: dict[int, int] = {}
        self.returned: set[int] = set()
        self.out: list[Instruction] = []
        self.decisions: JSONObject = {}
        self.now = 0.0
        self.epoch = history.epoch
        self.last_batch = history.last_batch
        self.replaying = True
        self.ending: Ending | None = None
        self.failure: FirstFailure | None = None

    def find(self, task: int, attempt: int) -> Place | None:
        """The place of that task if that very attempt is its present one and still open."""
        place = self.board.locate(task)
        if place is None or self.board.attempt(task) != attempt:
            return None
        state = self.board.state(place)
        return None if state == states.WAITING or state in states.TERMINAL else place

    def queue(self, place: Place) -> None:
        """Makes the task ready, whatever it was waiting for."""
        self.paused.discard(self.board.task(place))
        self.board.ready(place)

    def hold(self, place: Place) -> None:
        """Sets the task aside until a timer fires."""
        self.paused.add(self.board.task(place))
        self.board.move(place, states.PAUSED)

    def timer(self, kind: Literal["retry", "grace", "resubmit", "kill"], task: int, wait: float) -> None:
        """Asks for a timer concerning the present attempt of ``task`` in ``wait`` seconds."""
        self.out.append(SetTimer(kind, task, self.board.attempt(task), self.now + wait))

    def give_up(self, task: int, flight: Flight, *, takeover: bool = False) -> None:
        """Has the attempt sealed by the driver: as cancelled when the run ends, else as an infrastructure loss."""
        if self.ending is not None:
            seal = Seal(task, flight.attempt, "cancelled", "cancelled", "cancelled", takeover)
        elif takeover:
            text = "the launcher that ran it is gone"
            seal = Seal(task, flight.attempt, "infrastructure", "interrupted", text, takeover)
        else:
            text = flight.evidence or "the attempt ended and left no outcome"
            seal = Seal(task, flight.attempt, "infrastructure", "lost", text)
        self.out.append(seal)

    def cancel(self, task: int, flight: Flight) -> None:
        """Asks the backend to end the attempt, and again after a while."""
        flight.cancels += 1
        self.out.append(Cancel(task, flight.attempt))
        self.timer("kill", task, self.policy.patience)
