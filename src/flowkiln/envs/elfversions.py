"""The newest glibc that the compiled files of a wheel need, by the version names of their symbols (ELF, gABI)."""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAMED = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)")


def glibc_of(wheel: Path) -> tuple[int, int] | None:
    """The newest version of glibc that a file of ``wheel`` names, None where none does.

    Versions stand as whole strings in the string table of an ELF file's dynamic symbols.
    """
    newest: tuple[int, int] | None = None
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            with archive.open(info) as stream:
                if stream.read(4) != b"\x7fELF":
                    continue
                data = stream.read()
            for match in _NAMED.finditer(data):
                found = int(match[1]), int(match[2])
                newest = found if newest is None else max(newest, found)
    return newest
