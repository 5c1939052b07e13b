"""ELF files as far as loading them goes: for which processor, which shared objects they need, where they look.

Pure Python, by positioned reads of a few kilobytes; nothing of a file is believed to lie inside of it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.images.evidence import MACHINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[int, int], bytes]

PROCESSORS = frozenset({*MACHINES.values(), 2, 3, 8, 20, 21, 22, 40, 43, 243, 258})
"""Numbers of processors that run programs; others are of graphics processors and virtual machines."""
_LOADED = (2, 3)
"""Types of a file that is loaded: a program, a shared object."""
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _RPATH, _RUNPATH = 1, 5, 15, 29
_MOST_HEADERS = 1000
_MOST_ENTRIES = 10_000
_LONGEST = 4096


class Elf(NamedTuple):
    """A program or shared object. ``search`` are the folders of RUNPATH, else of RPATH, as they stand there."""

    machine: int
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def of_file(path: str) -> Elf | None:
    """What the file is; None for one that is no ELF file that is loaded. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return of(lambda offset, size: os.pread(descriptor, size, offset) if offset < 1 << 62 else b"")
    finally:
        os.close(descriptor)


def of(read: Read) -> Elf | None:
    """What ``read``, which gives (offset, size) of a file, shows; None for no ELF file that is loaded.

    Only the processor is told of files of 32 bits, of the other byte order, and of damaged ones.
    """
    head = read(0, 64)
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    kind, machine = struct.unpack_from("<HH" if head[5] == 1 else ">HH", head, 16)
    if kind not in _LOADED:
        return None
    if head[4] != 2 or head[5] != 1 or len(head) < 64:
        return Elf(machine)
    try:
        return _dynamic(machine, head, read)
    except (struct.error, UnicodeDecodeError):
        return Elf(machine)


def _dynamic(machine: int, head: bytes, read: Read) -> Elf:
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if size < 56 or count > _MOST_HEADERS:
        return Elf(machine)
    table = read(offset, size * count)
    loads: list[tuple[int, int, int]] = []
    place = None
    for number in range(count):
        kind, _, where, address, _, length = struct.unpack_from("<IIQQQQ", table, number * size)
        if kind == _LOAD:
            loads.append((address, where, length))
        elif kind == _DYNAMIC:
            place = where, length
    if place is None:
        return Elf(machine)
    entries = list(_entries(read(place[0], min(place[1], 16 * _MOST_ENTRIES))))
    strings = next((value for tag, value in entries if tag == _STRINGS), 0)
    base = next(
        (where + strings - address for address, where, n in loads if address <= strings < address + n), None
    )
    if base is None:
        return Elf(machine)

    def texts(tag: int) -> list[str]:
        return [_text(read(base + value, _LONGEST)) for found, value in entries if found == tag]

    search = texts(_RUNPATH) or texts(_RPATH)
    folders = tuple(one for text in search for one in text.split(":") if one)
    return Elf(machine, tuple(texts(_NEEDED)), folders)


def _entries(data: bytes) -> Iterator[tuple[int, int]]:
    for start in range(0, len(data) - 15, 16):
        tag, value = struct.unpack_from("<QQ", data, start)
        if not tag:
            return
        yield tag, value


def _text(data: bytes) -> str:
    text, end, _ = data.partition(b"\0")
    if not end:
        message = "a name has no end"
        raise struct.error(message)
    return text.decode()
