"""A pylock.toml (PEP 751) of any tool as a source: markers, extras and groups evaluated, one wheel per package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from flowkiln.envs import given, pylock, pythons
from flowkiln.envs.given import Given, GivenPart
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.markers import Marker

    from flowkiln.envs.given import Wanted
    from flowkiln.envs.pylock import FoundPackage
    from flowkiln.envs.wheels import Target

_BUILT = {"vcs": "a repository", "directory": "a folder", "archive": "an archive"}
_WHEEL = ".whl"


def requires_python(text: str, path: Path) -> str | None:
    """The Pythons that the file admits; None where it admits any. Raises ``BadLockFile``."""
    with given.foreign():
        return pylock.load_toml(text, path).get("requires-python")


def read(text: str, path: Path, wanted: Wanted) -> Given:
    """What the file gives for ``wanted``. A platform that was not asked for by name and is not in it is left out.

    Raises ``BadLockFile``, ``NotInGivenLock`` and ``NotHonoured``, naming the file and the entry.
    """
    with given.foreign():
        document = pylock.load_toml(text, path)
        version = str(document.get("lock-version", "")).partition(".")[0]
        if version != "1" or not isinstance(document.get("packages", []), list):
            raise pylock.bad_file(path, text, "lock-version", "this is no pylock.toml of version 1")
        reader = _Reader(document, text, path, wanted)
    return Given(python=pythons.minor(wanted.python), parts=given.covered(wanted, reader.part, path))


class _Reader:
    """One file with the question to it; markers are parsed once for all platforms."""

    def __init__(self, document: dict[str, Any], text: str, path: Path, wanted: Wanted) -> None:
        self._path, self._wanted = path, wanted
        self._sets = {
            "extras": _known(document, "extras", wanted.extras, path),
            "dependency_groups": _known(document, "dependency-groups", wanted.groups, path)
            | frozenset(map(str, document.get("default-groups", []) if wanted.project else ())),
        }
        self._environments = [given.parsed(str(one), str(path)) for one in document.get("environments", [])]
        self._requires = str(document.get("requires-python", ""))
        self._entries: list[tuple[dict[str, Any], FoundPackage, Marker | None]] = []
        for entry in document.get("packages", []):
            try:
                package = pylock.found(_with_archive(entry))
                marker = given.parsed(entry["marker"], f"{path}, {package.name}") if "marker" in entry else None
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                name = str(entry.get("name", "?")) if isinstance(entry, dict) else "?"
                raise pylock.bad_file(
                    path, text, f'name = "{name}"', f"the entry of {name!r} is not valid"
                ) from error
            self._entries.append((entry, package, marker))

    def part(self, target: Target) -> GivenPart:
        """The packages for one platform."""
        python = self._wanted.python
        self._check(target, python)
        chosen = self._chosen(target, python)
        names = {self._entries[place][1].name for place in chosen}
        wheels = tuple(self._wheel(place, target, names) for place in chosen)
        part = GivenPart(
            platform=target.platform, wheels=tuple(sorted(wheels, key=lambda one: one.name)), glibc=target.glibc
        )
        markers = [marker for _, _, marker in self._entries if marker is not None]
        depends = any("python_full_version" in str(one) for one in (*markers, *self._environments))
        return given.within(part, python, lambda other: self._chosen(target, other), depends=depends)

    def _check(self, target: Target, python: str) -> None:
        variables = given.environment(target, python)
        where = str(self._path)
        if not admits(self._requires, python, where):
            raise NotInGivenLock(f"{where} is for Python {self._requires}, not {python}")
        if self._environments and not any(given.holds(one, variables, where) for one in self._environments):
            raise NotInGivenLock(f"{where} is for other platforms or Pythons than {target.platform} with {python}")

    def _chosen(self, target: Target, python: str) -> tuple[int, ...]:
        """The places of the packages whose markers hold. Raises where two of one name do."""
        variables = {**given.environment(target, python), **self._sets}
        found: dict[str, int] = {}
        for place, (_, package, marker) in enumerate(self._entries):
            where = f"{self._path}, {package.name}"
            if marker is not None and not given.holds(marker, variables, where):
                continue
            if package.name in found:
                raise NotInGivenLock(f"{where}: two entries hold for {target.platform} with Python {python}")
            found[package.name] = place
        return tuple(found.values())

    def _wheel(self, place: int, target: Target, names: set[str]) -> Any:
        entry, package, _ = self._entries[place]
        where = f"{self._path}, {package.name}"
        if not admits(str(entry.get("requires-python", "")), self._wanted.python, where):
            raise NotInGivenLock(f"{where} needs Python {entry['requires-python']}, not {self._wanted.python}")
        for kind, what in _BUILT.items():
            if kind in entry and not package.wheels:
                raise NotHonoured(f"{where} comes from {what} and would have to be built")
        needs = {normal_name(str(one.get("name", ""))) for one in entry.get("dependencies", [])}
        return given.wheel_of(package, target, tuple(sorted(needs & names - {package.name})), where)


def _with_archive(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose archive is a wheel, as one is that was asked for by its URL, has that wheel."""
    archive = entry.get("archive", {})
    place = str(archive.get("url", archive.get("path", ""))).partition("#")[0]
    return {**entry, "wheels": [archive]} if place.endswith(_WHEEL) else entry


def admits(specifier: str, python: str, where: str) -> bool:
    """Whether a ``requires-python`` holds for ``X.Y.Z``. Raises ``NotHonoured``."""
    try:
        return SpecifierSet(specifier).contains(python, prereleases=True)
    except InvalidSpecifier as error:
        raise NotHonoured(f"{where}: {specifier!r} is no requires-python") from error


def _known(document: dict[str, Any], key: str, asked: frozenset[str], path: Path) -> frozenset[str]:
    known = {normal_name(str(one)): str(one) for one in document.get(key, [])}
    lacking = sorted(one for one in asked if normal_name(one) not in known)
    if lacking:
        have = ", ".join(sorted(known)) or "none"
        raise NotInGivenLock(f"{path} was locked without {key} {', '.join(lacking)}; it has: {have}")
    return frozenset(known[normal_name(one)] for one in asked)
