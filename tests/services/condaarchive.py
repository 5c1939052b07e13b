"""Archives of conda packages: members and the files of ``info/`` as the bytes of a ``.conda`` or ``.tar.bz2``.

Equal input gives equal bytes: owners, times and the order of members are fixed.
"""

from __future__ import annotations

import bz2
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Format = Literal["conda", "tar.bz2"]

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class Link:
    """A link in a package; ``target`` is what it says, checked by nobody.

    A hard link's target is the path of another member, as ``.tar.bz2`` packages have them.
    """

    target: str
    hard: bool = False


@dataclass(frozen=True)
class Member:
    """A member put into the archive as told: any name, also one that leaves the prefix.

    ``listed`` says whether ``info/paths.json`` and ``info/files`` name it.
    """

    name: str
    data: bytes | Link = b""
    mode: int = 0o664
    listed: bool = True


def packed(stem: str, members: Iterable[Member], info: Mapping[str, bytes], kind: Format) -> bytes:
    """The package file ``stem`` with ``members`` and ``info``, whose keys are paths below ``info/``."""
    about = [Member(f"info/{name}", data) for name, data in sorted(info.items())]
    if kind == "tar.bz2":
        return bz2.compress(_tar([*about, *members]))
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", _zstd(_tar(members))),
            (f"info-{stem}.tar.zst", _zstd(_tar(about))),
        ):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data)
    return raw.getvalue()


def info_file(package: Path, name: str) -> bytes:
    """The file ``info/NAME`` of a package file."""
    if package.name.endswith(".tar.bz2"):
        archive = tarfile.open(package, "r:bz2")  # noqa: SIM115 - closed below
    else:
        with zipfile.ZipFile(package) as outer:
            data = outer.read(f"info-{package.name.removesuffix('.conda')}.tar.zst")
        archive = tarfile.open(fileobj=io.BytesIO(_unzstd(data)))  # noqa: SIM115 - closed below
    with archive:
        stream = archive.extractfile(f"info/{name}")
        assert stream is not None
        return stream.read()


def index_of(package: Path) -> dict[str, object]:
    """What ``info/index.json`` of a package file says."""
    found: dict[str, object] = json.loads(info_file(package, "index.json"))
    return found


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True).compress(data)


def _unzstd(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data) as stream:
        return stream.read()


def _tar(members: Iterable[Member]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            entry = tarfile.TarInfo(member.name)
            entry.mode = member.mode
            if isinstance(member.data, Link):
                entry.type = tarfile.LNKTYPE if member.data.hard else tarfile.SYMTYPE
                entry.linkname = member.data.target
                archive.addfile(entry)
            else:
                entry.size = len(member.data)
                archive.addfile(entry, io.BytesIO(member.data))
    return raw.getvalue()
