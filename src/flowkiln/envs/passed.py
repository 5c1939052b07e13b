"""Newer versions that the solver passed over because no wheel fits the target, and the tags that they have.

The solver says which versions it looked at in vain; only for those, and once only, the index is asked what files
they have.
"""

from __future__ import annotations

import json as plain_json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from flowkiln._base import digests, files, json, paths
from flowkiln._base.errors import FlowkilnError
from flowkiln.envs import indexpages
from flowkiln.envs.pythons import full
from flowkiln.envs.wheels import tags_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.indexes import IndexPlan
    from flowkiln.envs.indexpages import IndexFile
    from flowkiln.envs.lock import LockedWheel, PlatformLock
    from flowkiln.envs.uvtrace import Trace

_NEWEST = 3
"""Versions told of at most, for a package on a platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A newer version that satisfies the request but has no wheel for the target, and why."""

    platform: Platform
    name: str
    version: str
    locked: str
    reason: str

    def __str__(self) -> str:
        return f"{self.platform}: {self.name} {self.version} passed over for {self.locked}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _Case:
    """One version passed over on one platform."""

    part: PlatformLock
    wheel: LockedWheel
    version: str

    @property
    def url(self) -> str:
        return f"{(self.wheel.index or '').rstrip('/')}/{self.wheel.name}/"

    def memory(self, cutoff: str | None) -> Path:
        """Where the reason is remembered."""
        key = json.digest(
            {
                "schema": 1,
                "page": self.url,
                "version": self.version,
                "platform": str(self.part.platform),
                "python": self.part.python,
                "glibc": list(self.part.glibc or ()),
                "cutoff": cutoff,
            }
        )
        return paths.cache_root() / "passed" / f"{digests.hexdigits(key)}.json"


def explain(
    parts: Iterable[tuple[PlatformLock, Trace]], plan: IndexPlan, *, offline: bool, cutoff: str | None
) -> list[Passed]:
    """What was passed over on each platform, newest first.

    Asks the index only about versions that it has not been asked about before.
    """
    cases = [case for part, trace in parts for case in _cases(part, trace)]
    known = {case: _recall(case.memory(cutoff)) for case in cases}
    asked = sorted({case.url for case in cases if known[case] is None and case.wheel.index})
    pages = {} if offline or not asked else indexpages.fetch(asked, plan)
    found = []
    for case in cases:
        reason = known[case]
        if reason is None:
            reason = _reason(case, pages.get(case.url), cutoff)
            if case.url in pages:
                _remember(case.memory(cutoff), reason)
        if reason:
            found.append(
                Passed(
                    platform=case.part.platform,
                    name=case.wheel.name,
                    version=case.version,
                    locked=case.wheel.version,
                    reason=reason,
                )
            )
    return found


def _cases(part: PlatformLock, trace: Trace) -> Iterator[_Case]:
    for wheel in part.wheels:
        newer = []
        for text in trace.passed_over.get(wheel.name, ()):
            try:
                if Version(text) > Version(wheel.version):
                    newer.append(Version(text))
            except InvalidVersion:
                continue
        yield from (_Case(part, wheel, str(version)) for version in sorted(newer, reverse=True)[:_NEWEST])


def _reason(case: _Case, page: str | None, cutoff: str | None) -> str:
    """Why the version does not do; empty when that is no surprise: withdrawn, too new, or for another Python."""
    if page is None:
        return "no wheel fits"
    own = [file for file in indexpages.files(page) if file.version == case.version]
    if own and all(_expected(file, case.part.python, cutoff) for file in own):
        return ""
    tags = sorted({tags_of(file.name) for file in own if file.is_wheel})
    if not tags:
        return "it has no wheel, only source" if own else "no wheel fits"
    listed = ", ".join(tags[:6]) + (f" and {len(tags) - 6} more" if len(tags) > 6 else "")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[case.part.platform.arch]
    needed = sorted(int(minor) for tag in tags for minor in re.findall(rf"manylinux_2_(\d+)_{machine}", tag))
    floor = case.part.glibc
    if floor is not None and needed and needed[0] > floor[1]:
        return f"its wheels need glibc 2.{needed[0]}, the floor is {floor[0]}.{floor[1]} (tags: {listed})"
    return f"no wheel fits, its tags: {listed}"


def _expected(file: IndexFile, python: str, cutoff: str | None) -> bool:
    if file.yanked or (cutoff and file.uploaded and file.uploaded >= cutoff):
        return True
    try:
        return not SpecifierSet(file.requires_python or "").contains(full(python), prereleases=True)
    except InvalidSpecifier:
        return False


def _recall(path: Path) -> str | None:
    try:
        found = plain_json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _remember(path: Path, reason: str) -> None:
    try:
        files.write_atomic(path, plain_json.dumps(reason).encode())
    except (OSError, FlowkilnError):
        return
