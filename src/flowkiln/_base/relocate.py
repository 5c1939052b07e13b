"""Prefixes inside files: the placeholder that a conda package was built with, written as a real prefix, and back.

In a text every occurrence is replaced. In a binary file it is replaced within its NUL-terminated string, which is
padded with NULs to the length that it had, so that nothing else in the file moves. As conda does, a prefix is also
looked for in the wide encodings. Whoever writes a file keeps the offsets of what was replaced: with them the stored
bytes come back exactly, even where the same prefix stands in a file by itself, so that what is on disk can be held
against the hash of what was packed, whatever the prefix.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["text", "binary"]
Offsets = list[list[int]]
"""Where the prefix was written, a list for each of ``ENCODINGS``; empty ones at the end are left out."""
Rewritten = tuple[Kind, str, Offsets]
"""How the prefix came into a file: the kind of file, the placeholder that it stands for, where."""
ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


class PrefixTooLong(ValueError):
    """A prefix does not fit into the place of the placeholder."""


def written(data: bytes, placeholder: str, prefix: str, kind: Kind) -> tuple[bytes, Offsets]:
    """``data`` with ``prefix`` for ``placeholder``, and the offsets at which the prefix now stands for it.

    Raises ``PrefixTooLong`` for a binary file.
    """
    if kind == "binary" and len(prefix.encode()) > len(placeholder.encode()):
        message = f"{prefix} has {len(prefix.encode())} bytes; there is room for {len(placeholder.encode())}"
        raise PrefixTooLong(message)
    found: Offsets = []
    for encoding in ENCODINGS:
        old, new = placeholder.encode(encoding), prefix.encode(encoding)
        data, offsets = _written(data, old, new, len("\0".encode(encoding)) if kind == "binary" else 0)
        found.append(offsets)
    while found and not found[-1]:
        found.pop()
    return data, found


def restored(
    data: bytes, offsets: Sequence[Sequence[int]], placeholder: str, prefix: str, kind: Kind
) -> bytes | None:
    """The stored bytes of what ``written`` made; None where ``data`` is not what it can have made."""
    found: bytes | None = data
    for encoding, places in reversed(list(zip(ENCODINGS, offsets, strict=False))):
        old, new = placeholder.encode(encoding), prefix.encode(encoding)
        zeros = len("\0".encode(encoding)) if kind == "binary" else 0
        found = None if found is None else _restored(found, places, old, new, zeros)
    return found


def stored_sha256(data: bytes, prefix: str, how: Rewritten) -> str:
    """The sha256 of the stored bytes that ``data`` was made of; "" where it is not what can have been made."""
    kind, placeholder, offsets = how
    found = restored(data, offsets, placeholder, prefix, kind)
    return "" if found is None else hashlib.sha256(found).hexdigest()


def _written(data: bytes, old: bytes, new: bytes, zeros: int) -> tuple[bytes, list[int]]:
    """One encoding. ``zeros`` are the bytes of the NUL that ends a string, 0 for a text."""
    parts: list[bytes] = []
    offsets: list[int] = []
    done = length = 0
    while (found := data.find(old, done)) >= 0:
        end = _end(data, found, zeros) if zeros else found + len(old)
        pieces = data[found:end].split(old)
        parts.append(data[done:found])
        length += found - done
        for number, piece in enumerate(pieces):
            if number:
                offsets.append(length)
                length += len(new)
            length += len(piece)
        parts.append(new.join(pieces))
        if zeros:
            padding = (len(pieces) - 1) * (len(old) - len(new))
            parts.append(bytes(padding))
            length += padding
        done = end
    return b"".join([*parts, data[done:]]) if offsets else data, offsets


def _restored(data: bytes, offsets: Sequence[int], old: bytes, new: bytes, zeros: int) -> bytes | None:
    parts: list[bytes] = []
    done = owed = 0
    for number, offset in enumerate(offsets):
        if offset < done or data[offset : offset + len(new)] != new:
            return None
        parts += [data[done:offset], old]
        done = offset + len(new)
        owed += len(old) - len(new)
        if zeros and owed:
            end = _end(data, done, zeros)
            if number + 1 < len(offsets) and offsets[number + 1] < end:
                continue  # another one in the same string: the padding is behind both
            if data[end : end + owed] != bytes(owed):
                return None
            parts.append(data[done:end])
            done, owed = end + owed, 0
    return b"".join([*parts, data[done:]])


def _end(data: bytes, start: int, zeros: int) -> int:
    """Where the string that holds ``start`` ends."""
    found = data.find(bytes(zeros), start)
    return len(data) if found < 0 else found
