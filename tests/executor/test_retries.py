from __future__ import annotations

import itertools
from typing import get_args

import pytest

from flowkiln.executor.outcome import FailureClass
from flowkiln.executor.plan import StepPlan
from flowkiln.executor.retries import Owner, Policy, Tries, owner_of, pause
from flowkiln.executor.vocabulary import Verdict
from tests.executor.plans import PREFIX

POLICY = Policy(infrastructure_retries=2)


def step(retries: int, *, catch: bool) -> StepPlan:
    return StepPlan(name="a", kind="linear", prefix=PREFIX, retries=retries, catch=catch)


def failed(kind: FailureClass, *, takeover: bool = False) -> Verdict:
    return Verdict(ok=False, failure_class=kind, cause="exception", takeover=takeover)


@pytest.mark.parametrize(
    ("kind", "tries", "catch", "owner"),
    [
        ("user", Tries(), False, "user"),
        ("timeout", Tries(), False, "user"),
        ("user", Tries(user=1), False, None),
        ("user", Tries(user=1), True, "catch"),
        ("timeout", Tries(user=1), True, "catch"),
        ("user", Tries(user=1, fallback=True), True, None),
        ("infrastructure", Tries(user=1), False, "system"),
        ("infrastructure", Tries(system=2), False, None),
        ("infrastructure", Tries(system=2), True, None),
        ("environment", Tries(), True, None),
        ("cancelled", Tries(), True, None),
    ],
)
def test_j02_the_class_decides_whose_retry_it_is(
    kind: FailureClass, tries: Tries, catch: bool, owner: Owner | None
) -> None:
    assert owner_of(step(1, catch=catch), tries, failed(kind), POLICY) == owner


def test_an_attempt_that_went_away_with_its_driver_is_repeated_for_free() -> None:
    for tries in (Tries(system=9), Tries(fallback=True)):
        assert owner_of(step(0, catch=False), tries, failed("infrastructure", takeover=True), POLICY) == "takeover"


@pytest.mark.parametrize("sequence", list(itertools.product(get_args(FailureClass), repeat=4)))
def test_every_sequence_of_failures_ends(sequence: tuple[FailureClass, ...]) -> None:
    tries = Tries()
    for kind in sequence + ("infrastructure",) * 4 + ("user",) * 3:
        owner = owner_of(step(1, catch=True), tries, failed(kind), POLICY)
        if owner is None:
            return
        tries.advance(owner)
    pytest.fail("retried for ever")


def test_pauses_double_up_to_a_cap_with_jitter_from_the_seed() -> None:
    pauses = [pause(POLICY, 1, 5, times) for times in range(1, 12)]
    for times, seconds in enumerate(pauses, 1):
        full = min(2.0 ** (times - 1), 60.0)
        assert full / 2 <= seconds <= full
    assert pauses == [pause(POLICY, 1, 5, times) for times in range(1, 12)]
    assert pauses != [pause(POLICY, 2, 5, times) for times in range(1, 12)]
