"""Schema versions of what the store keeps: an older reader refuses a newer document and says what it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from zlib import crc32

from flowkiln._base.errors import FormatTooNew

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

RECORD_SCHEMA = 1
"""Version of the documents that the store itself defines: run opened, run ended, tags, journal entries."""

_TRAILER = 11


def expect(document: JSONObject, supported: int, what: str) -> JSONObject:
    """``document`` itself when its ``schema`` is at most ``supported``. Raises ``FormatTooNew``.

    A newer writer names the oldest flowkiln that reads its document under ``needs``.
    """
    schema = document.get("schema", 1)
    if isinstance(schema, int) and schema <= supported:
        return document
    needs = document.get("needs")
    wanted = f"flowkiln {needs} or newer" if needs else "a newer flowkiln"
    message = f"{what} has format {schema}; this flowkiln reads up to {supported}"
    raise FormatTooNew(message, hint=f"Read it with {wanted}.", data={"schema": schema, "needs": needs})


def document_of(data: bytes, supported: int, what: str) -> JSONObject:
    """The JSON object in ``data``, its version checked. Raises ``FormatTooNew`` and ``ValueError``."""
    document = json.loads(data)
    if not isinstance(document, dict):
        message = f"{what} is not a JSON object"
        raise ValueError(message)  # noqa: TRY004  like text that is not JSON
    return expect(document, supported, what)


def framed(data: bytes) -> bytes:
    """``data`` with a line of its own after it, ``#`` and the crc32 in hex, as a record lies on disk.

    A file cut by a power loss can then be told from a whole one, and the file still reads as text.
    """
    return b"%b\n#%08x\n" % (data, crc32(data))


def unframed(stored: bytes) -> bytes | None:
    """What ``framed`` was given; None when the checksum line is missing or differs."""
    data = stored[:-_TRAILER]
    if len(stored) < _TRAILER or stored[-_TRAILER:] != b"\n#%08x\n" % crc32(data):
        return None
    return data
