"""The archives of layers, decompressed as they come: gzip, zstd and plain, told apart by their first bytes.

What a layer claims of its compression is not believed: registries and tools have been seen to claim the wrong one.
"""

from __future__ import annotations

import io
import itertools
import zlib
from typing import TYPE_CHECKING, cast

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"
"""What follows the first byte, 0x50 to 0x5f, of a zstd frame without content."""
_PIECE = 1 << 18
_WINDOW = 1 << 27


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes that ``chunks`` are the compressed form of, in pieces of a bounded size.

    All of ``chunks`` is taken. Raises ``ValueError`` for a stream that is damaged, and for gzip that ends early; of
    zstd that does, only the archive in it can tell.
    """
    source = iter(chunks)
    head = b""
    while len(head) < len(_ZSTD) and (block := next(source, None)) is not None:
        head += block
    whole = itertools.chain((head,), source)
    if head.startswith(_GZIP):
        yield from _gzip(whole)
    elif head.startswith(_ZSTD) or (head[:1] in b"PQRSTUVWXYZ[\\]^_" and head[1:4] == _SKIPPABLE):
        yield from _zstd(whole)
    else:
        yield from (block for block in whole if block)


def _gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(31)
    ended = False
    for chunk in chunks:
        data = chunk
        while data:
            if ended:
                if not data.strip(b"\0"):  # padding, as some writers leave behind the last member
                    break
                member, ended = zlib.decompressobj(31), False
            while True:
                try:
                    out = member.decompress(data, _PIECE)
                except zlib.error as error:
                    message = f"its gzip is damaged: {error}"
                    raise ValueError(message) from error
                if out:
                    yield out
                data = member.unconsumed_tail  # at a member's end it may hold what ``unused_data`` holds
                if member.eof or (len(out) < _PIECE and not data):
                    break
            ended, data = member.eof, member.unused_data
    if not ended:
        message = "its gzip ends early"
        raise ValueError(message)


def _zstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    source = cast("IO[bytes]", Chunks(chunks))
    with decompressor.stream_reader(source, read_across_frames=True) as stream:
        empty = True
        while True:
            try:
                out = stream.read(_PIECE)
            except zstandard.ZstdError as error:
                message = f"its zstd is damaged: {error}"
                raise ValueError(message) from error
            if not out:
                break
            empty = False
            yield out
    if empty:  # no archive is empty, and a frame that was cut off gives nothing and no error
        message = "its zstd holds nothing"
        raise ValueError(message)


class Chunks(io.RawIOBase):
    """Chunks of bytes as a file that is read once; a read gives what is at hand, at most what is asked for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to read; waits for a byte."""
        while not self._rest:
            block = next(self._chunks, None)
            if block is None:
                return True
            self._rest = memoryview(block)
        return False

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes; none at the end alone."""
        if self.ended:
            return b""
        found = self._rest[:size] if size >= 0 else self._rest
        self._rest = self._rest[len(found) :]
        return bytes(found)
