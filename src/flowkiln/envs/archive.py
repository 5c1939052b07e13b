"""The members of a wheel's zip, checked before a byte is written, and their bytes.

A zip is read by its central directory alone, and every local header must tell the same name, so that no two
readers see two different archives.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.envs.installerrors import HostileWheel, WheelUnreadable
from flowkiln.envs.names import check_path, collision_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCAL_HEADER = struct.Struct("<4s5HIII2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_BLOCK = 1 << 20
_SLICE = 1 << 18


class Member(NamedTuple):
    """One file of the archive. ``offset`` is its local header's, sizes are in bytes."""

    path: str
    offset: int
    deflated: bool
    packed: int
    size: int
    executable: bool


class Archive:
    """An open wheel: ``members`` sorted by path, and their bytes. Threads may share it."""

    def __init__(self, name: str, data: mmap.mmap, members: tuple[Member, ...]) -> None:
        self.name = name
        self.members = members
        self._data = data

    def read(self, member: Member) -> bytes:
        """The bytes of ``member``. Raises HostileWheel, WheelUnreadable."""
        return b"".join(self.blocks(member))

    def write(self, member: Member, path: Path) -> str:
        """Writes ``member`` to a new file, read-only, and returns the sha256 of what it wrote (hex)."""
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for block in self.blocks(member):
                digest.update(block)
                _write_all(descriptor, block)
            # Set at the end and without regard to the umask: equal for every user.
            os.fchmod(descriptor, 0o555 if member.executable else 0o444)
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def blocks(self, member: Member) -> Iterator[bytes]:
        """The bytes of ``member`` in blocks, never more of them than it declares."""
        start = self._start(member)
        packed = memoryview(self._data)[start : start + member.packed]
        try:
            if member.deflated:
                yield from self._inflate(member, packed)
            elif member.packed != member.size:
                raise self._lies(member)
            else:
                for position in range(0, member.size, _BLOCK):
                    yield bytes(packed[position : position + _BLOCK])
        finally:
            packed.release()

    def _start(self, member: Member) -> int:
        header = self._data[member.offset : member.offset + _LOCAL_HEADER.size]
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            message = f"{self.name}: damaged: no header before {member.path!r}"
            raise WheelUnreadable(message)
        fields = _LOCAL_HEADER.unpack(header)
        name_start = member.offset + _LOCAL_HEADER.size
        start = name_start + int(fields[9]) + int(fields[10])
        local = self._data[name_start : name_start + int(fields[9])]
        if local.decode("utf-8" if int(fields[2]) & 0x800 else "cp437", "replace") != member.path:
            message = f"{self.name}: the archive has two names for {member.path!r}"
            raise HostileWheel(message)
        if start + member.packed > len(self._data):
            message = f"{self.name}: cut off inside {member.path!r}"
            raise WheelUnreadable(message)
        return start

    def _inflate(self, member: Member, packed: memoryview) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left = member.size
        try:
            # In slices: what a call leaves unread is copied, and of a whole wheel that would be gigabytes.
            for position in range(0, max(member.packed, 1), _SLICE):
                feed: bytes | memoryview = packed[position : position + _SLICE]
                while feed and not inflater.eof:
                    block = inflater.decompress(feed, left + 1 if left < _BLOCK else _BLOCK)
                    feed = inflater.unconsumed_tail
                    left -= len(block)
                    if left < 0:
                        raise self._lies(member)
                    if block:
                        yield block
        except zlib.error as error:
            message = f"{self.name}: damaged at {member.path!r}: {error}"
            raise WheelUnreadable(message) from error
        if left or not inflater.eof:
            raise self._lies(member)

    def _lies(self, member: Member) -> HostileWheel:
        return HostileWheel(f"{self.name}: {member.path!r} does not unpack to the {member.size} bytes it declares")


@contextmanager
def opened(path: Path, name: str) -> Iterator[Archive]:
    """The wheel at ``path``, all its members checked; ``name`` is what messages call it.

    Raises HostileWheel for members no wheel may hold and WheelUnreadable for what is no readable zip.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
            message = f"{name}: not a readable zip: {error}"
            raise WheelUnreadable(message) from error
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Archive(name, data, _checked(name, infos))


def _checked(name: str, infos: list[zipfile.ZipInfo]) -> tuple[Member, ...]:
    members: list[Member] = []
    seen: dict[str, str] = {}
    for info in infos:
        told = info.orig_filename

        def refuse(reason: str, told: str = told) -> HostileWheel:
            return HostileWheel(f"{name}: {told!r}: {reason}", data={"wheel": name, "member": told})

        check_path(told.removesuffix("/"), refuse)
        _check_kind(info, refuse)
        if told.endswith("/"):
            continue
        key = collision_key(told)
        if key in seen:
            twice = seen[key] == told
            raise refuse("twice in the archive" if twice else f"differs only in case from {seen[key]!r}")
        seen[key] = told
        if info.flag_bits & _ENCRYPTED:
            message = f"{name}: {told!r} is encrypted"
            raise WheelUnreadable(message)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            message = f"{name}: {told!r} is compressed in a way that wheels do not use ({info.compress_type})"
            raise WheelUnreadable(message)
        members.append(_member(info))
    _check_layout(name, members, seen)
    return tuple(sorted(members))


def _check_kind(info: zipfile.ZipInfo, refuse: Callable[[str], HostileWheel]) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise refuse("a link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse("neither a file nor a folder")
    if info.orig_filename.endswith("/") and info.file_size:
        raise refuse("a folder with content")


def _check_layout(name: str, members: list[Member], seen: dict[str, str]) -> None:
    """No file stands where another needs a folder, and no two share their bytes (a bomb folded onto itself)."""
    for key, told in seen.items():
        parent = key.rpartition("/")[0]
        while parent:
            if parent in seen:
                message = f"{name}: {seen[parent]!r} is a file and the folder of {told!r}"
                raise HostileWheel(message)
            parent = parent.rpartition("/")[0]
    end = 0
    for member in sorted(members, key=lambda member: member.offset):
        if member.offset < end:
            message = f"{name}: {member.path!r} overlaps another member"
            raise HostileWheel(message)
        end = member.offset + _LOCAL_HEADER.size + member.packed


def _member(info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    return Member(
        info.orig_filename,
        info.header_offset,
        info.compress_type == zipfile.ZIP_DEFLATED,
        info.compress_size,
        info.file_size,
        bool(mode & 0o111) and stat.S_IFMT(mode) in (0, stat.S_IFREG),
    )


def _write_all(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]
