"""Deterministic tar archives: POSIX ustar, pax records only where ustar has no room.

Written here and not by ``tarfile``, because a layer's digest must not depend on the Python that made it. Owners,
times and the order of fields are fixed; a path that is long or not ASCII gets a pax record (POSIX.1-2001).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from flowkiln.images.errors import ContentDamaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Sink = Callable[[bytes], object]

TIME = 315_532_800
"""The time of every member, 1980-01-01: the earliest that zip archives can hold, for steps that make some."""
_BLOCK = 512
_RECORD = 20 * _BLOCK
_READ = 1 << 20
_BATCH = 1 << 18
_OCTAL_SIZE = 8 << 30
_TYPES = {"file": b"0", "link": b"2", "folder": b"5"}

Kind = Literal["file", "link", "folder"]


class Member(NamedTuple):
    """One entry of a layer. ``path`` has no leading slash, a folder's no trailing one; ``size`` is in bytes.

    ``source`` of a file is its content, or the path of a file that holds it with ``sha256`` (hex) as what it must
    be; of a link it is the target.
    """

    path: str
    kind: Kind
    mode: int
    size: int
    source: bytes | str
    sha256: str = ""


def folder(path: str) -> Member:
    """A folder's entry."""
    return Member(path, "folder", 0o755, 0, b"")


def made(path: str, data: bytes, mode: int = 0o444) -> Member:
    """The entry of a file with ``data``."""
    return Member(path, "file", mode, len(data), data)


def link(path: str, target: str) -> Member:
    """The entry of a symbolic link."""
    return Member(path, "link", 0o777, 0, target)


def complete(members: Iterable[Member]) -> list[Member]:
    """``members`` in order of their paths, with an entry for every folder above them."""
    found = {member.path: member for member in members}
    for path in list(found):
        above = path.rpartition("/")[0]
        while above and above not in found:
            found[above] = folder(above)
            above = above.rpartition("/")[0]
    return [found[path] for path in sorted(found)]


def write(members: Sequence[Member], sink: Sink) -> None:
    """Gives the archive of ``members`` to ``sink`` in pieces of about 256 KiB and more.

    Raises ``ContentDamaged`` for a file that is not what its member says, and ``OSError``.
    """
    batch: list[bytes] = []
    waiting = written = 0
    for piece in _pieces(members):
        batch.append(piece)
        waiting += len(piece)
        if waiting >= _BATCH:
            sink(b"".join(batch))
            written += waiting
            batch, waiting = [], 0
    end = 2 * _BLOCK
    end += -(written + waiting + end) % _RECORD
    sink(b"".join([*batch, bytes(end)]))


def _pieces(members: Sequence[Member]) -> Iterator[bytes]:
    for member in members:
        yield _header(member)
        if member.kind != "file":
            continue
        if isinstance(member.source, bytes):
            yield member.source
        else:
            yield from _content(member)
        if member.size % _BLOCK:
            yield bytes(-member.size % _BLOCK)


def _content(member: Member) -> Iterator[bytes]:
    """The content of a file, read once; what was read is held against its digest after the last byte."""
    assert isinstance(member.source, str)
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(member.source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ContentDamaged(member.source) from error
    try:
        while block := os.read(descriptor, _READ):
            size += len(block)
            if size > member.size:
                break
            digest.update(block)
            yield block
    finally:
        os.close(descriptor)
    if size != member.size or digest.hexdigest() != member.sha256:
        raise ContentDamaged(member.source)


def _header(member: Member) -> bytes:
    path = member.path + "/" if member.kind == "folder" else member.path
    name = os.fsencode(path)
    target = os.fsencode(member.source) if member.kind == "link" and isinstance(member.source, str) else b""
    prefix, name, records = _placed(name)
    if len(target) > 100 or not target.isascii():
        records["linkpath"] = target
        target = target[:100]
    if member.size >= _OCTAL_SIZE:
        records["size"] = str(member.size).encode()
    size = min(member.size, _OCTAL_SIZE - 1)
    own = _block(name, member.mode, size, _TYPES[member.kind], target, prefix)
    if not records:
        return own
    body = b"".join(_pax(key, value) for key, value in sorted(records.items()))
    padded = body + bytes(-len(body) % _BLOCK)
    return _block(b"././@PaxHeader", 0o644, len(body), b"x", b"", b"") + padded + own


def _placed(name: bytes) -> tuple[bytes, bytes, dict[str, bytes]]:
    """Prefix and name of the header, and the pax records that they need."""
    if not name.isascii():
        return b"", name[:100], {"path": name}
    if len(name) <= 100:
        return b"", name, {}
    cut = name.rfind(b"/", 0, 156)
    if cut > 0 and 0 < len(name) - cut - 1 <= 100:
        return name[:cut], name[cut + 1 :], {}
    return b"", name[:100], {"path": name}


def _pax(key: str, value: bytes) -> bytes:
    """One pax record: its own length in decimal, counted in, then ``key=value``."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _block(name: bytes, mode: int, size: int, kind: bytes, target: bytes, prefix: bytes) -> bytes:
    head = name.ljust(100, b"\0") + b"%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00" % (mode, 0, 0, size, TIME)
    tail = kind + target.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00"
    tail += prefix.ljust(155, b"\0") + bytes(12)
    checksum = sum(head) + 8 * 32 + sum(tail)
    return head + b"%06o\x00 " % checksum + tail


class Measure:
    """A sink that keeps nothing but the sha256 and the number of bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()

    def __call__(self, data: bytes) -> None:
        """Takes ``data``."""
        self._digest.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """``sha256:...`` of what was taken."""
        return "sha256:" + self._digest.hexdigest()
