from __future__ import annotations

import tracemalloc
from collections import deque
from typing import TYPE_CHECKING

import pytest

from flowkiln.executor.history import History
from flowkiln.executor.machine import Machine
from flowkiln.executor.retries import Policy
from flowkiln.executor.vocabulary import (
    Absent,
    Append,
    Began,
    Cancel,
    CancelAsked,
    Close,
    DriverTook,
    ObservationLost,
    Observed,
    Probe,
    Report,
    RunOpened,
    Seal,
    Sealed,
    SetTimer,
    Submit,
    SubmitAccepted,
    SubmitRefused,
    TimerFired,
    Verdict,
    attempt_handle,
)
from tests.executor.plans import Foreach, Line, Split, flow

if TYPE_CHECKING:
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.outcome import Cause, FailureClass
    from flowkiln.executor.vocabulary import Event, Instruction
    from tests.executor.plans import Flow

RUN = "1700000000000000"


class Play:
    """A machine with a store that is empty at first; submissions queue up until the test seals them."""

    def __init__(self, made: Flow, *, policy: Policy | None = None, history: History | None = None) -> None:
        self.made = made
        self.machine = Machine(made.plan, RUN, policy=policy, history=history)
        self.open: deque[Assignment] = deque()
        self.said: list[Instruction] = []
        self.now = 0.0
        for probe in self.feed(RunOpened()):
            assert isinstance(probe, Probe)
            self.feed(Absent(attempt_handle(probe.task, probe.attempt), 0, complete=True))
        self.feed(DriverTook(0))

    def feed(self, event: Event) -> list[Instruction]:
        instructions = self.machine.handle(event, self.now)
        for instruction in instructions:
            if isinstance(instruction, Submit):
                self.open.extend(instruction.assignments)
        self.said += instructions
        return instructions

    def good(self, one: Assignment) -> list[Instruction]:
        step = self.made.plan.step(one.step)
        width = self.made.widths.get(one.step)
        return self.feed(Sealed(one.task, one.attempt, Verdict(ok=True, targets=step.targets, width=width)))

    def bad(self, one: Assignment, kind: FailureClass = "user", cause: Cause = "exception") -> list[Instruction]:
        return self.feed(
            Sealed(one.task, one.attempt, Verdict(ok=False, failure_class=kind, cause=cause, text="no"))
        )

    def rest(self) -> None:
        while self.open:
            self.good(self.open.popleft())

    def kinds(self, kind: type) -> list[Instruction]:
        return [instruction for instruction in self.said if isinstance(instruction, kind)]


def test_ids_are_blocks_per_foreach_and_say_where_a_task_is() -> None:
    play = Play(flow([Foreach(3, [Line(), Foreach(2, [Line()]), Line()])]))
    play.rest()
    names = {row.task: (row.step, row.indices) for row in play.machine.rows()}
    assert names[1] == ("start", ())
    first = min(task for task, (step, _) in names.items() if step == "s02")
    assert [names[first + index] for index in range(3)] == [("s02", (0,)), ("s02", (1,)), ("s02", (2,))]
    assert sorted(indices for step, indices in names.values() if step == "s04") == [
        (outer, inner) for outer in range(3) for inner in range(2)
    ]
    assert play.kinds(Close) == [Close("ok")]


def test_assignments_say_what_a_task_inherits() -> None:
    play = Play(flow([Foreach(2, [Line(), Foreach(2, [Line()])])]))
    seen: dict[tuple[str, tuple[int, ...]], Assignment] = {}
    while play.open:
        one = play.open.popleft()
        seen[one.step, one.indices] = one
        play.good(one)
    fan, body, inner = seen["s01", ()], seen["s02", (1,)], seen["s04", (1, 0)]
    assert seen["start", ()].parent == (0, 0)
    assert body.parent == (fan.task, 0)
    assert body.frames == ((fan.task, 0, 2),)
    opener = seen["s03", (1,)]
    assert inner.frames == ((fan.task, 0, 2), (opener.task, 0, 2))
    join = seen["s05", (1,)]
    assert join.parent is None
    assert join.inputs == f"r/{RUN}/inputs/{join.task}"
    assert list(play.machine.inputs(join.task)) == [("s04", seen["s04", (1, n)].task, 0) for n in range(2)]
    assert seen["end", ()].parent == (seen["s06", ()].task, 0)


def test_inputs_of_a_static_join_come_in_branch_order() -> None:
    play = Play(flow([Split([[Line(), Line()], [Line()], [Foreach(2, [Line()])]])]))
    while play.open:
        one = play.open.pop()
        if one.inputs is not None and one.step == "s08":
            assert [step for step, _, _ in play.machine.inputs(one.task)] == ["s03", "s04", "s07"]
            break
        play.good(one)
    else:
        pytest.fail("no join was submitted")


def test_workers_bound_what_is_in_flight_and_deep_steps_go_first() -> None:
    play = Play(flow([Foreach(10, [Line(), Line()])], workers=3))
    play.good(play.open.popleft())
    play.good(play.open.popleft())
    assert [(one.step, one.indices) for one in play.open] == [("s02", (0,)), ("s02", (1,)), ("s02", (2,))]
    play.good(play.open[1])
    assert [(one.step, one.indices) for one in play.open][3:] == [("s03", (1,))]
    assert play.machine.in_flight == 3


def test_branches_of_equal_depth_take_turns() -> None:
    play = Play(flow([Split([[Foreach(4, [Line()])], [Foreach(4, [Line()])]])], workers=2))
    order = []
    while play.open:
        one = play.open.popleft()
        order.append(one.step)
        play.good(one)
    body = [step for step in order if step in ("s03", "s06")]
    assert body == ["s03", "s03", "s06", "s03", "s06", "s03", "s06", "s06"]


def test_user_retries_count_and_catch_comes_after_the_last() -> None:
    play = Play(flow([Line()], steps={"s01": {"retries": 2, "catch": True}}))
    play.good(play.open.popleft())
    seen = []
    for _ in range(4):
        one = play.open.popleft()
        seen.append((one.attempt, one.retry_count, one.last, one.fallback))
        play.bad(one, "timeout" if one.attempt == 1 else "user")
    assert seen == [(0, 0, False, False), (1, 1, False, False), (2, 2, True, False), (3, 2, True, True)]
    assert play.kinds(Close) == [Close("failed")]


def test_j02_infrastructure_has_its_own_cap_and_raises_no_retry_count() -> None:
    play = Play(flow([]), policy=Policy(infrastructure_retries=2))
    seen = []
    while play.open:
        one = play.open.popleft()
        seen.append((one.attempt, one.retry_count))
        play.bad(one, "infrastructure", "lost")
    assert seen == [(0, 0), (1, 0), (2, 0)]
    assert play.kinds(Close) == [Close("failed")]


@pytest.mark.parametrize("kind", ["environment", "cancelled"])
def test_environment_and_cancelled_are_never_retried(kind: FailureClass) -> None:
    play = Play(flow([], steps={"start": {"retries": 3, "catch": True}}))
    play.bad(play.open.popleft(), kind)
    assert not play.open
    assert play.kinds(Close) == [Close("failed")]


def test_retry_delay_waits_for_a_timer() -> None:
    play = Play(flow([], steps={"start": {"retries": 1, "retry_delay": 30.0}}))
    play.bad(play.open.popleft())
    assert not play.open
    timer = play.kinds(SetTimer)[-1]
    assert timer == SetTimer("retry", 1, 1, 30.0)
    play.feed(TimerFired("retry", 1, 1))
    assert play.open[0].attempt == 1


def test_a_failure_cancels_what_runs_and_starts_nothing() -> None:
    play = Play(flow([Foreach(5, [Line()])], workers=3))
    play.good(play.open.popleft())
    play.good(play.open.popleft())
    first, second, third = play.open
    play.open.clear()
    play.bad(second)
    assert [(one.task, one.attempt) for one in play.kinds(Cancel) if isinstance(one, Cancel)] == [
        (first.task, 0),
        (third.task, 0),
    ]
    play.good(first)
    play.bad(third, "cancelled", "cancelled")
    assert not play.open
    assert play.kinds(Close) == [Close("failed")]
    assert play.machine.failure is not None
    assert play.machine.failure.task == second.task
    assert play.machine.counts()["s02"] == {"ready": 2, "ok": 1, "failed": 1, "cancelled": 1}


@pytest.mark.parametrize("width", [None, 0, 11])
def test_a_foreach_that_is_empty_or_too_wide_fails_its_run(width: int | None) -> None:
    play = Play(flow([Foreach(2, [Line()])], splits=10))
    play.good(play.open.popleft())
    fan = play.open.popleft()
    play.feed(Sealed(fan.task, 0, Verdict(ok=True, targets=("s02",), width=width)))
    assert play.kinds(Close) == [Close("failed")]
    assert play.machine.failure is not None
    assert play.machine.failure.verdict.cause == "foreach-width"


def test_a_transition_that_is_not_in_the_graph_fails_the_run() -> None:
    play = Play(flow([Line()]))
    play.feed(Sealed(1, 0, Verdict(ok=True, targets=("elsewhere",))))
    assert play.kinds(Close) == [Close("failed")]
    assert play.machine.failure is not None
    assert "elsewhere" in play.machine.failure.verdict.text


def test_late_and_repeated_seals_change_nothing() -> None:
    play = Play(flow([Line()], steps={"start": {"retries": 1}}))
    first = play.open.popleft()
    play.bad(first)
    assert play.bad(first) == []
    assert play.good(first) == []
    second = play.open.popleft()
    play.good(second)
    assert play.good(second) == []
    assert play.bad(second) == []


def test_an_observed_success_without_outcome_is_read_again_then_sealed_as_lost() -> None:
    play = Play(flow([]), policy=Policy(grace=10.0))
    one = play.open.popleft()
    said = play.feed(Observed(attempt_handle(one.task, 0), 0, "succeeded", "exit 0"))
    assert said == [Probe(1, 0), SetTimer("grace", 1, 0, 10.0)]
    assert play.feed(Observed(attempt_handle(one.task, 0), 0, "succeeded")) == []
    said = play.feed(TimerFired("grace", 1, 0))
    assert said == [Seal(1, 0, "infrastructure", "lost", "exit 0")]
    play.good(one)
    assert play.kinds(Report)


def test_an_outcome_within_the_grace_period_holds() -> None:
    play = Play(flow([Line()]))
    one = play.open.popleft()
    play.feed(Observed(attempt_handle(1, 0), 0, "failed"))
    play.good(one)
    assert play.feed(TimerFired("grace", 1, 0)) == []


def test_refused_submissions_are_repeated_with_growing_pauses_then_sealed() -> None:
    play = Play(flow([]), policy=Policy(refusals=3, infrastructure_retries=0))
    waits = []
    batch = 1
    for _ in range(3):
        play.open.clear()
        timer = play.feed(SubmitRefused(batch, "throttled"))[-1]
        assert isinstance(timer, SetTimer)
        waits.append(timer.at)
        play.feed(TimerFired("resubmit", 1, 0))
        batch += 1
        assert play.open[0].attempt == 0
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2 <= waits[2] <= 4
    assert play.feed(SubmitRefused(batch, "throttled")) == [
        Seal(1, 0, "infrastructure", "not-started", "throttled")
    ]


def test_a_final_refusal_is_not_repeated() -> None:
    play = Play(flow([]))
    assert play.feed(SubmitRefused(1, "no such image", final=True)) == [
        Seal(1, 0, "environment", "not-started", "no such image")
    ]


def test_lost_sight_reads_every_open_attempt_again() -> None:
    play = Play(flow([Foreach(3, [Line()])]))
    play.good(play.open.popleft())
    play.good(play.open.popleft())
    assert play.feed(ObservationLost()) == [Probe(one.task, 0) for one in play.open]


def test_batches_are_known_by_handle_and_index() -> None:
    play = Play(flow([Foreach(3, [Line()])]), policy=Policy(durable=True))
    play.good(play.open.popleft())
    play.good(play.open.popleft())
    submit = play.kinds(Submit)[-1]
    assert isinstance(submit, Submit)
    play.feed(SubmitAccepted(submit.batch, "job-x"))
    said = play.feed(Observed("job-x", 2, "failed", "host gone"))
    assert said[0] == Probe(submit.assignments[2].task, 0)
    assert play.feed(Observed("job-y", 0, "failed")) == []
    assert play.feed(Observed("job-x", 9, "failed")) == []


def test_a_cancellation_that_is_not_confirmed_is_asked_for_again_then_given_up() -> None:
    play = Play(flow([]))
    play.feed(Began(1, 0))
    assert play.feed(CancelAsked("cancelled"))[1:] == [Cancel(1, 0), SetTimer("kill", 1, 0, 15.0)]
    for _ in range(2):
        assert play.feed(TimerFired("kill", 1, 0))[:2] == [Probe(1, 0), Cancel(1, 0)]
    assert play.feed(TimerFired("kill", 1, 0)) == [Seal(1, 0, "cancelled", "cancelled", "cancelled")]
    play.bad(play.open[0], "cancelled", "cancelled")
    assert play.kinds(Close) == [Close("cancelled")]


def test_decisions_are_appended_before_anything_else() -> None:
    play = Play(flow([Foreach(3, [Line()])]), policy=Policy(durable=True))
    play.good(play.open.popleft())
    said = play.good(play.open.popleft())
    assert isinstance(said[0], Append)
    assert said[0].entry["blocks"] == [[2, 0, 3, 5, 3]]
    assert [len(members) for _, members in said[0].entry["submitted"]] == [3]
    assert sum(isinstance(one, Append) for one in said) == 1


def wide(width: int) -> tuple[int, int]:
    """Peak memory in bytes of a foreach that wide, and the number of seals it was measured over."""
    made = flow([Foreach(width, [Line()])], workers=8)
    tracemalloc.start()
    play = Play(made)
    tracemalloc.reset_peak()
    base = tracemalloc.get_traced_memory()[0]
    calls = 0
    while play.open and calls < 20_000:
        play.good(play.open.popleft())
        play.said.clear()
        calls += 1
    peak = tracemalloc.get_traced_memory()[1] - base
    tracemalloc.stop()
    return peak, calls


def test_a_foreach_of_100000_costs_a_few_bytes_per_task() -> None:
    peak, calls = wide(100_000)
    assert calls == 20_000
    assert peak < 1_000_000


def test_the_work_per_event_does_not_depend_on_the_width() -> None:
    import sys  # noqa: PLC0415  only this test traces

    def steps(width: int) -> float:
        made = flow([Foreach(width, [Line(), Line()])], workers=8)
        play = Play(made)
        count = 0

        def trace(frame: object, what: str, more: object) -> object:
            nonlocal count
            count += 1
            return trace

        events = 0
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            while play.open and events < 500:
                play.good(play.open.popleft())
                events += 1
        finally:
            sys.settrace(None)
        return count / events

    assert steps(100_000) < steps(1_000) * 1.05


def test_a_foreach_of_100000_runs_to_its_end_with_a_constant_number_of_instructions_each() -> None:
    play = Play(flow([Foreach(100_000, [Line()])], workers=8))
    said = 0
    while play.open:
        play.good(play.open.popleft())
        said += len(play.said)
        play.said.clear()
    assert play.machine.snapshot()["closed"]
    assert play.machine.counts()["s02"] == {"ok": 100_000}
    assert said < 2 * 100_000 + 50


def test_a_task_is_reported_as_started_once() -> None:
    play = Play(flow([]))
    assert play.feed(Began(1, 0)) == [Report("task-started", 1, 0, {})]
    assert play.feed(Began(1, 0)) == []
