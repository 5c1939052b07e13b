"""Newer versions that the solver passed over because no wheel fits the target, and the tags that they have.

The solver says which versions it looked at in vain; only for those the index is asked what files they have.
"""

from __future__ import annotations

import html
import json as plain_json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from flowkiln.envs.errors import EnvError
from flowkiln.envs.transport import Network, Transport
from flowkiln.envs.wheels import tags_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.indexes import IndexPlan
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.uvtrace import Trace

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_ANCHOR = re.compile(r"(?is)<a\s[^>]*href\s*=\s*[\"']([^\"']+)[\"'][^>]*>")
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
    version: Version
    yanked: bool
    uploaded: str | None


def explain(
    parts: Iterable[tuple[PlatformLock, Trace]], plan: IndexPlan, *, offline: bool, cutoff: str | None
) -> list[Passed]:
    """What was passed over on each platform, newest first. Asks the index only where there is something to tell."""
    pages = _Pages(plan, offline=offline)
    found: list[Passed] = []
    try:
        for part, trace in parts:
            for wheel in part.wheels:
                newer = _newer(trace.passed_over.get(wheel.name, ()), wheel.version)
                files = pages.files(wheel.name, wheel.index) if newer else []
                for version in newer[:_NEWEST]:
                    reason = _reason(part, version, files, cutoff)
                    if reason is not None:
                        found.append(
                            Passed(
                                platform=part.platform,
                                name=wheel.name,
                                version=str(version),
                                locked=wheel.version,
                                reason=reason,
                            )
                        )
    finally:
        pages.close()
    return found


def _newer(versions: Iterable[str], locked: str) -> list[Version]:
    return sorted((one for text in versions if (one := _version(text)) and one > Version(locked)), reverse=True)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _reason(part: PlatformLock, version: Version, files: list[_File], cutoff: str | None) -> str | None:
    """Why ``version`` does not do; None when it was withdrawn or is too new, which is no surprise."""
    own = [file for file in files if file.version == version]
    if own and all(file.yanked or (cutoff and file.uploaded and file.uploaded >= cutoff) for file in own):
        return None
    tags = sorted({tags_of(file.name) for file in own if file.name.endswith(".whl")})
    if not own:
        return "no wheel fits"
    if not tags:
        return "it has no wheel, only source"
    listed = ", ".join(tags[:6]) + (f" and {len(tags) - 6} more" if len(tags) > 6 else "")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[part.platform.arch]
    needed = sorted(int(minor) for tag in tags for minor in re.findall(rf"manylinux_2_(\d+)_{machine}", tag))
    if part.glibc is not None and needed and needed[0] > part.glibc[1]:
        floor = f"{part.glibc[0]}.{part.glibc[1]}"
        return f"its wheels need glibc 2.{needed[0]}, the floor is {floor} (tags: {listed})"
    return f"no wheel fits, its tags: {listed}"


class _Pages:
    """Pages of the index, each asked for once."""

    def __init__(self, plan: IndexPlan, *, offline: bool) -> None:
        self._plan = plan
        self._offline = offline
        self._transport: Transport | None = None
        self._known: dict[str, list[_File]] = {}

    def files(self, name: str, index: str | None) -> list[_File]:
        """The files that an index lists for a package; none when it cannot be asked."""
        if self._offline or index is None:
            return []
        url = f"{index.rstrip('/')}/{name}/"
        if url not in self._known:
            try:
                self._known[url] = self._read(url)
            except (EnvError, ValueError):
                self._known[url] = []
        return self._known[url]

    def _read(self, url: str) -> list[_File]:
        if self._transport is None:
            self._transport = Transport(Network(stall=_STALL, credentials=self._plan.credentials))
        answer = self._transport.get(url, {"Accept": _ACCEPT})
        try:
            body = answer.read(decode_content=True)
        finally:
            answer.release_conn()
        if answer.status != 200:
            return []
        if "json" in answer.headers.get("Content-Type", ""):
            return list(_from_json(plain_json.loads(body)))
        return list(_from_html(body.decode(errors="replace")))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _from_json(document: dict[str, Any]) -> Iterable[_File]:
    for entry in document.get("files", []):
        name = str(entry.get("filename", ""))
        version = _of_file(name)
        if version is not None:
            yield _File(name, version, bool(entry.get("yanked")), entry.get("upload-time"))


def _from_html(page: str) -> Iterable[_File]:
    for match in _ANCHOR.finditer(page):
        name = unquote(urlsplit(html.unescape(match[1])).path.rpartition("/")[2])
        version = _of_file(name)
        if version is not None:
            yield _File(name, version, "data-yanked" in match[0].lower(), None)


def _of_file(name: str) -> Version | None:
    try:
        if name.endswith(".whl"):
            return parse_wheel_filename(name)[1]
        return parse_sdist_filename(name)[1]
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
