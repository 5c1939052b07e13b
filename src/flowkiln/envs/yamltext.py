"""YAML files read as texts: a scalar is the text that stands there, so that ``1.10`` and ``no`` stay what they are.

The one place that names PyYAML. Lists, mappings with texts as keys, texts and None (``null``, ``~`` or nothing): no
tags, no second document, no key twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_DEPTH = 100


class NotYaml(ValueError):
    """A text is no YAML, or not of the kind that is read here; ``line`` is where, from 1."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


def load(text: str) -> Any:
    """The document in ``text``; None for an empty one. Raises ``NotYaml``."""
    try:
        return _Reader(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYaml(str(error.problem or error.context), mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise NotYaml(str(getattr(error, "reason", error)), line) from error


class _Reader:
    """Builds values from the parser's events: one pass, and keys are seen before they are lost."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, Any] = {}

    def document(self) -> Any:
        found, documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise NotYaml("a second document begins", _line(event))
                found = self._value(next(self._events), 0)
        return found

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise NotYaml(f"nothing is named {event.anchor!r}", _line(event))
            return self._anchors[event.anchor]
        if event.tag not in (None, "!"):
            raise NotYaml(f"the tag {event.tag!r} is not understood", _line(event))
        if depth > _DEPTH:
            raise NotYaml("lists and mappings are nested too deep", _line(event))
        if isinstance(event, yaml.ScalarEvent):
            value = None if event.implicit[0] and event.value in _NULLS else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(depth)
        else:
            value = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _sequence(self, depth: int) -> list[Any]:
        found = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, depth + 1))
        return found

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            if not isinstance(key, str):
                raise NotYaml("a key is not a text", _line(event))
            if key in found:
                raise NotYaml(f"the key {key!r} stands there twice", _line(event))
            found[key] = self._value(next(self._events), depth + 1)
        return found


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
