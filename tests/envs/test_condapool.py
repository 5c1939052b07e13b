from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs import condapool
from flowkiln.envs.condapool import Attempt, Candidate, Pool
from flowkiln.envs.condaquestion import CondaQuestion
from tests.envs.condalocks import AMD64
from tests.envs.condalocks import package as locked


def one(name: str, version: str = "1", *depends: str, channel: int = 0, **more: object) -> Candidate:
    build = str(more.pop("build", "0"))
    given_: dict[str, object] = {
        "name": name,
        "version": version,
        "build": build,
        "channel": channel,
        "subdir": "noarch",
        "filename": f"{name}-{version}-{build}.conda",
        "depends": depends,
        **more,
    }
    return Candidate(**given_)  # type: ignore[arg-type]


def pool(*candidates: Candidate) -> Pool:
    return condapool.admitted(candidates, {}, ())


def shown(attempt: Attempt) -> dict[str, list[str]]:
    return {name: [one.version for one in listed] for name, listed in attempt.pool.items()}


def question(*preferred: Candidate, **options: object) -> CondaQuestion:
    before = tuple(locked(one.name, one.version, one.build, sha256=one.sha256 or "0" * 64) for one in preferred)
    return CondaQuestion(
        name="fit",
        specs=(),
        platform=AMD64,
        python="3.11",
        virtual=(),
        preferred=before,
        **options,  # type: ignore[arg-type]
    )


def test_a_name_comes_from_the_first_channel_that_has_it_or_from_the_one_that_is_named() -> None:
    found = [one("a", "1", channel=0), one("a", "2", channel=1), one("b", "3", channel=1), one("b", "4", channel=2)]
    chosen = condapool.admitted(found, {"b": 2}, ())
    assert {name: [x.version for x in listed] for name, listed in chosen.items()} == {"a": ["1"], "b": ["4"]}
    hidden = condapool.admitted([one("a", "1", recent=True), one("a", "2", channel=1)], {}, ())
    assert hidden == {"a": []}


def test_odd_specs_are_met_beforehand_and_free_threaded_pythons_do_not_exist() -> None:
    found = [one("a", "1", fits=False), one("a", "2"), one("b", "1", fits=False)]
    assert {name: len(listed) for name, listed in condapool.admitted(found, {}, {"a"}).items()} == {"a": 1, "b": 1}
    pythons = pool(
        one("python", build="0_cp313t"), one("python", build="0_cp313"), one("python-freethreading"), one("t")
    )
    assert {name: [x.build for x in listed] for name, listed in pythons.items()} == {
        "python": ["0_cp313"],
        "python-freethreading": [],
        "t": ["0"],
    }


def test_without_an_earlier_lock_there_is_one_attempt_with_everything() -> None:
    there = pool(one("a", "1"), one("a", "2"))
    (attempt,) = condapool.attempts(there, question(), {"a"})
    assert (shown(attempt), attempt.update) == ({"a": ["1", "2"]}, ())


def test_what_is_kept_gives_way_step_by_step() -> None:
    kept = [one("a", "1", "b"), one("b", "1"), one("c", "1")]
    there = pool(*kept, one("a", "2", "b"), one("b", "2"), one("c", "2"), one("new", "1", "b"))
    attempts = condapool.attempts(there, question(*kept), {"a", "c", "new"})
    assert [shown(attempt) for attempt in attempts] == [
        {"a": ["1"], "b": ["1"], "c": ["1"], "new": ["1"]},
        {"a": ["1"], "b": ["1", "2"], "c": ["1"], "new": ["1"]},
        {"a": ["1", "2"], "b": ["1", "2"], "c": ["1", "2"], "new": ["1"]},
    ]


def test_named_packages_are_moved_in_what_is_installed() -> None:
    kept = [one("a", "1", "b"), one("b", "1")]
    there = pool(*kept, one("b", "2"))
    first, *_ = condapool.attempts(there, question(*kept, upgrade=frozenset({"b"})), {"a"})
    assert (first.update, [x.name for x in first.installed]) == (("b",), ["a", "b"])
    more = [*kept, one("c", "1", "b"), one("d", "1")]
    wider = pool(*more, one("b", "2"), one("a", "2", "b"), one("d", "2"))
    _, second, third = condapool.attempts(wider, question(*more, upgrade=frozenset({"a"})), {"a", "c", "d"})
    assert shown(second) == {"a": ["1", "2"], "b": ["1", "2"], "c": ["1"], "d": ["1"]}
    assert shown(third)["d"] == ["1", "2"]
    every = condapool.attempts(there, question(*kept, upgrade=True), {"a"})
    assert [(attempt.update, shown(attempt)) for attempt in every] == [((), {"a": ["1"], "b": ["1", "2"]})]


@pytest.mark.parametrize(
    "before",
    [
        [one("a", "1"), one("gone", "1")],  # the channel has no such package any more
        [one("a", "1", sha256="f" * 64), one("b", "1")],  # nor these bytes
        [one("b", "1")],  # a was not in it
    ],
)
def test_what_is_not_as_it_was_cannot_be_moved_in_place(before: list[Candidate]) -> None:
    there = pool(one("a", "1", "b", sha256="0" * 64), one("b", "1"), one("b", "2"))
    attempts = condapool.attempts(there, question(*before, upgrade=frozenset({"b"})), {"a"})
    assert [attempt.update for attempt in attempts if attempt.update] == []


def test_versions_of_the_other_platform_lead_where_they_are_there() -> None:
    there = pool(one("a", "1"), one("a", "2"), one("b", "1"), one("b", "2"))
    attempts = condapool.attempts(there, question(versions={"a": "1", "b": "1", "c": "1"}), {"a"})
    assert [shown(attempt) for attempt in attempts] == [
        {"a": ["1"], "b": ["1"]},
        {"a": ["1"], "b": ["1", "2"]},
        {"a": ["1", "2"], "b": ["1", "2"]},
    ]
    assert len(condapool.attempts(there, question(versions={"a": "9"}), {"a"})) == 1


NAMES = st.sampled_from("abcdef")
POOLS = st.lists(
    st.tuples(NAMES, st.sampled_from("123"), st.lists(NAMES, max_size=3)),
    max_size=12,
    unique_by=lambda row: row[:2],
)


@given(POOLS, st.sets(NAMES, min_size=1), st.dictionaries(NAMES, st.sampled_from("123")))
def test_the_last_attempt_may_choose_anything_and_none_is_made_twice(
    found: list[tuple[str, str, list[str]]], roots: set[str], versions: dict[str, str]
) -> None:
    there = pool(*(one(name, version, *depends) for name, version, depends in found))
    before = [listed[0] for listed in there.values()]
    attempts = condapool.attempts(there, question(*before, versions=versions), roots)
    assert attempts[-1].pool == there
    seen = [frozenset(x.place for listed in attempt.pool.values() for x in listed) for attempt in attempts]
    assert len(set(seen)) == len(seen)
    for attempt in attempts:  # no attempt takes the last candidate of a name away
        assert all(attempt.pool[name] for name in there)


def test_what_is_left_over_is_not_needed() -> None:
    chosen = {x.name: x for x in (one("a", "1", "b", "__glibc"), one("b", "1", "c >=1"), one("c"), one("left"))}
    assert [x.name for x in condapool.needed(chosen, {"a"})] == ["a", "b", "c"]


def test_an_answer_is_held_against_requests_dependencies_and_constraints() -> None:
    def matches(spec: str, record: object) -> bool:
        return spec.partition(" ")[2] in ("", record)

    chosen = [
        one("a", "1", "b 2", "c", "__glibc 2.28", "__cuda", record="1"),
        one("b", "1", record="1", entry={"constrains": ["a 2", "d 5"]}),
    ]
    assert condapool.unmet(chosen, ["a 1", "e"], {"__glibc": "2.28"}, matches) == [
        "asked for was e",
        "a 1 needs b 2",
        "a 1 needs c",
        "a 1 needs __cuda",
        "b 1 excludes all but a 2",
    ]
    assert condapool.unmet(chosen[1:], ["b 1"], {}, matches) == []
