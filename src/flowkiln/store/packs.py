"""Packs: many small byte strings in one blob, any of them read by range.

Layout: magic, the items one after another, a table of count + 1 offsets (u64, little-endian), table offset (u64),
count (u64), end mark. The first offset is where the first item begins, the last where the last one ends.
"""

from __future__ import annotations

import struct
import sys
from array import array
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from flowkiln.store import formats
from flowkiln.store.errors import BlobDamaged
from flowkiln.store.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Blobs

PACK_SCHEMA = 1

_MAGIC = b"\x89FKP\r\n\x1a\n"
_TAIL = struct.Struct("<QQ8s")
_END = b"FKPEND\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """``count`` items in ``size`` bytes: in the blob ``sha256``, or ``inline`` when they are few and small."""

    count: int
    size: int
    sha256: str | None = None
    inline: bytes | None = None

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``."""
        document: JSONObject = {"schema": PACK_SCHEMA, "count": self.count, "size": self.size}
        if self.inline is None:
            document["sha256"] = self.sha256
        else:
            document["inline"] = b2a_base64(self.inline, newline=False).decode()
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> Pack:
        """The value that ``to_json`` wrote. Raises ``FormatTooNew``."""
        formats.expect(document, PACK_SCHEMA, "the pack")
        inline = document.get("inline")
        return cls(
            count=document["count"],
            size=document["size"],
            sha256=document.get("sha256"),
            inline=None if inline is None else a2b_base64(inline),
        )


def write(items: Iterable[bytes], blobs: Blobs) -> Pack:
    """Stores ``items`` one after another as they come; only their offsets are kept in memory."""
    offsets = array("Q")
    with Spool(blobs) as spool:
        spool.write(_MAGIC)
        for item in items:
            offsets.append(spool.size)
            spool.write(item)
        table = spool.size
        offsets.append(table)
        spool.write(_little(offsets).tobytes())
        count = len(offsets) - 1
        spool.write(_TAIL.pack(table, count, _END))
    sha256 = spool.sha256 if spool.inline is None else None
    return Pack(count=count, size=spool.size, sha256=sha256, inline=spool.inline)


def read(pack: Pack, index: int, blobs: Blobs) -> bytes:
    """Item ``index`` (from 0), by two short reads. Raises ``IndexError``, ``BlobMissing``, ``BlobDamaged``."""
    if not 0 <= index < pack.count:
        message = f"the pack has {pack.count} items, not item {index}"
        raise IndexError(message)
    entry = _table_at(pack) + 8 * index
    begin, end = struct.unpack("<QQ", _range(pack, entry, 16, blobs))
    if not len(_MAGIC) <= begin <= end <= _table_at(pack):
        raise _damaged()
    return _range(pack, begin, end - begin, blobs)


def iterate(pack: Pack, blobs: Blobs) -> Iterator[bytes]:
    """All items in order, from one mapping of the blob. Raises ``BlobMissing`` and ``BlobDamaged``."""
    whole = memoryview(pack.inline if pack.inline is not None else blobs.map(pack.sha256 or ""))
    offsets = verify(whole)
    if len(whole) != pack.size or len(offsets) != pack.count + 1:
        raise _damaged()
    for begin, end in pairwise(offsets):
        yield bytes(whole[begin:end])


def is_pack(head: bytes) -> bool:
    """Whether bytes that begin with ``head`` are a pack."""
    return head.startswith(_MAGIC)


def verify(data: bytes | memoryview) -> array[int]:
    """The offsets of a whole pack, its layout checked. Raises ``BlobDamaged``."""
    end = len(data) - _TAIL.size
    if end < len(_MAGIC) or data[: len(_MAGIC)] != _MAGIC:
        raise _damaged()
    table, count, mark = _TAIL.unpack_from(data, end)
    if mark != _END or table + 8 * (count + 1) != end:
        raise _damaged()
    offsets = array("Q")
    offsets.frombytes(data[table:end])
    offsets = _little(offsets)
    if offsets[0] != len(_MAGIC) or offsets[-1] != table or any(map(int.__gt__, offsets, offsets[1:])):
        raise _damaged()
    return offsets


def _table_at(pack: Pack) -> int:
    return pack.size - _TAIL.size - 8 * (pack.count + 1)


def _range(pack: Pack, start: int, length: int, blobs: Blobs) -> bytes:
    if pack.inline is not None:
        return pack.inline[start : start + length]
    return blobs.read_range(pack.sha256 or "", start, length)


def _little(offsets: array[int]) -> array[int]:
    if sys.byteorder == "big":
        offsets = array("Q", offsets)
        offsets.byteswap()
    return offsets


def _damaged() -> BlobDamaged:
    return BlobDamaged("a pack is not what was stored", hint="`flowkiln store check` lists all damage.")
