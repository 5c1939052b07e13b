"""Prefixes inside files: the placeholder that a conda package was built with, written as a real prefix, and back.

In a text every occurrence is replaced. In a binary file it is replaced within its NUL-terminated string, which is
padded with NULs to the length that it had, so that nothing else in the file moves. Whoever writes a file keeps the
offsets of what was replaced: with them the stored bytes come back exactly, even where the same prefix stands in a
file by itself, so that what is on disk can be held against the hash of what was packed, whatever the prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["text", "binary"]


class PrefixTooLong(ValueError):
    """A prefix does not fit into the place of the placeholder."""


def written(data: bytes, placeholder: str, prefix: str, kind: Kind) -> tuple[bytes, list[int]]:
    """``data`` with ``prefix`` for ``placeholder``, and the offsets at which the prefix now stands for it.

    Raises ``PrefixTooLong`` for a binary file.
    """
    old, new = placeholder.encode(), prefix.encode()
    if kind == "binary" and len(new) > len(old):
        message = f"{prefix} has {len(new)} bytes; there is room for {len(old)}"
        raise PrefixTooLong(message)
    parts: list[bytes] = []
    offsets: list[int] = []
    done = length = 0
    while (found := data.find(old, done)) >= 0:
        end = _end(data, found) if kind == "binary" else found + len(old)
        pieces = data[found:end].split(old)
        parts.append(data[done:found])
        length += found - done
        for number, piece in enumerate(pieces):
            if number:
                offsets.append(length)
                length += len(new)
            length += len(piece)
        parts.append(new.join(pieces))
        if kind == "binary":
            padding = (len(pieces) - 1) * (len(old) - len(new))
            parts.append(bytes(padding))
            length += padding
        done = end
    return b"".join([*parts, data[done:]]), offsets


def restored(data: bytes, offsets: Sequence[int], placeholder: str, prefix: str, kind: Kind) -> bytes | None:
    """The stored bytes of what ``written`` made; None where ``data`` is not what it can have made."""
    old, new = placeholder.encode(), prefix.encode()
    parts: list[bytes] = []
    done = owed = 0
    for number, offset in enumerate(offsets):
        if offset < done or data[offset : offset + len(new)] != new:
            return None
        parts += [data[done:offset], old]
        done = offset + len(new)
        owed += len(old) - len(new)
        if kind == "binary" and owed:
            end = _end(data, done)
            if number + 1 < len(offsets) and offsets[number + 1] < end:
                continue  # another one in the same string: the padding is behind both
            if data[end : end + owed] != bytes(owed):
                return None
            parts.append(data[done:end])
            done, owed = end + owed, 0
    return b"".join([*parts, data[done:]])


def _end(data: bytes, start: int) -> int:
    """Where the string that holds ``start`` ends."""
    found = data.find(b"\0", start)
    return len(data) if found < 0 else found
