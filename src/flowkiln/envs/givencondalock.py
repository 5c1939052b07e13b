"""A conda-lock.yml of any tool as a source: several platforms, categories, and wheels of its pip packages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flowkiln._base import redact
from flowkiln.envs import condalock, given, pylock, pythons
from flowkiln.envs.given import Given, GivenPart, Wanted
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from flowkiln.envs.pylock import FoundPackage, FoundWheel
from flowkiln.envs.spec import normal_name
from flowkiln.envs.subdirs import platform_of, subdir_of
from flowkiln.envs.wheels import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.lock import LockedConda, LockedWheel

MAIN = "main"
"""The category of what is always installed."""

_ALIAS = "https://conda.anaconda.org"
_TOKEN = re.compile(r"/t/[^/]+(?=/)")


def platforms(text: str, path: Path) -> tuple[Platform, ...]:
    """The platforms of the file that flowkiln has, sorted. Raises ``BadLockFile``."""
    with given.foreign():
        document = condalock.load(text, path)
        named = {str(one.get("platform")) for one in document["package"] if isinstance(one, dict)}
    found = []
    for subdir in named:
        try:
            found.append(platform_of(subdir))
        except ValueError:
            continue
    return tuple(sorted(found))


def read(
    text: str,
    path: Path,
    wanted: Iterable[Platform],
    *,
    glibc: tuple[int, int],
    categories: Iterable[str] = (),
    required: Iterable[Platform] = (),
) -> Given:
    """What the file gives for the platforms ``wanted``, of the categories ``main`` and those named.

    The Python is the one in it. A platform that is not ``required`` and not in it is left out. What the Python
    distributions inside conda packages are (``provides``), only a file tells that flowkiln exported. Raises
    ``BadLockFile``, ``NotInGivenLock``, ``NotHonoured`` and ``UnsupportedPython``.
    """
    with given.foreign():
        reader = _Reader(text, path, frozenset(categories) | {MAIN})
    targets = [
        Target(one, reader.python(one) or "", glibc if one.os == "linux" else None) for one in sorted(set(wanted))
    ]
    question = Wanted(targets=tuple(targets), python="", required=frozenset(required))
    parts = given.covered(question, reader.part, path)
    minors = {str(reader.python(part.platform)) for part in parts}
    if len(minors) > 1:
        raise NotInGivenLock(f"{path} has Python {' and '.join(sorted(minors))}: an environment has one")
    return Given(python=pythons.check(minors.pop()), parts=parts, channels=reader.channels)


class _Reader:
    """One file with its packages by platform, of the categories that were asked for."""

    def __init__(self, text: str, path: Path, categories: frozenset[str]) -> None:
        self._path = path
        document = condalock.load(text, path)
        self._conda: dict[Platform, dict[str, LockedConda]] = {}
        self._pip: dict[Platform, dict[str, dict[str, Any]]] = {}
        known: set[str] = {MAIN}
        metadata = document.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise pylock.bad_file(path, text, "metadata:", "the metadata are no mapping")
        for entry in document["package"]:
            try:
                known |= (own := _categories(entry))
                if own & categories:
                    self._add(entry, metadata.get("custom_metadata") or {})
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                name = str(entry.get("name", "?")) if isinstance(entry, dict) else "?"
                what = f"the entry of {name!r} is not valid"
                raise pylock.bad_file(path, text, f"name: {name}", what) from error
        if lacking := sorted(categories - known):
            have = ", ".join(sorted(known))
            raise NotInGivenLock(f"{path} was locked without category {', '.join(lacking)}; it has: {have}")
        self.channels = _channels(metadata.get("channels") or [], self._conda)

    def _add(self, entry: dict[str, Any], kept: Mapping[str, str]) -> None:
        try:
            platform = platform_of(entry["platform"])
        except ValueError:
            return  # of a platform that flowkiln has not
        if entry["manager"] == "pip":
            self._pip.setdefault(platform, {})[normal_name(entry["name"])] = entry
            return
        if entry["name"].startswith("__"):
            return  # a virtual package, which nothing installs
        if not (entry.get("hash") or {}).get("sha256"):
            raise NotInGivenLock(f"{self._path}, {entry['name']} has no sha256 hash")
        url = _TOKEN.sub("", redact.url(entry["url"]))
        build = entry.get("build") or _build(condalock.file_name(url))
        package = condalock.conda_package({**entry, "url": url, "build": build}, kept)
        self._conda.setdefault(platform, {})[package.name] = package

    def python(self, platform: Platform) -> str | None:
        """The ``X.Y`` of the python package for ``platform``; None where there is none."""
        package = self._conda.get(platform, {}).get("python")
        return pythons.minor(package.version) if package is not None else None

    def part(self, target: Target) -> GivenPart:
        """The packages for one platform."""
        conda, pip = self._conda.get(target.platform, {}), self._pip.get(target.platform, {})
        if not conda:
            raise NotInGivenLock(
                f"{self._path} was not locked for {target.platform} ({subdir_of(target.platform)})"
            )
        if "python" not in conda:
            raise NotInGivenLock(f"{self._path} has no python for {target.platform}, which runs the steps")
        wheels = tuple(self._wheel(name, pip[name], target, set(pip)) for name in sorted(pip))
        packages = tuple(conda[name] for name in sorted(conda))
        return GivenPart(platform=target.platform, conda=packages, wheels=wheels, glibc=target.glibc)

    def _wheel(self, name: str, entry: dict[str, Any], target: Target, names: set[str]) -> LockedWheel:
        where = f"{self._path}, {name}"
        url = str(entry["url"]).partition("#")[0]
        if re.match(r"[a-z]+\+", url):
            raise NotHonoured(f"{where} comes from a repository and would have to be built")
        wheel = FoundWheel(
            filename=condalock.file_name(url),
            url=url,
            sha256=(entry.get("hash") or {}).get("sha256"),
            size=None,
            upload_time=None,
        )
        package = FoundPackage(name=name, version=str(entry["version"]), wheels=(wheel,))
        needs = {normal_name(one) for one in entry.get("dependencies") or {}}
        return given.wheel_of(package, target, tuple(sorted(needs & names - {name})), where)


def _categories(entry: dict[str, Any]) -> set[str]:
    """The categories of an entry: one in version 1, which lists a package once for each."""
    if "categories" in entry:
        return {str(one) for one in entry["categories"]}
    return {str(entry.get("category") or MAIN)}


def _build(filename: str) -> str:
    """The build at the end of a file name, for files of conda-lock before it recorded it."""
    return filename.removesuffix(".conda").removesuffix(".tar.bz2").rpartition("-")[2]


def _channels(
    listed: Iterable[str | dict[str, Any]], conda: Mapping[Platform, Mapping[str, LockedConda]]
) -> tuple[str, ...]:
    """The URLs of the channels: a name is that of a channel whose packages are there, else of conda's own host."""
    bases = {one.url.rsplit("/", 2)[0] for packages in conda.values() for one in packages.values()}
    found = []
    for one in listed:
        text = str(one["url"] if isinstance(one, dict) else one).rstrip("/")
        if "://" not in text:
            text = next((base for base in sorted(bases) if base.endswith(f"/{text}")), f"{_ALIAS}/{text}")
        found.append(_TOKEN.sub("", redact.url(text) + "/").rstrip("/"))
    return tuple(found)
