"""What ``[tool.uv]`` of a project or script says of where packages come from; the rest that matters is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.envs import cutoff, requirements
from flowkiln.envs.errors import BadSource
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_INDEX_KEYS = frozenset({"name", "url", "default", "explicit", "publish-url", "authenticate", "cache-control"})


@dataclass(slots=True)
class UvTable:
    """What a table says: a complete list of ``indexes`` or none, ``pins`` from packages to index URLs, limits."""

    indexes: tuple[str, ...] = ()
    pins: dict[str, str] = field(default_factory=dict)
    exclude_newer: str | None = None
    constraints: list[str] = field(default_factory=list)


def read(table: Mapping[str, Any], where: str) -> UvTable:
    """What the ``[tool.uv]`` in ``where`` says. Raises ``BadSource`` for what cannot be honoured."""
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
        found.pins[normal_name(name)] = _pinned(name, source, names, where)
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


def _pinned(name: str, source: Any, names: Mapping[str, str], where: str) -> str:
    """The URL of the index that ``name`` is to come from."""
    one = source[0] if isinstance(source, list) and len(source) == 1 else source
    if not isinstance(one, dict) or set(one) != {"index"}:
        message = (
            f"{where}: the source of {name} in [tool.uv.sources] is not an index alone, which cannot be locked"
        )
        raise BadSource(message, hint=f'Write {name} = {{ index = "NAME" }}, and publish it there.')
    if one["index"] not in names:
        message = f"{where}: {name} is to come from index {one['index']!r}, which no [[tool.uv.index]] is named"
        raise BadSource(message, hint=f"Named are: {', '.join(sorted(names)) or 'none'}.")
    return names[one["index"]]


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value]
