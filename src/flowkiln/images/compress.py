"""Compression of layers, the same bytes on every machine.

gzip by libdeflate in members of a fixed size with a fixed header; zstd in one frame by one thread. Both libraries
are pinned exactly, because their version decides the bytes; the host's zlib is never used, and neither is isa-l,
whose output depends on the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import deflate
import zstandard

from flowkiln.images import oci

if TYPE_CHECKING:
    from flowkiln.images.archive import Sink

Compression = Literal["gzip", "zstd"]
MEDIA_TYPES: dict[str, str] = {"gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}
_MEMBER = 1 << 20
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    """A sink that gives what it takes, compressed, to another one."""

    def __call__(self, data: bytes) -> None:
        """Takes ``data``."""

    def finish(self) -> None:
        """Gives the rest on."""


def compressor(kind: Compression, sink: Sink) -> Compressor:
    """A compressor of that kind in front of ``sink``."""
    return _Gzip(sink) if kind == "gzip" else _Zstd(sink)


class _Gzip:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting = bytearray()

    def __call__(self, data: bytes) -> None:
        self._waiting += data
        start = 0
        while len(self._waiting) - start >= _MEMBER:
            self._member(bytes(self._waiting[start : start + _MEMBER]))
            start += _MEMBER
        del self._waiting[:start]

    def finish(self) -> None:
        if self._waiting:
            self._member(bytes(self._waiting))

    def _member(self, data: bytes) -> None:
        self._sink(bytes(deflate.gzip_compress(data, _GZIP_LEVEL)))


class _Zstd:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        options = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=0, write_checksum=False)
        self._stream = options.compressobj()

    def __call__(self, data: bytes) -> None:
        out = self._stream.compress(data)
        if out:
            self._sink(out)

    def finish(self) -> None:
        self._sink(self._stream.flush())
