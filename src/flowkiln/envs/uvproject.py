"""The pyproject.toml beside a uv.lock: whose lock it is, and whether it still asks for what was locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from flowkiln.envs.errors import BadSource
from flowkiln.envs.lockfileerrors import NotInGivenLock
from flowkiln.envs.requirements import toml_of
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_AGAIN = "Run `uv lock` in the project."


def name_of(text: str, path: Path) -> str:
    """The normal name of the project. Raises ``BadSource``."""
    name = toml_of(text, path).get("project", {}).get("name")
    if not isinstance(name, str):
        hint = "Name the pyproject.toml of the project that the environment is for."
        raise BadSource(f"{path} has no project.name, by which a uv.lock is read", hint=hint)
    return normal_name(name)


def require_fresh(text: str, path: Path, locked: dict[str, Any], lock: Path) -> None:
    """Guarantees that the project asks for what it asked for when ``locked``, its entry in ``lock``, was made.

    Names and versions of requirements, extras and groups are compared. Raises ``NotInGivenLock`` naming the first
    difference, and ``BadSource``.
    """
    document = toml_of(text, path)
    metadata = locked.get("metadata", {})
    if {"dependencies", "optional-dependencies"} & set(document["project"].get("dynamic", [])):
        return  # only a build would tell, which uv did
    tables = document["project"].get("optional-dependencies", {})
    ours = [*document["project"].get("dependencies", []), *(one for listed in tables.values() for one in listed)]
    _compare(path, lock, "requirements", _asked(ours, path), _locked(metadata.get("requires-dist", [])))
    groups = {normal_name(name): value for name, value in document.get("dependency-groups", {}).items()}
    legacy = document.get("tool", {}).get("uv", {}).get("dev-dependencies", [])
    if legacy:
        groups["dev"] = [*groups.get("dev", []), *legacy]
    theirs = {normal_name(name): value for name, value in metadata.get("requires-dev", {}).items()}
    for name in sorted(groups.keys() | theirs.keys()):
        asked = _asked(_group(groups, name, path, ()), path)
        _compare(path, lock, f"group {name!r}", asked, _locked(theirs.get(name, [])))


def declared_empty(locked: dict[str, Any], key: str) -> set[str]:
    """The extras or groups of a locked project, those that ask for nothing included."""
    metadata = locked.get("metadata", {})
    names = metadata.get("provides-extras", []) if key.startswith("optional") else metadata.get("requires-dev", {})
    return {normal_name(name) for name in names}


def _group(groups: dict[str, Any], name: str, path: Path, inside: tuple[str, ...]) -> list[str]:
    """The requirements of a group with those that it includes."""
    found: list[str] = []
    for one in groups.get(name, []):
        if isinstance(one, str):
            found.append(one)
            continue
        inner = normal_name(str(one.get("include-group", ""))) if isinstance(one, dict) else ""
        if inner not in groups or inner in (*inside, name):
            raise BadSource(f"{path}: group {name!r} includes {inner!r}, which is not there or leads back to it")
        found += _group(groups, inner, path, (*inside, name))
    return found


def _asked(lines: Iterable[str], path: Path) -> set[tuple[str, SpecifierSet]]:
    found = set()
    for line in lines:
        try:
            parsed = Requirement(line)
        except InvalidRequirement as error:
            raise BadSource(f"{path}: {line!r} is not a requirement") from error
        found.add((normal_name(parsed.name), parsed.specifier))
    return found


def _locked(entries: Iterable[dict[str, Any]]) -> set[tuple[str, SpecifierSet]]:
    return {(normal_name(one["name"]), SpecifierSet(one.get("specifier", ""))) for one in entries}


def _compare(
    path: Path, lock: Path, what: str, asked: set[tuple[str, SpecifierSet]], locked: set[tuple[str, SpecifierSet]]
) -> None:
    if differing := [*sorted(asked - locked, key=str), *sorted(locked - asked, key=str)]:
        name, specifier = differing[0]
        side = "asks for" if differing[0] in asked else "no longer asks for"
        message = f"{path} {side} {name}{specifier} ({what}), and {lock} is older"
        raise NotInGivenLock(message, hint=_AGAIN)
