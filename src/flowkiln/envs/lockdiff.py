"""Questions to locks: what differs between two, and why a distribution is in one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowkiln.envs import condalock
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln._base.json import JSONObject
    from flowkiln._base.platforms import Platform
    from flowkiln.envs.lock import EnvLock, Locked, PlatformLock

Kind = Literal["added", "removed", "changed", "rebuilt"]
Side = Literal["conda", "pypi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One package that differs on some platforms. ``rebuilt``: the same version, another artefact."""

    name: str
    kind: Kind
    before: str | None
    after: str | None
    platforms: tuple[Platform, ...]
    side: Side = "pypi"

    def to_json(self) -> JSONObject:
        """The change as JSON."""
        return {
            "name": self.name,
            "from": self.side,
            "kind": self.kind,
            "before": self.before,
            "after": self.after,
            "platforms": [str(platform) for platform in self.platforms],
        }

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~", "rebuilt": "="}[self.kind]
        versions = " -> ".join(version for version in (self.before, self.after) if version)
        if self.kind == "rebuilt":
            versions = f"{self.after} (another file)"
        name = f"{self.name} (conda)" if self.side == "conda" else self.name
        return f"{sign} {name} {versions} ({', '.join(map(str, self.platforms))})"


def diff(before: EnvLock | None, after: EnvLock | None) -> tuple[Change, ...]:
    """What differs between two locks, by name; equal changes on several platforms are one.

    A lock that is None has no packages. What moves from conda to wheels is removed there and added here.
    """
    platforms: dict[_Difference, list[Platform]] = {}
    mine, yours = _parts(before), _parts(after)
    for platform in sorted(mine.keys() | yours.keys()):
        for change in _part_changes(mine.get(platform), yours.get(platform)):
            platforms.setdefault(change, []).append(platform)
    changes = sorted(platforms.items(), key=lambda item: (item[0][:3], item[1]))
    return tuple(
        Change(name=name, side=side, kind=kind, before=old, after=new, platforms=tuple(on))
        for (name, side, kind, old, new), on in changes
    )


def _parts(lock: EnvLock | None) -> dict[Platform, PlatformLock]:
    return {part.platform: part for part in lock.platforms} if lock is not None else {}


_Difference = tuple[str, Side, Kind, str | None, str | None]


def _part_changes(before: PlatformLock | None, after: PlatformLock | None) -> list[_Difference]:
    mine, yours = _by_name(before), _by_name(after)
    changes: list[_Difference] = []
    for key in sorted(mine.keys() | yours.keys()):
        old, new = mine.get(key), yours.get(key)
        if old is None:
            changes.append((*key, "added", None, yours[key].version))
        elif new is None:
            changes.append((*key, "removed", old.version, None))
        elif old.version != new.version:
            changes.append((*key, "changed", old.version, new.version))
        elif old.sha256 != new.sha256:
            changes.append((*key, "rebuilt", old.version, new.version))
    return changes


def _by_name(part: PlatformLock | None) -> dict[tuple[str, Side], Locked]:
    """The packages of a part; a conda package may be named as a wheel that has nothing to do with it."""
    listed = part.packages if part is not None else ()
    return {(one.name, "conda" if isinstance(one, LockedConda) else "pypi"): one for one in listed}


def why(part: PlatformLock, package: str, roots: Iterable[str] = ()) -> tuple[tuple[str, ...], ...]:
    """The shortest chain of dependencies from each requirement that leads to ``package``, shortest first.

    ``roots`` are the names that were asked for; without any, the distributions that no other needs. Empty when
    ``package`` is not in the lock or nothing leads to it.
    """
    wanted = normal_name(package)
    needs = _needs(part)
    if wanted not in needs:
        return ()
    needed = {name for requires in needs.values() for name in requires}
    unneeded = {normal_name(one.name) for one in part.packages} - needed
    starts = sorted({normal_name(root) for root in roots} & needs.keys()) or sorted(unneeded)
    chains = [chain for start in starts if (chain := _shortest(needs, start, wanted))]
    return tuple(sorted(chains, key=lambda chain: (len(chain), chain)))


def versions(part: PlatformLock) -> dict[str, str]:
    """The versions of all packages by the names that ``why`` knows, of distributions inside conda packages too."""
    found = {name: version for one in part.conda for name, version in one.provides}
    return {**found, **{normal_name(one.name): one.version for one in part.packages}}


def _needs(part: PlatformLock) -> dict[str, tuple[str, ...]]:
    """What each package needs, by name; a distribution inside a conda package of another name needs that one."""
    needs: dict[str, set[str]] = {}
    for one in part.conda:
        specs = (condalock.split(spec)[0] for spec in one.depends)
        needs.setdefault(normal_name(one.name), set()).update(normal_name(name) for name in specs)
        for name, _ in one.provides:
            needs.setdefault(name, set()).update({normal_name(one.name)} - {name})
    for wheel in part.wheels:
        needs.setdefault(wheel.name, set()).update(wheel.requires)
    return {name: tuple(sorted(found & needs.keys() - {name})) for name, found in needs.items()}


def _shortest(needs: dict[str, tuple[str, ...]], start: str, wanted: str) -> tuple[str, ...] | None:
    pending: deque[tuple[str, ...]] = deque([(start,)])
    seen = {start}
    while pending:
        chain = pending.popleft()
        if chain[-1] == wanted:
            return chain
        for name in needs.get(chain[-1], ()):
            if name not in seen:
                seen.add(name)
                pending.append((*chain, name))
    return None
