"""Archives of source trees: uncompressed tar, the same bytes for the same files on every machine."""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from flowkiln.envs.directerrors import LinkLeaves, SourceTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TOP = "source"
"""The archive's only folder."""
MOST_FILES = 50_000
MOST_BYTES = 1 << 30
_TIME = 315532800
"""1980-01-01: the first time that zip files, and so wheels, can hold."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source tree: its path with ``/``, its size in bytes; ``link`` is what a symbolic link holds."""

    path: str
    size: int
    executable: bool = False
    link: str | None = None


class Hashed:
    """A stream that hands on what is written to it, if to anyone, and keeps its sha256 and size."""

    def __init__(self, target: IO[bytes] | None = None) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Takes ``data``; the number of its bytes."""
        self._hash.update(data)
        self.size += len(data)
        if self._target is not None:
            self._target.write(data)
        return len(data)

    def hexdigest(self) -> str:
        """The sha256 of what was written."""
        return self._hash.hexdigest()


def write(
    files: Iterable[tuple[SourceFile, Callable[[], bytes]]], target: IO[bytes] | None = None
) -> tuple[str, int]:
    """The sha256 and the size of the archive of ``files``, which come sorted; written to ``target``, if any."""
    stream = Hashed(target)
    writable = cast("IO[bytes]", stream)  # a tar stream asks for nothing but ``write``
    with tarfile.open(fileobj=writable, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for file, read in files:
            member = tarfile.TarInfo(f"{TOP}/{file.path}")
            member.mtime = _TIME
            if file.link is not None:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, file.link, 0o777
                archive.addfile(member)
                continue
            data = read()
            member.size, member.mode = len(data), 0o755 if file.executable else 0o644
            archive.addfile(member, io.BytesIO(data))
    return stream.hexdigest(), stream.size


def check(files: Sequence[SourceFile], label: str) -> None:
    """Nothing when the files can be an archive. Raises ``SourceTooLarge`` and ``LinkLeaves``."""
    size = sum(file.size for file in files)
    if len(files) > MOST_FILES or size > MOST_BYTES:
        message = f"{label} holds {len(files)} files of {size >> 20} MiB in all, more than {MOST_FILES} or "
        raise SourceTooLarge(f"{message}{MOST_BYTES >> 20} MiB", data={"files": len(files), "bytes": size})
    for file in files:
        if file.link is None:
            continue
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), file.link))
        if file.link.startswith("/") or whole == ".." or whole.startswith("../"):
            raise LinkLeaves(f"{label}: the link {file.path!r} leads to {file.link!r}, which is outside of it")
