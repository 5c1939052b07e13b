"""A uv.lock as a source: the packages that a project, its extras and groups need there, exactly as locked."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flowkiln._base import redact
from flowkiln.envs import given, pylock, pythons, uvproject
from flowkiln.envs.given import Given, GivenPart
from flowkiln.envs.givenpylock import admits
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock
from flowkiln.envs.pylock import FoundPackage, FoundWheel
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowkiln.envs.given import Wanted
    from flowkiln.envs.wheels import Target

_BUILT = {
    "git": "a repository",
    "directory": "a folder",
    "editable": "a folder",
    "path": "a local file",
    "url": "an archive",
}
_EXTRA = re.compile(r"""extra\s*(==|!=)\s*(['"])(?P<name>[^'"]+)\2""")
_NEVER, _ALWAYS = "os_name == ''", "os_name != ''"


def requires_python(text: str, path: Path) -> str | None:
    """The Pythons that the lock was made for. Raises ``BadLockFile``."""
    with given.foreign():
        return pylock.load_toml(text, path).get("requires-python")


def read(text: str, path: Path, wanted: Wanted, project: tuple[str, Path]) -> Given:
    """What the lock gives for ``wanted``; ``project`` is the text and the path of the pyproject.toml.

    The project itself is not in it: its code travels as code. A platform that was not asked for by name and is not
    covered is left out. Raises ``BadLockFile``, ``BadSource``, ``NotInGivenLock`` and ``NotHonoured``, naming file
    and package; ``NotInGivenLock`` too where the project has other requirements than when it was locked.
    """
    with given.foreign():
        document = pylock.load_toml(text, path)
        if document.get("version") != 1 or not isinstance(document.get("package", []), list):
            raise pylock.bad_file(path, text, "version", "this is no uv.lock of version 1")
        try:
            reader = _Reader(document, path, wanted, project)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise pylock.bad_file(path, text, "[[package]]", f"an entry is not valid ({error})") from error
    return Given(python=pythons.minor(wanted.python), parts=given.covered(wanted, reader.part, path))


@dataclass(slots=True)
class _Chosen:
    """What one walk finds: the entry of each name, and the names that each needs."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    needs: dict[str, set[str]] = field(default_factory=dict)

    @property
    def identity(self) -> object:
        """Equal for walks that find the same."""
        return sorted((name, str(one.get("version"))) for name, one in self.entries.items())


class _Reader:
    """One lock with the question to it."""

    def __init__(self, document: dict[str, Any], path: Path, wanted: Wanted, project: tuple[str, Path]) -> None:
        self._document, self._path, self._wanted = document, path, wanted
        self._by_name: dict[str, list[dict[str, Any]]] = {}
        for entry in document.get("package", []):
            self._by_name.setdefault(normal_name(entry["name"]), []).append(entry)
        name = uvproject.name_of(*project)
        if name not in self._by_name:
            raise NotInGivenLock(f"{path} has no project {name!r}", hint="Run `uv lock` in the project.")
        (self._root,) = self._by_name[name]
        uvproject.require_fresh(*project, self._root, path)
        self._roots = tuple(self._asked())
        self._active = _active(name, wanted)

    def _asked(self) -> Iterable[dict[str, Any]]:
        """The dependencies of the project, its extras and groups, as they were asked for."""
        if self._wanted.project:
            yield from self._root.get("dependencies", [])
        for key, names in (
            ("optional-dependencies", self._wanted.extras),
            ("dev-dependencies", self._wanted.groups),
        ):
            tables = {normal_name(name): listed for name, listed in self._root.get(key, {}).items()}
            known = set(tables) | uvproject.declared_empty(self._root, key)
            lacking = sorted(name for name in names if normal_name(name) not in known)
            if lacking:
                what = "extra" if key.startswith("optional") else "group"
                have = ", ".join(sorted(known)) or "none"
                raise NotInGivenLock(f"{self._path} was locked without {what} {', '.join(lacking)}; it has: {have}")
            for name in sorted(names):
                yield from tables.get(normal_name(name), [])

    def part(self, target: Target) -> GivenPart:
        """The packages for one platform."""
        python, where = self._wanted.python, str(self._path)
        if not admits(str(self._document.get("requires-python", "")), python, where):
            raise NotInGivenLock(f"{where} is for Python {self._document['requires-python']}, not {python}")
        supported = self._document.get("supported-markers", [])
        variables = given.environment(target, python)
        if supported and not any(self._holds(one, variables, where) for one in supported):
            raise NotInGivenLock(f"{where} is for other platforms or Pythons than {target.platform} with {python}")
        chosen = self._walk(target, python)
        brought = {name: entry for name, entry in chosen.entries.items() if not self._is_code(name, entry)}
        wheels = (
            given.wheel_of(_found(brought[name]), target, tuple(sorted(chosen.needs[name] & brought.keys())), where)
            for name in sorted(brought)
        )
        part = GivenPart(platform=target.platform, wheels=tuple(wheels), glibc=target.glibc)
        depends = "python_full_version" in str([self._document.get("resolution-markers"), self._by_name])
        return given.within(part, python, lambda other: self._walk(target, other).identity, depends=depends)

    def _is_code(self, name: str, entry: dict[str, Any]) -> bool:
        """Whether an entry brings no files, a project that is never a package. Raises for what must be built."""
        source = entry.get("source", {})
        if entry is self._root or "virtual" in source:
            return True
        for kind, what in _BUILT.items():
            if kind in source and not (kind in ("url", "path") and entry.get("wheels")):
                raise NotHonoured(f"{self._path}, {name} comes from {what} and would have to be built")
        return False

    def _walk(self, target: Target, python: str) -> _Chosen:
        variables = given.environment(target, python)
        found = _Chosen()
        pending: deque[tuple[str | None, dict[str, Any]]] = deque((None, one) for one in self._roots)
        seen: set[tuple[str, str]] = set()
        while pending:
            parent, dependency = pending.popleft()
            name = normal_name(dependency["name"])
            where = f"{self._path}, {name}"
            if "marker" in dependency and not self._holds(dependency["marker"], variables, where):
                continue
            entry = self._entry(name, dependency, variables, where)
            if found.entries.setdefault(name, entry) is not entry:
                versions = f"{found.entries[name].get('version')} and {entry.get('version')}"
                raise NotInGivenLock(f"{where}: both {versions} are asked for on {target.platform}")
            found.needs.setdefault(name, set())
            if parent is not None and parent != name:
                found.needs[parent].add(name)
            for extra in ("", *map(normal_name, dependency.get("extra", []))):
                if (name, extra) not in seen:
                    seen.add((name, extra))
                    pending.extend((name, one) for one in _listed(entry, extra))
        return found

    def _entry(
        self, name: str, dependency: dict[str, Any], variables: given.Environment, where: str
    ) -> dict[str, Any]:
        """The entry that a dependency means: by version, by source, else by the markers of the forks."""
        found = [
            one
            for one in self._by_name.get(name, [])
            if all(one.get(key) == dependency[key] for key in ("version", "source") if key in dependency)
        ]
        if len(found) > 1:
            forks = (one.get("resolution-markers", []) for one in found)
            held = [any(self._holds(marker, variables, where) for marker in markers) for markers in forks]
            found = [one for one, holds in zip(found, held, strict=True) if holds]
        if len(found) != 1:
            raise NotInGivenLock(f"{where}: {len(found)} entries fit what needs it")
        return found[0]

    def _holds(self, marker: str, variables: given.Environment, where: str) -> bool:
        """Whether a marker is true; uv names extras and groups that exclude each other as values of ``extra``."""

        def decided(match: re.Match[str]) -> str:
            return _ALWAYS if (match["name"] in self._active) == (match[1] == "==") else _NEVER

        return given.holds(given.parsed(_EXTRA.sub(decided, marker), where), variables, where)


def _active(name: str, wanted: Wanted) -> frozenset[str]:
    extras = {f"extra-{len(name)}-{name}-{normal_name(one)}" for one in wanted.extras}
    groups = {f"group-{len(name)}-{name}-{normal_name(one)}" for one in wanted.groups}
    return frozenset(extras | groups | ({f"project-{len(name)}-{name}"} if wanted.project else set()))


def _listed(entry: dict[str, Any], extra: str) -> list[dict[str, Any]]:
    if not extra:
        return list(entry.get("dependencies", []))
    tables = {normal_name(name): listed for name, listed in entry.get("optional-dependencies", {}).items()}
    return list(tables.get(extra, []))


def _found(entry: dict[str, Any]) -> FoundPackage:
    registry = str(entry.get("source", {}).get("registry", ""))
    return FoundPackage(
        name=normal_name(entry["name"]),
        version=str(entry.get("version", "")),
        wheels=tuple(map(_file, entry.get("wheels", []))),
        index=redact.url(registry) if "://" in registry else None,
        sdist=_file(entry["sdist"]) if entry.get("sdist") else None,
    )


def _file(told: dict[str, Any]) -> FoundWheel:
    url = str(told.get("url", ""))
    kind, _, digest = str(told.get("hash", "")).partition(":")
    return FoundWheel(
        filename=told.get("filename") or unquote(urlsplit(url or told.get("path", "")).path.rpartition("/")[2]),
        url=redact.url(url),
        sha256=digest if kind == "sha256" else None,
        size=told.get("size"),
        upload_time=_time(told.get("upload-time")),
    )


def _time(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
