"""Decorators given as text on the command line: ``--with retry:times=4,minutes_between_retries=1``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowkiln.flow.decorating import FLOW_LEVEL
from flowkiln.flow.decorators import DECORATORS, make
from flowkiln.flow.errors import BadDecorator

if TYPE_CHECKING:
    from flowkiln.flow.marks import Decorator

_OPEN = {"{": "}", "[": "]", "(": ")"}
_TEXT = frozenset(
    {
        "var",
        "python",
        "name",
        "requirements",
        "pyproject",
        "group",
        "extra",
        "exclude_newer",
        "glibc",
        "cuda",
        "source",
    }
    | {"image", "user", "network"}
)
_PYTHON = {"True": True, "False": False, "None": None}
"""Values as the decorator's own messages write them."""


def from_spec(text: str) -> Decorator:
    """The step decorator that ``NAME`` or ``NAME:key=value,key=value`` describes.

    Values are read as JSON, else as text; commas inside brackets and quotes belong to the value. Raises
    ``BadDecorator``.
    """
    name, _, rest = text.strip().partition(":")
    known = sorted(set(DECORATORS) - FLOW_LEVEL)
    if name not in known:
        message = f"--with {text!r}: there is no step decorator {name!r}"
        raise BadDecorator(message, hint=f"Known are {', '.join(known)}.")
    arguments: dict[str, Any] = {}
    for part in _split(rest):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            message = f"--with {text!r}: {part!r} is not of the form key=value"
            raise BadDecorator(message, hint=f"Write --with {name}:key=value,key=value")
        if key.strip() in arguments:
            message = f"--with {text!r}: {key.strip()!r} is given twice"
            raise BadDecorator(message, hint="Keep one of them.")
        arguments[key.strip()] = _value(key.strip(), value.strip())
    decorator = make(name, arguments)
    if decorator.problems:
        message = f"--with {text!r}: " + "; ".join(f"@{name}: {problem}" for problem in decorator.problems)
        from flowkiln.flow.declarations import advice  # noqa: PLC0415  only where something is wrong

        raise BadDecorator(message, hint=advice(name, decorator.problems[0]))
    return decorator


def _value(key: str, text: str) -> Any:
    if key in _TEXT and not text.startswith('"'):
        return text  # python=3.10 is no number
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(text: str) -> list[str]:
    """The parts of ``text`` between commas that stand outside brackets and double quotes."""
    parts: list[str] = []
    closing: list[str] = []
    start, quoted, escaped = 0, False, False
    for position, sign in enumerate(text):
        if quoted:
            quoted = escaped or sign != '"'
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        elif sign in _OPEN:
            closing.append(_OPEN[sign])
        elif closing and sign == closing[-1]:
            closing.pop()
        elif sign == "," and not closing:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]
