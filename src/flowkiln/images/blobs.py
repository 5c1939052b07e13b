"""Compressed layers that were made here, by digest: what a cut push goes on with. All of them can be made again."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from flowkiln._base import digests, files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


class Blobs:
    """The layers of one cache folder: ``<cache>/images/blobs/<aa>/<digest>``."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "images" / "blobs"

    def path(self, digest: str) -> Path:
        """Where a blob lies, present or not."""
        name = digests.hexdigits(digest)
        return self.root / name[:2] / name

    def find(self, digest: str, size: int) -> Path | None:
        """The blob if it is here and whole."""
        path = self.path(digest)
        try:
            if path.stat().st_size != size:
                return None
            os.utime(path)  # used now, for garbage collection
        except OSError:
            return None
        return path

    @contextmanager
    def writing(self) -> Iterator[Scratch]:
        """A file to write a new blob to; ``Scratch.keep`` gives it its name, otherwise it is gone afterwards."""
        with files.disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            path = self.root / f".scratch-{os.getpid()}-{os.urandom(6).hex()}"
            try:
                with path.open("xb") as stream:
                    yield Scratch(self, path, stream)
            finally:
                path.unlink(missing_ok=True)


class Scratch:
    """A blob that is being written."""

    def __init__(self, blobs: Blobs, path: Path, stream: BinaryIO) -> None:
        self._blobs = blobs
        self._path = path
        self.write = stream.write
        self._stream = stream

    def keep(self, digest: str) -> Path:
        """Gives the file the name of its digest, and returns its path."""
        self._stream.flush()
        target = self._blobs.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self._path.replace(target)
        return target
