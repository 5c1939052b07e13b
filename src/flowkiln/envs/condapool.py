"""The packages that a solver may choose from, as values, and which of them each attempt is given. Pure.

What another solver would do in a way of its own is decided here before it is asked: channel priority, the cut-off,
ordinary Pythons, what is kept of earlier locks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.envs import condaspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.condaquestion import CondaQuestion

_FREE_THREADED = re.compile(r".*_cp\d+t")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """One package that a channel has.

    ``channel`` counts the channels asked, best first; ``entry`` is what repodata say of it; ``recent`` means after
    the cut-off, and ``fits`` that it is what the request asks for by its name. ``record`` is the channel reader's
    own object.
    """

    name: str
    version: str
    build: str
    channel: int
    subdir: str
    filename: str
    depends: tuple[str, ...]
    sha256: str | None = None
    recent: bool = False
    fits: bool = True
    entry: JSONObject = field(default_factory=dict, repr=False)
    record: Any = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """Where it lies among the channels: ``0/linux-64/NAME-VERSION-BUILD.conda``."""
        return f"{self.channel}/{self.subdir}/{self.filename}"

    @property
    def needs(self) -> Iterator[str]:
        """The names of the packages that it depends on, those of the platform left out."""
        for spec in self.depends:
            if not spec.startswith("__"):
                yield condaspec.name_of(spec)


Pool = dict[str, list[Candidate]]
"""Candidates by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of a solver: what it may choose from, and the packages that it moves in what is ``installed``.

    Without ``update`` it chooses all anew.
    """

    pool: Mapping[str, list[Candidate]]
    update: tuple[str, ...] = ()
    installed: tuple[Candidate, ...] = ()


def admitted(found: Iterable[Candidate], directed: Mapping[str, int], odd: Collection[str]) -> Pool:
    """What may be chosen: of each name what the first channel has, or the one that the request names for it.

    A name counts as a channel's also where all that it has is too recent. Of the names in ``odd``, whose specs
    cannot be told to every solver, only what fits.
    """
    by_name: Pool = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    pool: Pool = {}
    for name, listed in by_name.items():
        channel = directed.get(name, min(one.channel for one in listed))
        usable = [one for one in listed if one.channel == channel and not one.recent and not _free_threaded(one)]
        pool[name] = [one for one in usable if one.fits or name not in odd]
    return pool


def _free_threaded(one: Candidate) -> bool:
    if one.name == "python":
        return _FREE_THREADED.fullmatch(one.build) is not None
    return one.name == "python-freethreading"


def attempts(pool: Pool, question: CondaQuestion, roots: Collection[str]) -> list[Attempt]:
    """What a solver is asked, one after the other until it finds an answer, and nothing twice.

    The other platform's versions are taken where they can be together, else those of what is asked for, else none;
    for each of these what the earlier lock has is kept: all, then what the change cannot reach, then nothing.
    """
    found: dict[frozenset[int], Attempt] = {}
    there = {name: version for name, version in question.versions.items() if _versions(pool, name, version)}
    before, kept = _before(pool, question)
    for versions in (there, {name: there[name] for name in there if name in roots}, {}):
        narrow = {name: _versions(pool, name, versions.get(name)) for name in pool}
        for attempt in _keeping(narrow, question, roots, before, kept):
            key = frozenset(id(one) for listed in attempt.pool.values() for one in listed)
            found.setdefault(key | {hash(attempt.update)}, attempt)
    return list(found.values())


def _versions(pool: Pool, name: str, version: str | None) -> list[Candidate]:
    return [one for one in pool.get(name, ()) if version in (None, one.version)]


def _before(pool: Pool, question: CondaQuestion) -> tuple[dict[str, Candidate], dict[str, Candidate]]:
    """What the channels still have of the earlier lock, and what of that is to be kept."""
    if question.upgrade is True:
        return {}, {}
    before = {one.filename: one.sha256 for one in question.preferred}

    def stands(one: Candidate) -> bool:
        # one without a sha256 is known by its name
        return one.fits and one.filename in before and one.sha256 in (None, before[one.filename])

    found = {one.name: one for listed in pool.values() for one in listed if stands(one)}
    free = question.upgrade or frozenset()
    return found, {name: one for name, one in found.items() if name not in free}


def _keeping(
    pool: Pool,
    question: CondaQuestion,
    roots: Collection[str],
    before: Mapping[str, Candidate],
    kept: Mapping[str, Candidate],
) -> Iterator[Attempt]:
    """The attempts with the candidates of ``pool``, the most faithful to the earlier lock first."""
    there = {name: one for name, one in kept.items() if one in pool[name]}
    whole = {one.name for one in question.preferred} == set(before) and set(roots) <= set(before)
    if question.upgrade and whole and set(there) == set(kept):
        yield Attempt(
            pool=pool,
            update=tuple(sorted(set(before) - set(kept))),
            installed=tuple(before[name] for name in sorted(before)),
        )
    free = question.upgrade if isinstance(question.upgrade, frozenset) else frozenset()
    touched = reachable(pool, {name for name in roots if name not in there} | free)
    untouched = {name: one for name, one in there.items() if name not in touched}
    # With all others kept, what is to be moved would stay where it is.
    for keep in (untouched, {}) if free else (there, untouched, {}):
        yield Attempt(pool={name: [keep[name]] if name in keep else pool[name] for name in pool})


def reachable(pool: Mapping[str, Sequence[Candidate]], names: Iterable[str]) -> set[str]:
    """``names`` and all that their candidates need, over any number of steps."""
    found: set[str] = set()
    coming = list(names)
    while coming:
        name = coming.pop()
        if name not in found:
            found.add(name)
            coming += [need for one in pool.get(name, ()) for need in one.needs]
    return found


def needed(chosen: Mapping[str, Candidate], roots: Iterable[str]) -> list[Candidate]:
    """What of ``chosen`` the request needs, by name: what a solver left over of earlier packages is not in it."""
    names = reachable({name: [one] for name, one in chosen.items()}, roots)
    return [chosen[name] for name in sorted(names) if name in chosen]


def unmet(
    chosen: Sequence[Candidate],
    asked: Iterable[str],
    virtual: Mapping[str, Any],
    matches: Callable[[str, Any], bool],
) -> list[str]:
    """What the request and the packages of ``chosen`` need and do not have; empty for an answer that holds.

    ``virtual`` are the platform's packages by name; ``matches`` tells whether a match spec is true of a record.
    """
    there = {one.name: one.record for one in chosen} | dict(virtual)

    def wrong(spec: str, *, required: bool) -> bool:
        record = there.get(condaspec.name_of(spec))
        return required if record is None else not matches(spec, record)

    found = [f"asked for was {spec}" for spec in asked if wrong(spec, required=True)]
    for one in chosen:
        who, limits = f"{one.name} {one.version}", one.entry.get("constrains", ())
        found += [f"{who} needs {spec}" for spec in one.depends if wrong(spec, required=True)]
        found += [f"{who} excludes all but {spec}" for spec in limits if wrong(spec, required=False)]
    return found
