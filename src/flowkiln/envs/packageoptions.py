"""The options ``packages`` and ``index_pins``: versions, indexes, and sources named in their place."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from flowkiln.envs import directforms, requirements
from flowkiln.envs.errors import UnknownOption
from flowkiln.envs.requirements import Listed
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_HINT = 'Write "2.*", {"version": "2.*", "index": "https://..."}, or a source such as {"git": "https://..."}.'


def read(given: Mapping[str, Any] | Sequence[Any], *, folder: Path, where: str = "") -> Listed:
    """What ``packages`` asks for: a dictionary from name to version or source, or a list of requirements.

    In place of a version may stand a dictionary of ``version`` and ``index``, whose index :func:`index_pins` gives,
    or one that names a source (``directforms``); relative paths start at ``folder``.
    """
    found = Listed()
    for name, told in _entries(given, where):
        if isinstance(told, str) and name is None:
            found.add(told, folder, where)
        elif isinstance(told, str):
            assert name is not None
            found.requirements.append(requirements.package(name, told, where=where))
        elif set(directforms.KEYS) & set(told):
            found.direct.append(directforms.of_table(name or "", told, folder, where))
        else:
            check_names(told, ("version", "index"), f"{where}, package {name}" if where else f"package {name}")
            version = str(told.get("version", ""))
            found.requirements.append(requirements.package(name or "", version, where=where))
    return found


def index_pins(options: Mapping[str, Any], *, where: str = "") -> dict[str, str]:
    """The index that each pinned package of ``options`` comes from, by normal name."""
    given = options.get("index_pins") or {}
    listed = options.get("packages") or {}
    if not hasattr(given, "items") or not all(isinstance(url, str) for url in given.values()):
        raise UnknownOption(f"{at(where)}index_pins is a dictionary from packages to indexes, not {given!r}")
    pins = {normal_name(name): url for name, url in given.items()}
    for name, told in _entries(listed, where):
        if name is not None and not isinstance(told, str) and "index" in told:
            pins[normal_name(name)] = str(told["index"])
    return pins


def merged(levels: Iterable[Mapping[str, Any]], *, folder: Path) -> tuple[list[Any], dict[str, str]]:
    """``packages`` and ``index_pins`` of all ``levels``, a later one winning for what both name."""
    wanted: dict[str, Any] = {}
    pins: dict[str, str] = {}
    for options in levels:
        for name, told in _entries(options.get("packages") or {}, ""):
            key, entry = _named(name, told, folder)
            wanted[key] = entry
            pins.pop(key, None)
        pins |= index_pins(options)
    return [wanted[name] for name in sorted(wanted)], pins


def _named(name: str | None, told: Any, folder: Path) -> tuple[str, Any]:
    """The normal name of an entry, and the entry as a list has it."""
    if isinstance(told, str):
        if name is None and directforms.is_direct(told):
            return directforms.of_line(told, folder).reference.name, told
        line = requirements.requirement(told) if name is None else requirements.package(name, told)
        return requirements.name_of(line), line
    if set(directforms.KEYS) & set(told):
        return normal_name(str(name).partition("[")[0].strip()), {"name": name, **told}
    check_names(told, ("version", "index"), f"package {name}")
    line = requirements.package(str(name), str(told.get("version", "")))
    return requirements.name_of(line), line


def _entries(given: Any, where: str) -> Iterator[tuple[str | None, Any]]:
    """The names of ``packages``, None where the entry has its own, and what is told of each."""
    if isinstance(given, str):
        raise UnknownOption(f"{at(where)}packages is a dictionary or a list, not the text {given!r}")
    if hasattr(given, "items"):
        for name, told in given.items():
            if not isinstance(told, str) and not hasattr(told, "items"):
                raise UnknownOption(f"{at(where)}{told!r} is not a version of {name!r}", hint=_HINT)
            yield str(name), told
        return
    for one in given:
        if hasattr(one, "items") and "name" in one:
            yield str(one["name"]), {key: value for key, value in one.items() if key != "name"}
        elif isinstance(one, str):
            yield None, one
        else:
            raise UnknownOption(f"{at(where)}{one!r} is not a requirement", hint='Write for example "pandas>=2".')


def settle(found: Listed) -> None:
    """Moves what is said of versions of direct references to the constraints: their source decides the version.

    Afterwards ``found.requirements`` names them by their names alone.
    """
    direct = {one.reference.name for one in found.direct}
    kept = []
    for line in found.requirements:
        wanted = Requirement(line)
        if wanted.name not in direct:
            kept.append(line)
            continue
        marker = f" ; {wanted.marker}" if wanted.marker else ""
        if wanted.specifier:
            found.constraints.append(f"{wanted.name}{wanted.specifier}{marker}")
        if wanted.extras:
            kept.append(f"{wanted.name}[{','.join(sorted(wanted.extras))}]{marker}")
    found.requirements = [*kept, *(one.requirement for one in found.direct)]


def check_names(given: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raises ``UnknownOption`` for the first name that is not ``known``."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise UnknownOption(f"{at(where)}unknown option {name!r}", hint=hint)


def at(where: str) -> str:
    """The place before a message."""
    return f"{where}: " if where else ""
