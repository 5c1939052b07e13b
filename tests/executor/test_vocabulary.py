from __future__ import annotations

from flowkiln.executor.outcome import Failure, Outcome, Transition
from flowkiln.executor.vocabulary import Verdict, attempt_handle


def test_a_verdict_holds_where_a_success_leads() -> None:
    outcome = Outcome(
        status="ok", transition=Transition(targets=("fit",), width=3, pack={"count": 3}), started=5, ended=9
    )
    assert Verdict.of(outcome) == Verdict(ok=True, targets=("fit",), width=3, started=5, ended=9)


def test_a_verdict_holds_why_an_attempt_failed() -> None:
    failure = Failure(failure_class="user", cause="exception", text="ZeroDivisionError: no")
    verdict = Verdict.of(Outcome(status="failed", failure=failure))
    assert not verdict.ok
    assert (verdict.failure_class, verdict.cause, verdict.text) == ("user", "exception", failure.text)


def test_a_caught_failure_is_a_success_that_keeps_its_cause() -> None:
    failure = Failure(failure_class="user", cause="exit", text="gone")
    verdict = Verdict.of(
        Outcome(status="ok", caught=True, failure=failure, transition=Transition(targets=("end",)))
    )
    assert (verdict.ok, verdict.caught, verdict.failure_class, verdict.cause) == (True, True, None, "exit")


def test_attempt_handles_differ_by_attempt() -> None:
    assert attempt_handle(3, 0) != attempt_handle(3, 1) != attempt_handle(31, 0)
