"""The same flows on every backend: equal values, lines, failures and environments."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.rows import ROWS, Row
from tests.conformance.runner import FLOWS, Attempt, Result, Runner, Target

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TARGETS: dict[str, frozenset[str]] = {
    "process": frozenset(),
    "docker": frozenset({"memory limit"}),
    "docker_with_containerd": frozenset({"memory limit", "cheap"}),
}
"""The backends by the names of their fixtures, with what they have of what rows need. One that is ``cheap`` runs
the cheap rows only: it differs little from another."""

CASES = [
    pytest.param(row, name, id=f"{row.flow}-{name}")
    for name, has in TARGETS.items()
    for row in ROWS
    if row.needs <= has and (row.cheap or "cheap" not in has)
]


def test_every_flow_is_in_the_table() -> None:
    assert {row.flow for row in ROWS} == {path.stem for path in FLOWS.glob("*.py")}


@pytest.mark.parametrize(("row", "name"), CASES)
def test_a_flow_comes_to_the_same_everywhere(
    row: Row, name: str, runner: Runner, request: pytest.FixtureRequest
) -> None:
    target: Target = request.getfixturevalue(name)
    result = runner.run(row, target)
    assert result.done.code == row.code, result.done.err + result.done.out[-3000:]
    assert "Warning" not in result.done.err
    assert Counter(one.place[0] for one in result.attempts if _is_last(one, result)) == row.tasks
    for place, values in row.values.items():
        found = result.last(place).values
        assert {key: found.get(key) for key in values} == values
    for stream, expected in (("stdout", row.out), ("stderr", row.err)):
        for place, lines in expected.items():
            assert result.last(place).lines[stream] == lines
    _check_endings(row, result)
    for one in result.attempts:
        _check_environment(one, target)
    if row.needs <= TARGETS["process"]:
        _check_same(result, runner.run(row, request.getfixturevalue("process")))


def _is_last(one: Attempt, result: Result) -> bool:
    return one is result.last(one.place)


def _check_endings(row: Row, result: Result) -> None:
    found = {
        (one.place, one.number): one.outcome.failure for one in result.attempts if one.outcome.failure is not None
    }
    assert set(found) == {(place, number) for place, number, _ in row.endings}
    for place, number, ending in row.endings:
        failure = found[place, number]
        assert failure is not None
        assert (failure.failure_class, failure.cause) == (ending.failure_class, ending.cause), failure
        assert (failure.signal, failure.exit_code) == (ending.signal, ending.exit_code), failure
        assert ending.text in failure.text
        if row.code:
            assert failure.text in result.done.err + result.done.out
            assert f"step '{place[0]}'" in result.done.err
            assert "hint:" in result.done.err


def _check_environment(one: Attempt, target: Target) -> None:
    told = one.outcome.environment
    assert told["env_id"].startswith("sha256:")
    assert told["tree_digest"].startswith("sha256:")
    assert one.outcome.execution
    if target.image_id is None:
        return
    assert told["vouched"] == "engine"
    assert told["image"]["config"].startswith("sha256:")
    assert told["image"]["id"] == target.image_id(told["image"]["reference"])
    assert "@sha256:" in told["image"]["base"]


def _check_same(one: Result, other: Result) -> None:
    """Both runs have the same tasks, and of each the same environment, values and lines."""
    assert [_identity(each) for each in one.attempts] == [_identity(each) for each in other.attempts]
    for ours, theirs in zip(one.attempts, other.attempts, strict=True):
        assert ours.values == theirs.values
        assert ours.lines["stdout"] == theirs.lines["stdout"]


def _identity(one: Attempt) -> tuple[object, ...]:
    told, transition = one.outcome.environment, one.outcome.transition
    after = transition and (transition.targets, transition.width)
    return one.place, one.number, one.outcome.status, told["env_id"], told["tree_digest"], told["lock_id"], after
