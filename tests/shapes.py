"""Documents held against a JSON Schema: the part of draft 2020-12 that the project's own schemas use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}
_SILENT = {"$schema", "$defs", "title", "description"}


def problems(document: Any, schema: dict[str, Any]) -> list[str]:
    """What of ``document`` is not as ``schema`` says. Raises ``KeyError`` for a keyword that is not known here."""
    return list(_problems(document, schema, schema, "$"))


def _problems(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    for keyword, told in schema.items():
        if keyword in _SILENT:
            continue
        for text in _KEYWORDS[keyword](value, told, root, at):
            yield text if text.startswith("$") else f"{at}: {text}"


def _type(value: Any, told: str | list[str], root: dict[str, Any], at: str) -> Iterator[str]:
    names = [told] if isinstance(told, str) else told
    if not any(
        isinstance(value, _TYPES[name]) and not (name == "integer" and isinstance(value, bool)) for name in names
    ):
        yield f"no {' or '.join(names)}: {value!r}"


def _required(value: Any, told: list[str], root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{name} is missing" for name in told if name not in value)


def _properties(value: Any, told: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name in told.keys() & value.keys():
            yield from _problems(value[name], told[name], root, f"{at}.{name}")


def _items(value: Any, told: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _problems(one, told, root, f"{at}[{number}]")


def _reference(value: Any, told: str, root: dict[str, Any], at: str) -> Iterator[str]:
    yield from _problems(value, root["$defs"][told.removeprefix("#/$defs/")], root, at)


def _enum(value: Any, told: list[Any], root: dict[str, Any], at: str) -> Iterator[str]:
    if value not in told:
        yield f"{value!r} is none of {told}"


def _const(value: Any, told: Any, root: dict[str, Any], at: str) -> Iterator[str]:
    yield from _enum(value, [told], root, at)


def _pattern(value: Any, told: str, root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, str) and not re.search(told, value):
        yield f"{value!r} is not like {told}"


def _minimum(value: Any, told: int, root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, int) and value < told:
        yield f"{value} is below {told}"


def _shortest(value: Any, told: int, root: dict[str, Any], at: str) -> Iterator[str]:
    if isinstance(value, str) and len(value) < told:
        yield f"{value!r} is too short"


_KEYWORDS: dict[str, Callable[[Any, Any, dict[str, Any], str], Iterator[str]]] = {
    "type": _type,
    "required": _required,
    "properties": _properties,
    "items": _items,
    "$ref": _reference,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "minimum": _minimum,
    "minLength": _shortest,
}
