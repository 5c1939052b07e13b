"""Logs of an attempt: lines with their time and stream, inline in its outcome while they are few.

Stored as text, one line each: microseconds since the epoch, ``o`` or ``e`` for stdout or stderr, the line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from flowkiln.store import formats
from flowkiln.store.errors import BlobDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Blobs

LOG_SCHEMA = 1
INLINE_LIMIT = 16 * 1024
MOST_BYTES = 1 << 30
_PIECE = 1 << 20

Stream = Literal["stdout", "stderr"]


class LogLine(NamedTuple):
    """One line that a step printed, without its line end. ``at_us`` counts microseconds since the epoch."""

    at_us: int
    stream: Stream
    text: str


class LogWriter:
    """Collects the lines of one attempt: up to 64 KiB in memory, the rest in the file ``spill``.

    More than ``limit`` bytes are not kept; the lines left out are counted.
    """

    def __init__(self, spill: Path, *, limit: int = MOST_BYTES) -> None:
        self.lines = 0
        self._spill = Path(spill)
        self._limit = limit
        self._file: BinaryIO | None = None
        self._memory = bytearray()
        self._size = 0
        self._dropped = 0

    def append(self, line: LogLine) -> None:
        """Keeps ``line``; a line feed inside it begins another line of the same time."""
        mark = "o" if line.stream == "stdout" else "e"
        for text in line.text.split("\n"):
            data = f"{line.at_us} {mark} {text}\n".encode(errors="backslashreplace")
            if self._dropped or self._size + len(data) > self._limit:
                self._dropped += 1
                continue
            self.lines += 1
            self._size += len(data)
            self._memory += data
        if len(self._memory) > 4 * INLINE_LIMIT:
            self._flush()

    def expose(self) -> None:
        """Lets others read all lines so far from ``spill``, and marks the file as in use."""
        if self._memory:
            self._flush()
        elif self._file is not None:
            os.utime(self._spill)

    def finish(self, blobs: Blobs, *, incomplete: bool = False) -> JSONObject:
        """The document of these logs; ``spill`` is gone afterwards.

        ``incomplete`` marks that a process may have gone on printing after the attempt's end. ``truncated``
        in the document counts the lines left out.
        """
        document: JSONObject = {"schema": LOG_SCHEMA, "lines": self.lines, "size": self._size}
        if self._size <= INLINE_LIMIT:
            exposed = b"" if self._file is None else self._spill.read_bytes()
            document["inline"] = (exposed + self._memory).decode()
        elif self._file is None:
            document["sha256"] = blobs.put(bytes(self._memory))
        else:
            self._flush()
            document["sha256"] = blobs.put_file(str(self._spill))
        if incomplete:
            document["incomplete"] = True
        if self._dropped:
            document["truncated"] = self._dropped
        self.discard()
        return document

    def discard(self) -> None:
        """Forgets the lines and removes ``spill``. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._spill.unlink(missing_ok=True)
        self._memory.clear()

    def _flush(self) -> None:
        if self._file is None:
            self._spill.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._spill.open("wb")
        self._file.write(self._memory)
        self._file.flush()
        self._memory.clear()


def read(document: JSONObject, blobs: Blobs) -> Iterator[LogLine]:
    """The lines of a document that ``finish`` made, in order, read in pieces of 1 MiB; none for ``{}``.

    Raises ``BlobMissing``, ``BlobDamaged`` and ``FormatTooNew``.
    """
    if not document:
        return
    formats.expect(document, LOG_SCHEMA, "the log")
    rest = b""
    for piece in _pieces(document, blobs):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield _line(line)


def read_spill(path: Path) -> Iterator[LogLine]:
    """The whole lines in the spill file of an attempt that still runs; none when there is no such file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n")[:-1]:
        yield _line(line)


def salvage(path: Path, blobs: Blobs) -> JSONObject:
    """The document of the lines that a launcher which was killed left in the spill file; ``{}`` when there is none.

    It is marked as incomplete. The spill file stays.
    """
    writer = LogWriter(path.with_name(f"{path.name}.{os.getpid()}"))
    try:
        for line in read_spill(path):
            writer.append(line)
        return writer.finish(blobs, incomplete=True) if writer.lines else {}
    finally:
        writer.discard()


def _pieces(document: JSONObject, blobs: Blobs) -> Iterator[bytes]:
    if "inline" in document:
        yield document["inline"].encode()
        return
    size = document["size"]
    for start in range(0, size, _PIECE):
        yield blobs.read_range(document["sha256"], start, min(_PIECE, size - start))


def _line(data: bytes) -> LogLine:
    at, _, rest = data.decode(errors="replace").partition(" ")
    mark, _, text = rest.partition(" ")
    if not at.isdecimal() or mark not in ("o", "e"):
        raise BlobDamaged("a stored log is not what was written", hint="`flowkiln store check` lists all damage.")
    return LogLine(int(at), "stdout" if mark == "o" else "stderr", text)
