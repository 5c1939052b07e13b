"""One conda package -> its unpacked files and their description, verified against what it says of itself."""

from __future__ import annotations

import hashlib
import os
import re
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from flowkiln.envs import condaarchive, links
from flowkiln.envs.condainfo import Info
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.installer import EXECUTABLE_MODE, FILE_MODE

if TYPE_CHECKING:
    import tarfile
    from pathlib import Path

    from flowkiln.envs.condapackage import Place
    from flowkiln.envs.lock import LockedConda

_SCRIPT = re.compile(r"bin/\.(.+)-((?:pre|post)-(?:un)?link)\.sh")
_BLOCK = 1 << 20
_SHOWN = 8
_SITE, _PROGRAMS = "site-packages/", "python-scripts/"
_ALLOWED, _ALLOWED_TIMES = 1 << 30, 100
"""Bytes that a package may unpack to without having said how many: so many, and so many times its own size."""


class _Found(NamedTuple):
    """One member as it was read. ``sha256`` is empty for what was not kept, ``target`` for what is no link."""

    size: int
    sha256: str
    executable: bool = False
    target: str = ""


def unpack(path: Path, locked: LockedConda, folder: Path) -> CondaPackage:
    """Unpacks the package at ``path`` into ``folder`` and describes it. Its sha256 was verified by the caller.

    Files are written read-only, without bytecode, which never lies in packages here. Nothing of the package runs.
    Raises HostileConda, CondaMismatch, CondaUnreadable; ``folder`` is then of no use.
    """
    info = Info(condaarchive.read_info(path, locked.filename), locked)
    found = _Unpacking(path, locked.filename, info, folder).run()
    return CondaPackage(
        sha256=locked.sha256,
        name=locked.name,
        version=locked.version,
        build=locked.build,
        filename=locked.filename,
        files=tuple(_file(info, one, found[one]) for one in sorted(found) if not one.endswith(".pyc")),
        entry_points=info.entry_points,
        scripts=tuple(sorted({match[2] for one in found if (match := _SCRIPT.fullmatch(one))})),
        record=info.record,
    )


def _file(info: Info, path: str, found: _Found) -> CondaFile:
    place: Place = "prefix"
    inside = path
    if info.pure and path.startswith(_SITE):
        place, inside = "site", path.removeprefix(_SITE)
    elif info.pure and path.startswith(_PROGRAMS):
        place, inside = "scripts", path.removeprefix(_PROGRAMS)
    relocation = None if found.target else info.files[path].relocation
    return CondaFile(
        place,
        inside,
        path,
        found.size,
        found.sha256,
        found.executable or (place == "scripts" and not found.target),
        found.target,
        *(relocation or ("", "")),
    )


class _Unpacking:
    """The files of one package on their way to the disk."""

    def __init__(self, path: Path, name: str, info: Info, folder: Path) -> None:
        self._path = path
        self._name = name
        self._info = info
        self._folder = folder
        self._found: dict[str, _Found] = {}
        self._folders: set[str] = set()
        self._left = _ALLOWED + _ALLOWED_TIMES * path.stat().st_size

    def run(self) -> dict[str, _Found]:
        """Every file by path, written below the folder."""
        with condaarchive.files(self._path, self._name) as members:
            for archive, member in members:
                path = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if path not in self._info.files or self._info.files[path].is_folder:
                    raise self._info.refuse(path, "it does not list this file")
                if path in self._found:
                    raise self._info.refuse(path, "twice in the archive")
                self._found[path] = self._one(archive, member, path)
        self._check_links()
        self._check_complete()
        return self._found

    def _one(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> _Found:
        if member.issym():
            return self._link(path, member.linkname)
        if member.islnk():
            return self._hard_link(path, member.linkname.removeprefix("./"))
        if not member.isfile():
            raise self._info.refuse(path, "neither a file nor a link")
        told = self._info.files[path]
        if told.size is None:
            self._left -= member.size
            if self._left < 0:
                raise self._info.refuse(path, "it unpacks to far more than its size, and does not say how much")
        elif member.size != told.size:
            raise self._info.refuse(path, f"has {member.size} bytes, and is listed with {told.size}")
        if path.endswith(".pyc"):
            return _Found(member.size, "")
        executable = bool(member.mode & 0o111)
        place = self._place(path)
        with condaarchive.unreadable(self._name):
            content = cast("IO[bytes]", archive.extractfile(member))
            sha256 = _copy(content, place, EXECUTABLE_MODE if executable else FILE_MODE)
        return self._held(path, _Found(member.size, sha256, executable))

    def _place(self, path: str) -> str:
        """Where a file is written; its folder is there."""
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(f"{self._folder}/{folder}", exist_ok=True)  # noqa: PTH103  no Path per file
            self._folders.add(folder)
        return f"{self._folder}/{path}"

    def _held(self, path: str, found: _Found) -> _Found:
        """``found`` where it is what the package lists."""
        told = self._info.files[path]
        if told.size not in (None, found.size):
            raise self._info.refuse(path, f"has {found.size} bytes, and is listed with {told.size}")
        if told.sha256 not in (None, found.sha256):
            raise self._info.refuse(path, "has another sha256 than it is listed with")
        return found

    def _hard_link(self, path: str, other: str) -> _Found:
        found = self._found.get(other)
        if found is None or found.target:
            raise self._info.refuse(path, f"a hard link to {other!r}, which comes later or is no file")
        if path.endswith(".pyc"):
            return _Found(found.size, "")
        if not found.sha256:
            raise self._info.refuse(path, f"a hard link to {other!r}, which is bytecode")
        self._held(path, found)
        os.link(f"{self._folder}/{other}", self._place(path))
        return found

    def _link(self, path: str, target: str) -> _Found:
        if not target or target.startswith("/"):
            raise self._info.refuse(path, f"a link to {target!r}, outside of the environment")
        data = target.encode(errors="surrogateescape")
        if "\0" in target or not target.isprintable() or len(data) > links.LONGEST_TARGET:
            raise self._info.refuse(path, "a link to what can be no path")
        return _Found(len(data), hashlib.sha256(data).hexdigest(), target=target)

    def _check_links(self) -> None:
        """Links stay inside of the prefix, also by way of one another."""
        targets = {path: found.target for path, found in self._found.items() if found.target}
        path = links.escaping(targets)
        if path is not None:
            raise self._info.refuse(path, f"a link to {targets[path]!r}, outside of the environment")

    def _check_complete(self) -> None:
        told = {path for path, told in self._info.files.items() if not told.is_folder}
        lacking = sorted(told - self._found.keys())
        if lacking:
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            raise self._info.unreadable(f"it lists files that it has not: {', '.join(lacking[:_SHOWN])}{more}")


def _copy(source: IO[bytes], target: str, mode: int) -> str:
    """Writes a new file with ``mode`` and returns the sha256 of what it wrote."""
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as stream:  # noqa: PTH123  a descriptor, not a path
        while block := source.read(_BLOCK):
            digest.update(block)
            stream.write(block)
        os.fchmod(descriptor, mode)
    return digest.hexdigest()
