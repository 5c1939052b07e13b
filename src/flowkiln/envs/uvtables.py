"""What ``[tool.uv]`` of a project or script says of where packages come from; the rest that matters is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.envs import cutoff, projectfiles, requirements
from flowkiln.envs.errors import BadSource
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REFUSED: Mapping[str, object] = {
    "no-index": False,
    "find-links": [],
    "index-strategy": "first-index",
    "resolution": "highest",
    "prerelease": "if-necessary-or-explicit",
    "override-dependencies": [],
    "exclude-dependencies": [],
    "exclude-newer-package": {},
    "no-binary": False,
    "no-binary-package": [],
}
"""Keys that choose packages, each with the value that passes. All other keys are about something else."""
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "index": list,
    "sources": dict,
    "constraint-dependencies": list,
    "extra-index-url": (str, list),
    "index-url": str,
}
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "git": ("git", "rev", "tag", "branch", "subdirectory"),
    "url": ("url", "subdirectory"),
    "path": ("path", "editable"),
    "workspace": ("workspace", "editable"),
}
_INDEX_KEYS = frozenset({"name", "url", "default", "explicit", "publish-url", "authenticate", "cache-control"})


@dataclass(slots=True)
class UvTable:
    """What a table says: a complete list of ``indexes`` or none, ``pins`` from packages to index URLs, limits."""

    indexes: tuple[str, ...] = ()
    pins: dict[str, str] = field(default_factory=dict)
    exclude_newer: str | None = None
    constraints: list[str] = field(default_factory=list)
    sources: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def read(table: Mapping[str, Any], where: str, *, folder: Path) -> UvTable:
    """What the ``[tool.uv]`` in ``where``, a file in ``folder``, says.

    ``sources`` are tables of references (``directforms``) by normal name. Raises ``BadSource`` for what cannot be
    honoured.
    """
    for key, passes in _REFUSED.items():
        if key in table and table[key] != passes:
            message = f"{where}: [tool.uv] {key} cannot be honoured, and without it other packages would be locked"
            raise BadSource(
                message, hint="Say it in the requirements themselves, or declare the packages elsewhere."
            )
    for key, kind in _KINDS.items():
        if key in table and not isinstance(table[key], kind):
            raise BadSource(f"{where}: [tool.uv] {key} is not what uv takes there")
    found = UvTable()
    if "exclude-newer" in table:
        found.exclude_newer = cutoff.absolute(table["exclude-newer"])
    found.constraints = [
        requirements.requirement(str(line), where=where) for line in table.get("constraint-dependencies", [])
    ]
    entries = [_entry(one, where) for one in table.get("index", [])]
    found.indexes = _complete([one for one in entries if not one.get("explicit")], table)
    names = {str(one["name"]): str(one["url"]) for one in entries if "name" in one}
    for name, source in table.get("sources", {}).items():
        one = source[0] if isinstance(source, list) and len(source) == 1 else source
        if isinstance(one, dict) and (source_kind := next((key for key in _SOURCES if key in one), None)):
            found.sources[normal_name(name)] = _source(name, source_kind, one, table, folder, where)
        else:
            found.pins[normal_name(name)] = _pinned(name, one, names, where)
    return found


def _complete(entries: Sequence[Mapping[str, Any]], table: Mapping[str, Any]) -> tuple[str, ...]:
    """The indexes that are asked for every package, best first; empty where the table names none."""
    extras = [str(one["url"]) for one in entries if not one.get("default")]
    extras += _texts(table.get("extra-index-url", []))
    default = [str(one["url"]) for one in entries if one.get("default")] or _texts(table.get("index-url", []))
    return (*extras, *(default or ["default"])) if extras or default else ()


def _entry(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict) or not isinstance(given.get("url"), str):
        raise BadSource(f"{where}: an entry of [[tool.uv.index]] has no url")
    for key in given:
        if key not in _INDEX_KEYS:
            message = f"{where}: {key} of an entry of [[tool.uv.index]] cannot be honoured"
            raise BadSource(message, hint=f"Known are {', '.join(sorted(_INDEX_KEYS))}.")
    return given


def _source(
    name: str, kind: str, one: Mapping[str, Any], table: Mapping[str, Any], folder: Path, where: str
) -> Mapping[str, Any]:
    """The table of a reference for the source of ``name``. What is editable is taken as a copy."""
    for key in one:
        if key not in _SOURCES[kind]:
            message = f"{where}: {key} of the source of {name} in [tool.uv.sources] cannot be honoured"
            raise BadSource(message, hint=f"Beside {kind} may stand {', '.join(_SOURCES[kind][1:])}.")
    if kind == "workspace":
        return {"path": str(_member(name, table, folder, where))}
    refs = [str(one[key]) for key in ("rev", "tag", "branch") if key in one]
    inside = {key: one[key] for key in ("subdirectory",) if key in one}
    return {kind: str(one[kind]), **({"ref": refs[0]} if refs else {}), **inside}


def _member(name: str, table: Mapping[str, Any], folder: Path, where: str) -> Path:
    """The folder of a member of the workspace that the project in ``folder`` is the root or a member of."""
    for root in (folder.absolute(), *folder.absolute().parents):
        own = table if root == folder.absolute() else projectfiles.pyproject_of(root).get("tool", {}).get("uv", {})
        workspace = own.get("workspace") if isinstance(own, dict) else None
        if not isinstance(workspace, dict):
            continue
        excluded = {path for one in _texts(workspace.get("exclude", [])) for path in root.glob(one)}
        members = {root, *(path for one in _texts(workspace.get("members", [])) for path in root.glob(one))}
        for path in sorted(members - excluded):
            if (path / "pyproject.toml").is_file() and _is_project(path, name):
                return path
        break
    message = f"{where}: {name} is to come from the workspace, which has no member of that name"
    raise BadSource(message, hint="Members stand in [tool.uv.workspace] of this folder or one above.")


def _is_project(path: Path, name: str) -> bool:
    project = projectfiles.pyproject_of(path).get("project", {})
    return normal_name(str(project.get("name", ""))) == normal_name(name)


def _pinned(name: str, one: Any, names: Mapping[str, str], where: str) -> str:
    """The URL of the index that ``name`` is to come from."""
    if not isinstance(one, dict) or set(one) != {"index"}:
        message = (
            f"{where}: the source of {name} in [tool.uv.sources] is more than one index, URL, repository or path"
        )
        raise BadSource(message, hint="Sources that depend on a marker cannot be honoured: write one of them.")
    if one["index"] not in names:
        message = f"{where}: {name} is to come from index {one['index']!r}, which no [[tool.uv.index]] is named"
        raise BadSource(message, hint=f"Named are: {', '.join(sorted(names)) or 'none'}.")
    return names[one["index"]]


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]
