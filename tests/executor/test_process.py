"""The process backend with real processes: what a step may do to itself, and what becomes of its attempt."""

from __future__ import annotations

from collections.abc import Callable

from flowkiln.executor.vocabulary import Began, Sealed

from .bench import RUN, Bench

Make = Callable[..., Bench]


def test_an_attempt_runs_and_is_sealed(bench: Make) -> None:
    run = bench("print('hello'); return assignment.task * 10")
    outcome = run.run_one()
    assert outcome.ok
    assert outcome.artifacts == {"value": {"v": 10}}
    assert run.log(outcome) == ["hello"]
    assert [type(event) for event in run.events] == [Began, Sealed]
    assert outcome.environment["isolation"] == "fork", outcome.environment
    assert sorted(run.store.records.names(f"r/{RUN}/t/1/0")) == ["begin", "outcome"]


def test_more_workers_than_fit_the_channel_at_once(bench: Make) -> None:
    run = bench("return assignment.task", max_workers=200)
    outcomes = run.run(300)
    assert [outcome.artifacts["value"]["v"] for outcome in outcomes] == list(range(1, 301))
    assert all(len(run.store.records.names(f"r/{RUN}/t/{task}/0")) == 2 for task in range(1, 301))
