"""The tars inside of a conda package, from its two formats.

``.conda`` is a zip of two archives, ``info-*.tar.zst`` and ``pkg-*.tar.zst``; ``.tar.bz2`` is one archive with the
folder ``info/`` in it. Formats: conda's own, CEP 20 for the limits that nobody else states.
"""

from __future__ import annotations

import bz2
import zipfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import zstandard

from flowkiln.envs.condatar import Tar, TarDamaged, TooLarge
from flowkiln.envs.installerrors import CondaUnreadable, HostileConda

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INFO = "info/"
_LARGEST_INFO = 64 << 20
_WINDOW = 1 << 27
"""Bytes: what packages of conda-forge were compressed with needs no more, and other installers take no more."""
_ALLOWED = 1 << 30
_TIMES = 250
"""A package may unpack to so many bytes, and to so many times its own size besides: real ones are far below."""


def limit(path: Path) -> int:
    """How many bytes the package at ``path`` may unpack to."""
    return _ALLOWED + _TIMES * path.stat().st_size


def read_info(path: Path, name: str) -> dict[str, bytes]:
    """The files of ``info/`` by their path below it. Raises CondaUnreadable, HostileConda."""
    found: dict[str, bytes] = {}
    total = 0
    with opened(path, name, "info") as archive:
        for member in archive:
            if not member.path.startswith(INFO):
                if "index.json" in found and ("paths.json" in found or "files" in found):
                    break  # packers put info first: the rest need not be unpacked for it
                continue
            total += member.size
            if total > _LARGEST_INFO:
                message = f"{name}: its metadata are larger than {_LARGEST_INFO >> 20} MiB"
                raise CondaUnreadable(message)
            if member.kind == "file":
                found[member.path.removeprefix(INFO)] = b"".join(archive.blocks())
    return found


@contextmanager
def opened(path: Path, name: str, part: str = "pkg") -> Iterator[Tar]:
    """The tar with the files of a package, or with its ``info``: one and the same in a ``.tar.bz2``.

    What an archive that cannot be read raises inside becomes CondaUnreadable, one without end HostileConda.
    """
    most = limit(path)
    try:
        with ExitStack() as stack:
            yield Tar(_reader(stack, path, name, part), most)
    except TooLarge:
        raise too_large(name, most) from None
    except (TarDamaged, zstandard.ZstdError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        message = f"{name}: damaged: {error}"
        raise CondaUnreadable(message) from error
    except OSError as error:
        if error.errno is not None:  # of the disk; the decompressors' own have no number
            raise
        message = f"{name}: damaged: {error}"
        raise CondaUnreadable(message) from error


def too_large(name: str, most: int) -> HostileConda:
    """The error for a package that unpacks to more than it may."""
    message = f"{name}: it unpacks to more than {most >> 20} MiB, far more than its size lets expect"
    return HostileConda(message, data={"package": name})


def path_is_zip(path: Path) -> bool:
    """Whether a package is of the format ``.conda``, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _reader(stack: ExitStack, path: Path, name: str, part: str) -> Callable[[int], bytes]:
    if not path_is_zip(path):
        return stack.enter_context(bz2.open(path)).read
    archive = stack.enter_context(zipfile.ZipFile(path))
    found = [one for one in archive.namelist() if one.startswith(f"{part}-") and one.endswith(".tar.zst")]
    if len(found) != 1:
        message = f"{name}: needs one {part}-*.tar.zst, has {', '.join(found) or 'none'}"
        raise CondaUnreadable(message)
    packed = stack.enter_context(archive.open(found[0]))
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    return stack.enter_context(unpacker.stream_reader(packed, read_across_frames=True)).read
