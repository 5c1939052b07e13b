"""ELF files that name what they need and where they look, for tests."""

from __future__ import annotations

import struct

AMD64, ARM64, I386, CUDA = 62, 183, 3, 190
_HEAD, _HEADERS, _ADDRESS = 64, 2 * 56, 0x400000


def shared(
    *needed: str, machine: int = AMD64, runpath: str | None = None, rpath: str | None = None, kind: int = 3
) -> bytes:
    """A shared object of 64 bits, mapped elsewhere than it lies."""
    strings = b"\0"
    entries: list[tuple[int, int]] = []
    tagged = [(1, name) for name in needed]
    tagged += [(tag, text) for tag, text in ((29, runpath), (15, rpath)) if text is not None]
    for tag, text in tagged:
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    start = _HEAD + _HEADERS
    entries += [(5, _ADDRESS + start), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = start + len(strings) + len(dynamic)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, _HEAD, 0, 0, _HEAD, 56, 2, 0, 0, 0)
    headers = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    at = start + len(strings)
    headers += struct.pack("<IIQQQQQQ", 2, 6, at, _ADDRESS + at, _ADDRESS + at, len(dynamic), len(dynamic), 8)
    return head + headers + strings + dynamic


def old(machine: int = I386, *, little: bool = True) -> bytes:
    """A shared object of 32 bits."""
    order = "<" if little else ">"
    head = b"\x7fELF" + bytes([1, 1 if little else 2, 1]) + bytes(9)
    return head + struct.pack(f"{order}HHI", 3, machine, 1) + bytes(40)
