"""One conda package -> its unpacked files and their description, verified against what it says of itself."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from functools import partial
from typing import IO, TYPE_CHECKING, cast

from flowkiln.envs import condaarchive, condatold, links
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.installer import EXECUTABLE_MODE, FILE_MODE
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda
from flowkiln.envs.names import check_path, collision_key

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln.envs.condapackage import Place
    from flowkiln.envs.lock import LockedConda

_PYTHON_FOLDERS = re.compile(r"lib/python3\.\d\d+(/site-packages)?")
_SCRIPT = re.compile(r"bin/\.(.+)-((?:pre|post)-(?:un)?link)\.sh")
_BLOCK = 1 << 20
_SHOWN = 8
_SITE, _PROGRAMS = "site-packages/", "python-scripts/"
_SITE_ANYWHERE = "lib/python3/site-packages/"
"""As deep as where Python has its modules; which Python it is, joining several packages knows."""


def unpack(path: Path, locked: LockedConda, folder: Path) -> CondaPackage:
    """Unpacks the package at ``path`` into ``folder`` and describes it. Its sha256 was verified by the caller.

    Files are written read-only, without bytecode, which never lies in packages here. Nothing of the package runs.
    Raises HostileConda, CondaMismatch, CondaUnreadable; ``folder`` is then of no use.
    """
    info = condaarchive.read_info(path, locked.filename)
    return _Unpacking(path, locked, info).into(folder)


class _Unpacking:
    """One package on its way to the disk."""

    def __init__(self, path: Path, locked: LockedConda, info: Mapping[str, bytes]) -> None:
        self._path = path
        self._locked = locked
        self._name = locked.filename
        self._told = condatold.read(info, locked.filename)
        self._listed = self._told.files

    def into(self, folder: Path) -> CondaPackage:
        self._check_identity()
        self._check_names()
        found = self._write(folder)
        self._check_links(found)
        self._check_complete(found)
        files = [self._file(path, *found[path]) for path in sorted(found) if not path.endswith(".pyc")]
        scripts = sorted({match[2] for path in found if (match := _SCRIPT.fullmatch(path))})
        return CondaPackage(
            sha256=self._locked.sha256,
            name=self._locked.name,
            version=self._locked.version,
            build=self._locked.build,
            filename=self._name,
            files=tuple(files),
            entry_points=self._told.entry_points,
            scripts=tuple(scripts),
            record=self._told.record,
        )

    # -- names -------------------------------------------------------------------------------------------------

    def _check_identity(self) -> None:
        locked = (self._locked.name, self._locked.version, self._locked.build)
        if self._told.identity != locked:
            told = " ".join(self._told.identity)
            message = f"{self._name}: it says that it is {told}, locked is {' '.join(locked)}"
            raise CondaMismatch(message)

    def _check_names(self) -> None:
        # Names that differ in case alone are common (terminfo), and are told apart where the file system does.
        for path in self._listed:
            check_path(path, partial(self._refuse, path))
            self._check_claims(collision_key(self._installed(path)), path)
            parent = path.rpartition("/")[0]
            while parent:
                if parent in self._listed and self._listed[parent].type != "directory":
                    raise self._refuse(path, f"{parent!r} is a file and its folder")
                parent = parent.rpartition("/")[0]

    def _check_claims(self, key: str, path: str) -> None:
        """Refuses files that would replace what makes the prefix an environment of ours."""
        top, _, rest = key.partition("/")
        claims = (
            key in ("pyvenv.cfg", "bin", "lib")
            or _PYTHON_FOLDERS.fullmatch(key)
            or top in (".flowkiln", "conda-meta")
            or (top == "bin" and condatold.INTERPRETER.fullmatch(rest) and self._locked.name != "python")
            or (top == "lib" and rest.endswith("/externally-managed") and rest.count("/") == 1)
        )
        if claims:
            raise self._refuse(path, "belongs to the environment")

    def _refuse(self, path: str, reason: str) -> HostileConda:
        return HostileConda(f"{self._name}: {path!r}: {reason}", data={"package": self._name, "member": path})

    # -- files -------------------------------------------------------------------------------------------------

    def _write(self, folder: Path) -> dict[str, tuple[int, str, bool, str]]:
        """Size, sha256, executable and link target of every member, written below ``folder``."""
        found: dict[str, tuple[int, str, bool, str]] = {}
        with condaarchive.files(self._path, self._name) as members:
            for archive, member in members:
                path = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if path not in self._listed:
                    raise self._refuse(path, "it does not list this file")
                if path in found:
                    raise self._refuse(path, "twice in the archive")
                found[path] = self._one(archive, member, path, folder, found)
        return found

    def _one(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        path: str,
        folder: Path,
        found: Mapping[str, tuple[int, str, bool, str]],
    ) -> tuple[int, str, bool, str]:
        told = self._listed[path]
        if member.issym():
            if told.type not in ("", "softlink"):
                raise self._refuse(path, f"a link, and is listed as {told.type}")
            target = self._target(path, member.linkname)
            return len(target), hashlib.sha256(target).hexdigest(), False, member.linkname
        if told.type not in ("", "hardlink"):
            raise self._refuse(path, f"a file, and is listed as {told.type}")
        if path.endswith(".pyc"):
            return member.size, "", False, ""
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if member.islnk():
            other = member.linkname.removeprefix("./")
            if other not in found or not found[other][1] or found[other][3]:
                raise self._refuse(path, f"a hard link to {other!r}, which comes later or is no file that is kept")
            self._check_content(path, *found[other][:2])
            shutil.copyfile(folder / other, place)
            place.chmod((folder / other).stat().st_mode & 0o777)
            return found[other]
        if not member.isfile():
            raise self._refuse(path, "neither a file nor a link")
        executable = bool(member.mode & 0o111)
        with condaarchive.unreadable(self._name):
            content = archive.extractfile(member)
            sha256 = _copy(cast("IO[bytes]", content), place, EXECUTABLE_MODE if executable else FILE_MODE)
        self._check_content(path, member.size, sha256)
        return member.size, sha256, executable, ""

    def _check_content(self, path: str, size: int, sha256: str) -> None:
        told = self._listed[path]
        if told.size not in (None, size):
            raise self._refuse(path, f"has {size} bytes, and is listed with {told.size}")
        if told.sha256 not in ("", sha256):
            raise self._refuse(path, "has another sha256 than it is listed with")

    def _target(self, path: str, target: str) -> bytes:
        try:
            data = target.encode()
        except UnicodeEncodeError:
            raise self._refuse(path, f"a link to {target!r}, which is no UTF-8") from None
        if not target or "\0" in target:
            raise self._refuse(path, f"a link to {target!r}")
        return data

    def _check_links(self, found: Mapping[str, tuple[int, str, bool, str]]) -> None:
        """Every link stays inside of the prefix, followed through the package's other links."""
        targets = {self._installed(path): row[3] for path, row in found.items() if row[3]}
        for path, row in found.items():
            if row[3] and links.leaves(self._installed(path), targets):
                raise self._refuse(path, f"a link to {row[3]!r}, outside of the environment")

    def _installed(self, path: str) -> str:
        place, inside = self._placed(path)
        return {"prefix": "", "site": _SITE_ANYWHERE, "scripts": "bin/"}[place] + inside

    def _check_complete(self, found: Mapping[str, object]) -> None:
        lacking = sorted(
            path for path, told in self._listed.items() if told.type != "directory" and path not in found
        )
        if lacking:
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            message = f"{self._name}: it lists files that it has not: {', '.join(lacking[:_SHOWN])}{more}"
            raise CondaUnreadable(message)

    def _file(self, path: str, size: int, sha256: str, executable: bool, target: str) -> CondaFile:
        told = self._listed[path]
        place, inside = self._placed(path)
        executable = executable or place == "scripts"
        if target:
            return CondaFile(place, inside, path, size, sha256, executable, target)
        return CondaFile(place, inside, path, size, sha256, executable, "", told.placeholder, told.mode)

    def _placed(self, path: str) -> tuple[Place, str]:
        if self._told.pure and path.startswith(_SITE):
            return "site", path.removeprefix(_SITE)
        if self._told.pure and path.startswith(_PROGRAMS):
            return "scripts", path.removeprefix(_PROGRAMS)
        return "prefix", path


def _copy(source: IO[bytes], target: Path, mode: int) -> str:
    """Writes a new file with ``mode`` and returns the sha256 of what it wrote."""
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as stream:  # noqa: PTH123  a descriptor, not a path
        while block := source.read(_BLOCK):
            digest.update(block)
            stream.write(block)
        os.fchmod(descriptor, mode)
    return digest.hexdigest()
