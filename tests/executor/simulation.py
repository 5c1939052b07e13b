"""A whole world for the state machine: records, a platform, a driver, and faults drawn from a seed.

The records are the only thing that survives a killed driver. The model of what must come out is computed from the
flow alone: which tasks there are, which of them fail for good, and how many attempts that takes.
"""

from __future__ import annotations

import heapq
import json
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowkiln.executor.history import History
from flowkiln.executor.machine import Machine
from flowkiln.executor.retries import Policy
from flowkiln.executor.vocabulary import (
    Absent,
    Append,
    Began,
    Cancel,
    CancelAsked,
    CancelConfirmed,
    Close,
    DriverTook,
    Find,
    ObservationLost,
    Observed,
    Probe,
    RunOpened,
    Seal,
    Sealed,
    SetTimer,
    Submit,
    SubmitAccepted,
    SubmitRefused,
    SubmitUnknown,
    TimerFired,
    Verdict,
    attempt_handle,
)
from tests.executor.plans import flow, random_blocks

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.vocabulary import Event, Instruction
    from tests.executor.plans import Flow

Key = tuple[int, int]
RUN = "1700000000000000"


class Killed(Exception):
    """The driver was killed."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is, per occasion."""

    kill: float = 0.0
    lose: float = 0.0
    repeat: float = 0.0
    refuse: float = 0.0
    unknown: float = 0.0
    vanish: float = 0.0
    cancel: float = 0.0
    fail: float = 0.0


@dataclass(slots=True)
class Records:
    """What is stored, each thing created once."""

    journal: list[JSONObject] = field(default_factory=list)
    begun: set[Key] = field(default_factory=set)
    outcomes: dict[Key, Verdict] = field(default_factory=dict)
    closed: str | None = None

    def seal(self, key: Key, verdict: Verdict) -> Verdict:
        return self.outcomes.setdefault(key, verdict)


class World:
    """One schedule. ``play`` runs it to its end and checks everything on the way."""

    def __init__(self, seed: int, *, durable: bool, faults: Faults, made: Flow | None = None) -> None:
        self.rng = random.Random(seed)
        self.durable = durable
        self.faults = faults
        self.flow = made or self._random_flow()
        self.records = Records()
        self.policy = Policy(durable=durable, infrastructure_retries=10**6)
        self.names: dict[int, tuple[str, tuple[int, ...]]] = {}
        self.ids: dict[tuple[str, tuple[int, ...]], int] = {}
        self.waiting: list[Assignment] = []
        self.running: dict[Key, Assignment] = {}
        self.executions: dict[Key, int] = {}
        self.cancelled = False
        self.kills = 0
        self.turns = 0
        self.start_driver()

    def _random_flow(self) -> Flow:
        blocks = random_blocks(self.rng)
        plain = flow(blocks)
        steps: dict[str, dict[str, object]] = {}
        for step in plain.plan.steps:
            options: dict[str, object] = {"retries": self.rng.choice((0, 0, 1, 2))}
            options["retry_delay"] = self.rng.choice((0.0, 0.0, 5.0))
            options["catch"] = step.kind in ("linear", "join") and self.rng.random() < 0.2
            steps[step.name] = options
        return flow(blocks, workers=self.rng.choice((1, 2, 4, 16)), steps=steps)

    # -- the driver --------------------------------------------------------------------------------------------

    def start_driver(self) -> None:
        """A new driver: it knows the records and nothing else."""
        self.clock = 0.0
        self.inbox: list[Event] = []
        self.timers: list[tuple[float, int, TimerFired]] = []
        self.silent = 0
        self.timer_number = 0
        self.replaying = True
        if not self.durable:
            self.waiting, self.running = [], {}
        history = History.of(json.loads(json.dumps(self.records.journal)))
        self.machine = Machine(self.flow.plan, RUN, policy=self.policy, seed=7, history=history)
        try:
            self.feed(RunOpened())
            while self.inbox:
                self.feed(self.inbox.pop(self.rng.randrange(len(self.inbox))))
            self.replaying = False
            self.feed(DriverTook(history.epoch + 1))
        except Killed:
            self.restart()

    def restart(self) -> None:
        """The driver was killed: another follows, unless the run had ended, which attaching refuses."""
        if self.records.closed is None:
            self.kills += 1
            self.start_driver()

    def feed(self, event: Event) -> None:
        instructions = self.machine.handle(event, self.clock)
        if instructions and self.rng.random() < self.faults.kill:
            instructions = instructions[: self.rng.randrange(len(instructions) + 1)]
            for instruction in instructions:
                self.perform(instruction)
            raise Killed
        for instruction in instructions:
            self.perform(instruction)

    def tell(self, event: Event, *, safe: bool = False) -> None:
        """Puts an event on its way: it may be lost or come twice, and the order is open anyway."""
        if not safe and self.durable and self.rng.random() < self.faults.lose:
            return
        self.inbox.append(event)
        if not safe and self.rng.random() < self.faults.repeat:
            self.inbox.append(event)

    def perform(self, instruction: Instruction) -> None:
        match instruction:
            case Append(entry):
                assert self.records.closed is None
                self.records.journal.append(json.loads(json.dumps(entry)))
            case Submit():
                self.submit(instruction)
            case Find(_, members):
                for key in members:
                    self.find(key)
            case Probe(task, attempt):
                self.probe((task, attempt))
            case Seal():
                self.seal(instruction)
            case Cancel(task, attempt):
                self.cancel((task, attempt))
            case SetTimer(kind, task, attempt, at):
                assert at >= self.clock
                self.timer_number += 1
                heapq.heappush(self.timers, (at, self.timer_number, TimerFired(kind, task, attempt)))
            case Close(status):
                self.close(status)
            case _:
                pass

    def probe(self, key: Key) -> None:
        if key in self.records.outcomes:
            self.inbox.append(Sealed(*key, self.records.outcomes[key]))
        elif key in self.records.begun:
            self.inbox.append(Began(*key))
        elif self.replaying:
            self.inbox.append(Absent(attempt_handle(*key), 0, complete=True))

    def seal(self, order: Seal) -> None:
        verdict = Verdict(
            ok=False,
            failure_class=order.failure_class,
            cause=order.cause,
            text=order.text,
            takeover=order.takeover,
        )
        key = (order.task, order.attempt)
        self.inbox.append(Sealed(*key, self.records.seal(key, verdict)))

    def close(self, status: str) -> None:
        assert self.records.closed is None, "closed twice"
        assert not self.running, "closed while user code ran"
        self.records.closed = status

    # -- the platform ------------------------------------------------------------------------------------------

    def submit(self, order: Submit) -> None:
        assert len({one.step for one in order.assignments}) == 1
        for one in order.assignments:
            self.check_licence(one)
        if self.durable and self.rng.random() < self.faults.refuse:
            self.tell(SubmitRefused(order.batch, "throttled"), safe=True)
            return
        unknown = self.durable and self.rng.random() < self.faults.unknown
        if not unknown or self.rng.random() < 0.5:
            self.waiting.extend(order.assignments)
        if unknown:
            self.tell(SubmitUnknown(order.batch), safe=True)
        else:
            self.tell(SubmitAccepted(order.batch, f"job-{order.batch}"))

    def check_licence(self, one: Assignment) -> None:
        """The attempt before is sealed and failed, ids never move, and parents are what they should be."""
        assert self.records.journal, "submitted before anything was journalled"
        for attempt in range(one.attempt):
            assert not self.records.outcomes[one.task, attempt].ok
        name = (one.step, one.indices)
        assert self.names.setdefault(one.task, name) == name
        assert self.ids.setdefault(name, one.task) == one.task
        if one.parent is not None and one.parent != (0, 0):
            assert self.records.outcomes[one.parent].ok
        for task, attempt, _ in one.frames:
            assert self.records.outcomes[task, attempt].ok
        if one.inputs is not None:
            for _, task, attempt in self.machine.inputs(one.task):
                assert self.records.outcomes[task, attempt].ok

    def find(self, key: Key) -> None:
        known = key in self.running or any((one.task, one.attempt) == key for one in self.waiting)
        handle = attempt_handle(*key)
        if known:
            self.tell(Observed(handle, 0, "running" if key in self.running else "waiting"))
        else:
            self.tell(Absent(handle, 0, complete=not self.durable or self.rng.random() < 0.8), safe=True)

    def cancel(self, key: Key) -> None:
        if key in self.running and self.rng.random() < 0.3:
            self.finish(key)
        self.running.pop(key, None)
        self.waiting = [one for one in self.waiting if (one.task, one.attempt) != key]
        self.tell(CancelConfirmed(*key))

    def begin(self) -> None:
        one = self.waiting.pop(self.rng.randrange(len(self.waiting)))
        key = (one.task, one.attempt)
        if key in self.records.begun or key in self.records.outcomes:
            return
        self.records.begun.add(key)
        self.executions[key] = self.executions.get(key, 0) + 1
        self.running[key] = one
        self.tell(Began(*key))

    def finish(self, key: Key) -> None:
        one = self.running.pop(key)
        if self.rng.random() < self.faults.vanish:
            if self.durable:
                self.tell(Observed(attempt_handle(*key), 0, "failed", "host gone"))
            else:
                lost = Verdict(ok=False, failure_class="infrastructure", cause="lost", text="gone")
                self.tell(Sealed(*key, self.records.seal(key, lost)))
            return
        sealed = self.records.seal(key, self.result(one))
        self.tell(Sealed(*key, sealed))
        if self.durable and self.rng.random() < 0.3:
            self.tell(Observed(attempt_handle(*key), 0, "succeeded" if sealed.ok else "failed"))

    def result(self, one: Assignment) -> Verdict:
        step = self.flow.plan.step(one.step)
        good = Verdict(ok=True, targets=step.targets, width=self.flow.widths.get(step.name))
        if self.failures(one.step, one.indices) <= one.retry_count:
            return good
        if one.fallback or (one.last and step.catch and one.task % 2):
            return replace(good, caught=True)
        failure = self.rng.choice(("user", "timeout"))
        return Verdict(ok=False, failure_class=failure, cause="exception", text="no")  # type: ignore[arg-type]

    def failures(self, step: str, indices: tuple[int, ...]) -> int:
        """How often this task fails before it succeeds: a fact of the task, whatever happens around it."""
        draw = random.Random(f"{step}{indices}{self.flow.plan.max_workers}")
        return 0 if draw.random() >= self.faults.fail else draw.choice((1, 1, 2, 9))

    # -- the schedule ------------------------------------------------------------------------------------------

    def play(self) -> None:
        while self.records.closed is None:
            self.turns += 1
            assert self.turns < 20_000, "the run does not end"
            try:
                self.turn()
            except Killed:
                self.restart()
        self.check_end()

    def turn(self) -> None:
        if not self.cancelled and self.rng.random() < self.faults.cancel:
            self.cancelled = True
            self.feed(CancelAsked("cancelled"))
            return
        choices = ["inbox"] * (3 if self.inbox else 0) + ["begin"] * bool(self.waiting)
        choices += ["finish"] * bool(self.running) + ["timer"] * bool(self.timers and self.rng.random() < 0.1)
        match self.rng.choice(choices) if choices else "idle":
            case "inbox":
                self.feed(self.inbox.pop(self.rng.randrange(len(self.inbox))))
            case "begin":
                self.begin()
            case "finish":
                self.finish(self.rng.choice(list(self.running)))
            case "timer":
                self.fire()
            case _:
                self.idle()

    def fire(self) -> None:
        at, _, fired = heapq.heappop(self.timers)
        self.clock = max(self.clock, at)
        self.feed(fired)

    def idle(self) -> None:
        if self.timers:
            self.fire()
            return
        self.silent += 1
        assert self.silent < 50, "nothing happens any more"
        self.feed(ObservationLost())

    # -- the model ---------------------------------------------------------------------------------------------

    def check_end(self) -> None:
        records = self.records
        assert all(count == 1 for count in self.executions.values()), "user code of an attempt ran twice"
        assert records.begun <= set(records.outcomes), "an attempt that began has no outcome"
        by_task: dict[int, list[int]] = {}
        for task, attempt in sorted(records.outcomes):
            by_task.setdefault(task, []).append(attempt)
        for task, attempts in by_task.items():
            assert attempts == list(range(len(attempts)))
            assert not any(records.outcomes[task, attempt].ok for attempt in attempts[:-1])
            self.check_user_attempts(task, attempts)
        if records.closed == "ok":
            self.check_success(by_task)
        elif records.closed == "failed":
            self.check_failure()
        else:
            assert self.cancelled
        self.check_fold()

    def check_user_attempts(self, task: int, attempts: list[int]) -> None:
        """No user retry beyond those allowed, at most one fallback."""
        where = self.machine.where(task)
        assert where is not None
        step = self.flow.plan.step(where[0])
        verdicts = [self.records.outcomes[task, attempt] for attempt in attempts]
        user = [verdict for verdict in verdicts if verdict.failure_class in ("user", "timeout")]
        assert len(user) <= 1 + step.retries

    def check_success(self, by_task: dict[int, list[int]]) -> None:
        done: dict[str, int] = {}
        for task, attempts in by_task.items():
            assert self.records.outcomes[task, attempts[-1]].ok
            done[self.names[task][0]] = done.get(self.names[task][0], 0) + 1
        assert done == self.flow.tasks
        assert {step: counts["ok"] for step, counts in self.machine.counts().items()} == self.flow.tasks

    def check_failure(self) -> None:
        failure = self.machine.failure
        assert failure is not None
        name = self.names[failure.task]
        step = self.flow.plan.step(name[0])
        # The fallback of @catch is not retried, not even after a loss.
        assert not step.catch or failure.verdict.failure_class == "infrastructure"
        assert self.failures(*name) > step.retries, "the run failed though every task can succeed"

    def check_fold(self) -> None:
        """A fresh machine comes to the same state from the records alone."""
        before = self.machine
        counts, failure = before.counts(), before.failure
        self.faults = Faults()
        self.records.closed = None
        for entry in self.records.journal:
            entry.pop("closed", None)
        status = self.status_by_fold()
        assert self.machine.counts() == counts
        again = self.machine.failure
        assert (again and (again.task, again.attempt)) == (failure and (failure.task, failure.attempt))
        assert status is not None

    def status_by_fold(self) -> str | None:
        self.start_driver()
        return self.records.closed
