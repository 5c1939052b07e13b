"""JSON as values and as canonical bytes.

Canonical form: UTF-8, keys sorted by code point, no spaces, no floats, no NaN. Digests are taken over it and
never over joined strings, and each hashed document carries its schema version.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

JSONValue = Any
JSONObject = dict[str, Any]


def canonical(document: JSONValue) -> bytes:
    """The one byte form of ``document``. Raises ``TypeError`` for floats and other types outside the form."""
    _check(document, "$")
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _encoded(text)


def digest(document: JSONValue) -> str:
    """``sha256:<64 hex>`` of the canonical bytes of ``document``."""
    return "sha256:" + hashlib.sha256(canonical(document)).hexdigest()


def compact(document: JSONValue) -> bytes:
    """``document`` as short JSON bytes in insertion order, for records that are stored but not hashed."""
    return _encoded(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _encoded(text: str) -> bytes:
    """JSON text as bytes; lone surrogates, as in a path that isn't UTF-8, in JSON's own escape."""
    return text.encode(errors="backslashreplace")


def _check(value: JSONValue, path: str) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            _check(item, f"{path}[{position}]")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                message = f"{path}: key {key!r} is not a string"
                raise TypeError(message)
            _check(item, f"{path}.{key}")
        return
    message = f"{path}: {type(value).__name__} has no canonical form"
    raise TypeError(message)
