"""Newer versions that the solver passed over because no wheel fits the target, and the tags that they have.

The solver says which versions it looked at in vain; only for those, and once only, the index is asked what files
they have.
"""

from __future__ import annotations

import html
import json as plain_json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from flowkiln._base import digests, files, json, parallel, paths
from flowkiln._base.errors import FlowkilnError
from flowkiln.envs.pythons import full
from flowkiln.envs.wheels import tags_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.indexes import IndexPlan
    from flowkiln.envs.lock import LockedWheel, PlatformLock
    from flowkiln.envs.uvtrace import Trace

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_ANCHOR = re.compile(r"(?is)<a\s[^>]*href\s*=\s*[\"']([^\"']+)[\"'][^>]*>")
_REQUIRES = re.compile(r"(?is)data-requires-python\s*=\s*[\"']([^\"']+)[\"']")
_NEWEST = 3
"""Versions told of at most, for a package on a platform."""
_STALL = 10.0
"""Seconds that an index may keep silent before the tags stay untold."""


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
class _File:
    name: str
    yanked: bool
    uploaded: str | None
    requires_python: str | None


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
    pages = {} if offline or not asked else _fetch(asked, plan)
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
    own = list(_files(page, case.version))
    if own and all(_expected(file, case.part.python, cutoff) for file in own):
        return ""
    tags = sorted({tags_of(file.name) for file in own if file.name.endswith(".whl")})
    if not tags:
        return "it has no wheel, only source" if own else "no wheel fits"
    listed = ", ".join(tags[:6]) + (f" and {len(tags) - 6} more" if len(tags) > 6 else "")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[case.part.platform.arch]
    needed = sorted(int(minor) for tag in tags for minor in re.findall(rf"manylinux_2_(\d+)_{machine}", tag))
    floor = case.part.glibc
    if floor is not None and needed and needed[0] > floor[1]:
        return f"its wheels need glibc 2.{needed[0]}, the floor is {floor[0]}.{floor[1]} (tags: {listed})"
    return f"no wheel fits, its tags: {listed}"


def _expected(file: _File, python: str, cutoff: str | None) -> bool:
    if file.yanked or (cutoff and file.uploaded and file.uploaded >= cutoff):
        return True
    try:
        return not SpecifierSet(file.requires_python or "").contains(full(python), prereleases=True)
    except InvalidSpecifier:
        return False


def _fetch(urls: list[str], plan: IndexPlan) -> dict[str, str]:
    """The index pages that could be read, by URL."""
    # Imported here because TLS takes longer to load than most locks have use for it.
    from flowkiln.envs.transport import Network, Transport  # noqa: PLC0415

    transport = Transport(Network(stall=_STALL, credentials=plan.credentials, renew=plan.renew))

    def one(url: str) -> str | None:
        try:
            answer = transport.get(url, {"Accept": _ACCEPT})
            try:
                body: bytes = answer.read(decode_content=True)
            finally:
                answer.release_conn()
        except (FlowkilnError, OSError):
            return None
        return body.decode(errors="replace") if answer.status == 200 else None

    try:
        pages = parallel.together(one, urls, at_once=4)
    finally:
        transport.close()
    return {url: page for url, page in zip(urls, pages, strict=True) if page is not None}


def _files(page: str, version: str) -> Iterator[_File]:
    """The files of one version on an index page, in JSON or HTML."""
    mark = f"-{version}"
    if not page.lstrip().startswith("{"):
        for match in _ANCHOR.finditer(page):
            name = unquote(urlsplit(html.unescape(match[1])).path.rpartition("/")[2])
            if mark in name and _version_of(name) == version:
                requires = _REQUIRES.search(match[0])
                needs = html.unescape(requires[1]) if requires else None
                yield _File(name, "data-yanked" in match[0].lower(), None, needs)
        return
    try:
        entries: list[dict[str, Any]] = plain_json.loads(page).get("files", [])
    except ValueError:
        return
    for entry in entries:
        name = str(entry.get("filename", ""))
        if mark in name and _version_of(name) == version:
            yield _File(name, bool(entry.get("yanked")), entry.get("upload-time"), entry.get("requires-python"))


def _version_of(name: str) -> str:
    if name.endswith(".whl"):
        return name.partition("-")[2].partition("-")[0]
    return re.sub(r"\.(tar\.gz|zip|tar\.bz2)$", "", name).rpartition("-")[2]


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
