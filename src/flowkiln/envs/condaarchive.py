"""The members of a conda package as they stream by, from its two formats.

``.conda`` is a zip of two archives, ``info-*.tar.zst`` and ``pkg-*.tar.zst``; ``.tar.bz2`` is one archive with the
folder ``info/`` in it. Formats: conda's own, CEP 20 for the limits that nobody else states.
"""

from __future__ import annotations

import tarfile
import zipfile
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, cast

import zstandard

from flowkiln.envs.installerrors import CondaUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Member = tuple[tarfile.TarFile, tarfile.TarInfo]

_INFO = "info/"
_LARGEST_INFO = 64 << 20
_WINDOW = 1 << 27
"""Bytes of memory that unpacking may take: what conda-forge needs, and what conda and rattler allow.

The format allows 2 GiB, and a package asks for them by one byte.
"""


def read_info(path: Path, name: str) -> dict[str, bytes]:
    """The files of ``info/`` by their path below it. Raises ``CondaUnreadable``."""
    found: dict[str, bytes] = {}
    total = 0
    with _opened(path, name, "info") as archive:
        for opened, member in _members(archive, name):
            place = _path(member.name)
            if not place.startswith(_INFO):
                if "index.json" in found and ("paths.json" in found or "files" in found):
                    break  # packers put info first: the rest need not be unpacked for it
                continue
            total += member.size
            if total > _LARGEST_INFO:
                message = f"{name}: its metadata are larger than {_LARGEST_INFO >> 20} MiB"
                raise CondaUnreadable(message)
            if member.isfile():
                content = opened.extractfile(member)
                found[place.removeprefix(_INFO)] = content.read() if content is not None else b""
    return found


@contextmanager
def files(path: Path, name: str) -> Iterator[Iterator[Member]]:
    """The members that are installed, each with the archive to read it from. Raises ``CondaUnreadable``."""
    with _opened(path, name, "pkg") as archive:
        yield (
            (opened, member)
            for opened, member in _members(archive, name)
            if not _path(member.name).startswith(_INFO)
        )


def _members(archive: tarfile.TarFile, name: str) -> Iterator[Member]:
    with unreadable(name):
        while (member := archive.next()) is not None:
            yield archive, member
            archive.members = []  # type: ignore[attr-defined]  # it keeps every member otherwise


@contextmanager
def unreadable(name: str) -> Iterator[None]:
    """What an archive that cannot be read raises becomes ``CondaUnreadable``."""
    try:
        yield
    except (tarfile.TarError, zstandard.ZstdError, EOFError, zipfile.BadZipFile) as error:
        message = f"{name}: damaged: {error}"
        raise CondaUnreadable(message) from error
    except OSError as error:
        if error.errno is not None:  # of the disk; the decompressors' own have no number
            raise
        message = f"{name}: damaged: {error}"
        raise CondaUnreadable(message) from error


@contextmanager
def _opened(path: Path, name: str, part: str) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        with unreadable(name):
            if path_is_zip(path):
                stream = stack.enter_context(_inner(stack, path, name, part))
                opened = tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", encoding="utf-8")  # noqa: SIM115
            else:
                opened = tarfile.open(path, mode="r|bz2", encoding="utf-8")  # noqa: SIM115  the stack closes it
            archive = stack.enter_context(opened)
        yield archive


def path_is_zip(path: Path) -> bool:
    """Whether a package is of the format ``.conda``, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _inner(stack: ExitStack, path: Path, name: str, part: str) -> zstandard.ZstdDecompressionReader:
    archive = stack.enter_context(zipfile.ZipFile(path))
    found = [one for one in archive.namelist() if one.startswith(f"{part}-") and one.endswith(".tar.zst")]
    if len(found) != 1:
        message = f"{name}: needs one {part}-*.tar.zst, has {', '.join(found) or 'none'}"
        raise CondaUnreadable(message)
    packed = stack.enter_context(archive.open(found[0]))
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(packed, read_across_frames=True)


def _path(name: str) -> str:
    return name.removeprefix("./")
