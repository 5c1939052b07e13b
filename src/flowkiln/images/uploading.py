"""The blobs of one image on their way to a repository."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from flowkiln._base.report import Phase
    from flowkiln.images.oci import Descriptor, Document
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry


class Upload:
    """Uploads what ``repository`` lacks; threads may share it. ``moved`` counts the bytes that went.

    ``others`` are repositories of the same registry that may hold layers of ours.
    """

    def __init__(
        self,
        repository: Reference,
        registries: Callable[[str], Registry],
        phase: Phase,
        others: Sequence[str] = (),
    ) -> None:
        self._place = repository
        self._registries = registries
        self._registry = registries(repository.host)
        self._phase = phase
        self._others = others
        self._lock = threading.Lock()
        self.moved = 0

    def layer(self, blob: tuple[str, int], made: Callable[[], Path], title: str) -> None:
        """Uploads the layer that is ``blob``, (digest, size), unless it is there; only then ``made`` makes it."""
        digest, size = blob
        repository = self._place.repository
        if self._registry.has_blob(repository, digest) or any(
            self._registry.mount(repository, digest, other) for other in self._others
        ):
            self._advance(size, title)
            return
        path = made()
        self._put(digest, size, lambda: path.open("rb"), lambda amount: self._advance(amount, title))

    def base_layer(self, source: Reference, one: Descriptor) -> None:
        """Mounts a layer of the base from ``source``, its own repository, or streams it through."""
        repository = self._place.repository
        if self._registry.has_blob(repository, one.digest):
            return
        if source.host == self._place.host and self._registry.mount(repository, one.digest, source.repository):
            return
        theirs = self._registries(source.host)
        self._put(
            one.digest, one.size, lambda: cast("BinaryIO", _Reading(theirs.blob(source.repository, one.digest)))
        )

    def document(self, document: Document) -> None:
        """Uploads a config."""
        if not self._registry.has_blob(self._place.repository, document.digest):
            self._put(document.digest, len(document.data), lambda: io.BytesIO(document.data))

    def _put(
        self,
        digest: str,
        size: int,
        opened: Callable[[], BinaryIO],
        advance: Callable[[int], None] = lambda _amount: None,
    ) -> None:
        self._registry.put_blob(self._place.repository, digest, size, opened, advance=advance)
        with self._lock:
            self.moved += size

    def _advance(self, amount: int, item: str) -> None:
        with self._lock:
            self._phase.advance(amount, item=item)


class _Reading(io.BufferedIOBase):
    """An iterator of bytes as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        parts, have = [self._rest], len(self._rest)
        wanted = -1 if size is None else size
        while wanted < 0 or have < wanted:
            block = next(self._chunks, b"")
            if not block:
                break
            parts.append(block)
            have += len(block)
        data = b"".join(parts)
        end = len(data) if wanted < 0 else wanted
        self._rest = data[end:]
        return data[:end]
