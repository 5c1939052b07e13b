"""Artifacts: Python values as bytes, with what a reader must know about the writer.

Layout: magic, length of the header (u32), header (JSON: schema, codec, python, type, origin); pickle-5 stream; the
stream's out-of-band buffers as they lie in memory, each aligned to 64 bytes; a table of their (offset, length)
as u64 pairs; stream offset and length (u64), buffer count (u32), end mark. Numbers are little-endian. Nothing is
compressed, so that a blob is loaded by mapping it. Only standard library; numpy is used where user code has it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import sys
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln.store import formats
from flowkiln.store.errors import BlobDamaged, UnpicklableArtifact, UnreadableArtifact
from flowkiln.store.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Blobs

    class _Sink(Protocol):
        def write(self, data: Any, /) -> int: ...


ARTIFACT_SCHEMA = 1
ALIGNMENT = 64
CODEC = "pickle-5"

_MAGIC = b"\x89FKA\r\n\x1a\n"
_END = b"FKAE"
_HEADER = struct.Struct("<8sI")
_PAIR = struct.Struct("<QQ")
_TAIL = struct.Struct("<QQI4s")
_IN_BAND = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A stored value: where its bytes are and what wrote them.

    ``type`` is the dotted name of the value's type, ``size`` the length of its encoded bytes, ``sha256`` their
    hash in hex. Small ones carry them in ``inline``. ``python`` is X.Y.Z of the writer, ``origin`` the
    distribution that owns the type ("numpy 2.4.6"), None for built-in types and the user's own.
    """

    type: str
    size: int
    sha256: str
    inline: bytes | None = None
    python: str
    origin: str | None = None

    def to_json(self) -> JSONObject:
        """As a JSON object, the inverse of ``from_json``. Absent fields are left out."""
        document: JSONObject = {"type": self.type, "size": self.size, "python": self.python}
        if self.origin is not None:
            document["origin"] = self.origin
        if self.inline is None:
            document["sha256"] = self.sha256
        else:
            document["inline"] = b2a_base64(self.inline, newline=False).decode()
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> Artifact:
        """The value that ``to_json`` wrote."""
        inline = document.get("inline")
        data = None if inline is None else a2b_base64(inline)
        return cls(
            type=document["type"],
            size=document["size"],
            sha256=document["sha256"] if data is None else hashlib.sha256(data).hexdigest(),
            inline=data,
            python=document["python"],
            origin=document.get("origin"),
        )


def save(name: str, value: object, blobs: Blobs) -> Artifact:
    """Stores ``value``, known to the user as ``name``, and describes it. Raises ``UnpicklableArtifact``.

    Large buffers go from where they lie straight to the blob, hashed on the way.
    """
    from flowkiln.store.origins import origin_of, type_name  # noqa: PLC0415

    kind, origin = type_name(type(value)), origin_of(value)
    python = _python()
    with Spool(blobs) as spool:
        _encode(name, value, _header(kind, python, origin), spool)
    return Artifact(
        type=kind, size=spool.size, sha256=spool.sha256, inline=spool.inline, python=python, origin=origin
    )


def load(artifact: Artifact, blobs: Blobs, *, name: str = "") -> Any:
    """The stored value. Arrays in it are private, writable views of the blob: pages are read when touched.

    Raises ``UnreadableArtifact``, ``BlobMissing``, ``BlobDamaged`` and ``FormatTooNew``.
    """
    what = f"artifact `{name}`" if name else "the artifact"
    if artifact.inline is not None:
        return _decode(memoryview(bytearray(artifact.inline)), what)
    return _decode(memoryview(blobs.map(artifact.sha256)), what)


def same(artifact: Artifact, value: object) -> bool:
    """Whether storing ``value`` again would give the very bytes of ``artifact``: it was not changed.

    Compares by hashing the value as the artifact's writer would have written it; stores nothing. May answer
    False for an equal value, never True for another one.
    """
    from flowkiln.store.origins import type_name  # noqa: PLC0415

    if type_name(type(value)) != artifact.type:
        return False
    probe = _Probe()
    try:
        _encode("", value, _header(artifact.type, artifact.python, artifact.origin), probe)
    except UnpicklableArtifact:
        return False
    return probe.sha256 == artifact.sha256


def encode(name: str, value: object) -> bytes:
    """``value`` as bytes, in memory, for ``decode``. Raises ``UnpicklableArtifact``."""
    import io  # noqa: PLC0415

    from flowkiln.store.origins import origin_of, type_name  # noqa: PLC0415

    sink = io.BytesIO()
    _encode(name, value, _header(type_name(type(value)), _python(), origin_of(value)), sink)
    return sink.getvalue()


def decode(data: bytes | bytearray | memoryview, *, name: str = "") -> Any:
    """The value that ``encode`` was given. Raises ``UnreadableArtifact``, ``BlobDamaged``, ``FormatTooNew``."""
    what = f"value `{name}`" if name else "the value"
    return _decode(memoryview(bytearray(data)), what)


# -- writing ---------------------------------------------------------------------------------------------------


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _header(kind: str, python: str, origin: str | None) -> bytes:
    document = {"schema": ARTIFACT_SCHEMA, "codec": CODEC, "python": python, "type": kind}
    if origin is not None:
        document["origin"] = origin
    text = json.dumps(document, separators=(",", ":")).encode()
    return _HEADER.pack(_MAGIC, len(text)) + text


def _encode(name: str, value: object, header: bytes, sink: _Sink) -> None:
    buffers: list[memoryview] = []
    counted = _Counted(sink)
    counted.write(header)
    start = counted.size
    try:
        pickler_class()(counted, protocol=5, buffer_callback=_keeper(buffers)).dump(value)
    except MemoryError:
        raise
    except Exception as error:
        if counted.failed:
            raise
        raise _unpicklable(name, value, error) from error
    stream = _PAIR.pack(start, counted.size - start)
    table = bytearray()
    for buffer in buffers:
        counted.write(bytes(-counted.size % ALIGNMENT))
        table += _PAIR.pack(counted.size, buffer.nbytes)
        counted.write(buffer)
    counted.write(bytes(table))
    counted.write(stream + struct.pack("<I4s", len(buffers), _END))


def pickler_class() -> type[pickle.Pickler]:
    """The pickler for this process: arrays go through the version-neutral codec where numpy is loaded."""
    if "numpy" in sys.modules:
        from flowkiln.store.arrays import ArrayPickler  # noqa: PLC0415  only when user code has numpy

        return ArrayPickler
    return pickle.Pickler


def _keeper(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        """True = leave it in the stream."""
        raw = buffer.raw()
        if raw.nbytes < _IN_BAND:
            return True
        buffers.append(raw)
        return False

    return keep


def _unpicklable(name: str, value: object, error: BaseException) -> UnpicklableArtifact:
    from flowkiln.store.unpicklable import find  # noqa: PLC0415

    found = find(value, name or "value", error)
    message = f"artifact `{name}` cannot be stored: `{found.path}` is a {found.type}: {found.reason}"
    return UnpicklableArtifact(
        message,
        hint="Keep it in a local variable, or store what is needed to make it again.",
        data={"artifact": name, "path": found.path, "type": found.type},
    )


class _Counted:
    """Counts bytes on their way to ``sink``, and remembers whether the sink itself failed."""

    __slots__ = ("_write", "failed", "size")

    def __init__(self, sink: _Sink) -> None:
        self._write = sink.write
        self.size = 0
        self.failed = False

    def write(self, data: Any) -> int:
        try:
            self._write(data)
        except BaseException:
            self.failed = True
            raise
        count = len(data)  # bytes or a flat memoryview: pickle and raw() give nothing else
        self.size += count
        return count


class _Probe:
    """Only hashes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return len(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


# -- reading ---------------------------------------------------------------------------------------------------


def _decode(data: memoryview, what: str) -> Any:
    header = _header_of(data, what)
    stream, buffers = _parts(data, what)
    try:
        return pickle.loads(stream, buffers=buffers)
    except MemoryError:
        raise
    except Exception as error:
        raise _unreadable(what, header, error) from error


def _header_of(data: memoryview, what: str) -> JSONObject:
    try:
        magic, length = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise _damaged(what)
        text = bytes(data[_HEADER.size : _HEADER.size + length])
        return formats.document_of(text, ARTIFACT_SCHEMA, what)
    except (struct.error, ValueError) as error:
        raise _damaged(what) from error


def _parts(data: memoryview, what: str) -> tuple[memoryview, list[memoryview]]:
    end = len(data) - _TAIL.size
    if end < _HEADER.size:
        raise _damaged(what)
    start, length, count, mark = _TAIL.unpack_from(data, end)
    table = end - count * _PAIR.size
    if mark != _END or table < 0 or start + length > table:
        raise _damaged(what)
    buffers = []
    for offset, size in _PAIR.iter_unpack(data[table:end]):
        if offset + size > table:
            raise _damaged(what)
        buffers.append(data[offset : offset + size])
    return data[start : start + length], buffers


def _damaged(what: str) -> BlobDamaged:
    return BlobDamaged(f"{what} is not what was stored", hint="`flowkiln store check` lists all damage.")


def _unreadable(what: str, header: JSONObject, error: Exception) -> UnreadableArtifact:
    from flowkiln.store.origins import comparison  # noqa: PLC0415

    written, here = comparison(header.get("origin"), header["python"], error)
    reason = f"{type(error).__name__}: {error}"
    message = f"{what} ({header['type']}) cannot be read: {reason}\nIt was written with {written}; you have {here}."
    return UnreadableArtifact(
        message,
        hint="Read it in an environment that has what it was written with.",
        data={"type": header["type"], "origin": header.get("origin"), "python": header["python"]},
    )
