"""References from documents to blobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeGuard

    from flowkiln._base.json import JSONValue

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: object) -> TypeGuard[str]:
    """Whether ``text`` names a blob."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def blobs_in(document: JSONValue) -> Iterator[tuple[str, int]]:
    """(sha256, size) of every object in ``document`` that says where bytes are: artifacts, packs, logs."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            sha256, size = value.get("sha256"), value.get("size")
            if is_sha256(sha256) and isinstance(size, int):
                yield sha256, size
            pending.extend(value.values())
