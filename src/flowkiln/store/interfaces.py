"""What a store offers, whatever holds it: records created once and blobs by content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self


class Records(Protocol):
    """Small documents by key. A reader sees a whole record or none."""

    def create(self, key: str, data: bytes) -> bool:
        """Stores ``data`` unless the key exists; True when this call made it."""

    def read(self, key: str) -> bytes | None:
        """The record, None when there is none. Raises ``RecordDamaged``."""

    def write(self, key: str, data: bytes) -> None:
        """Stores ``data``, replacing what was there."""

    def names(self, prefix: str) -> list[str]:
        """The names right below ``prefix``, sorted."""

    def exists(self, key: str) -> bool:
        """Whether there is such a record."""

    def delete(self, key: str) -> None:
        """Removes a record. Absent is fine."""

    def sync(self, keys: Iterable[str]) -> None:
        """Returns once these records, or blobs by ``keys.blob``, would survive a power loss."""


class BlobWriter(Protocol):
    """Bytes on their way into a blob, used as a context manager; an exception inside leaves nothing behind."""

    sha256: str
    """64 hex digits, known after the block has ended."""
    size: int
    """Bytes written so far."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Adds all of ``data`` and returns its length in bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Blobs(Protocol):
    """Bytes by the 64 hex digits of their sha256. Storing the same bytes again changes nothing."""

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Stores ``data`` and returns its sha256."""

    def put_stream(self) -> BlobWriter:
        """A writer that hashes while it writes."""

    def put_file(self, path: str) -> str:
        """Stores a file's content and returns its sha256."""

    def read(self, sha256: str) -> bytes:
        """All of a blob. Raises ``BlobMissing``."""

    def read_range(self, sha256: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``. Raises ``BlobMissing`` and ``BlobDamaged``."""

    def map(self, sha256: str) -> mmap.mmap:
        """A private copy-on-write mapping of a blob that is not empty. Raises ``BlobMissing``."""

    def has(self, sha256: str) -> bool:
        """Whether the blob is there."""
