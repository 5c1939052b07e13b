"""Bytes that stay in their record while they are few and become a blob when they are many."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from flowkiln.store.interfaces import Blobs, BlobWriter

INLINE_LIMIT = 4096
"""Values of at most this many bytes travel inside their record."""


class Spool:
    """A writer, used as a context manager: ``inline`` afterwards holds the bytes, or None when they are a blob.

    ``size`` counts what was written so far; ``sha256`` (hex) is known after the block.
    """

    def __init__(self, blobs: Blobs, limit: int = INLINE_LIMIT) -> None:
        self.sha256 = ""
        self.size = 0
        self.inline: bytes | None = None
        self._blobs = blobs
        self._limit = limit
        self._head = bytearray()
        self._stream: BlobWriter | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Adds ``data``, flat bytes, and returns its length."""
        count = len(data)
        if self._stream is None and self.size + count > self._limit:
            self._stream = self._blobs.put_stream()
            self._stream.__enter__()
            self._stream.write(self._head)
        if self._stream is None:
            self._head += data
        else:
            self._stream.write(data)
        self.size += count
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.__exit__(kind, error, trace)
            self.sha256 = self._stream.sha256
        else:
            self.inline = bytes(self._head)
            self.sha256 = hashlib.sha256(self.inline).hexdigest()
