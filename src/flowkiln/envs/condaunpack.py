"""One conda package -> its unpacked files and their description, verified against what it says of itself."""

from __future__ import annotations

import hashlib
import os
import re
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.envs import condaarchive, condatold, links
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.installer import EXECUTABLE_MODE, FILE_MODE
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda
from flowkiln.envs.names import check_path, collision_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from flowkiln.envs.condapackage import Place
    from flowkiln.envs.condatar import Member
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


class Found(NamedTuple):
    """A file or link of the archive. ``sha256`` is empty for bytecode, which is not kept, ``target`` for a file."""

    size: int
    sha256: str
    executable: bool
    target: str


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
        files = [self._file(path, found[path]) for path in sorted(found) if not path.endswith(".pyc")]
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

    def _write(self, folder: Path) -> dict[str, Found]:
        """What was found of every file and link, the files written below ``folder``."""
        found: dict[str, Found] = {}
        folders = _Folders(folder)
        copied = 0
        with condaarchive.opened(self._path, self._name) as archive:
            for member in archive:
                path = member.path
                if member.kind == "folder" or path.startswith(condaarchive.INFO):
                    continue
                self._check_member(member, found)
                if member.kind == "link":
                    target = self._target(path, member.target)
                    found[path] = Found(len(target), hashlib.sha256(target).hexdigest(), False, member.target)
                elif path.endswith(".pyc"):
                    found[path] = Found(member.size, "", False, "")
                elif member.kind == "hard link":
                    other = found[path] = self._other(path, member.target, found)
                    copied += other.size
                    if copied > condaarchive.limit(self._path):
                        raise condaarchive.too_large(self._name, condaarchive.limit(self._path))
                    mode = EXECUTABLE_MODE if other.executable else FILE_MODE
                    _new(folders.place(path), _blocks(folders.place(member.target.removeprefix("./"))), mode)
                else:
                    mode = EXECUTABLE_MODE if member.executable else FILE_MODE
                    sha256 = _new(folders.place(path), archive.blocks(), mode)
                    self._check_content(path, member.size, sha256)
                    found[path] = Found(member.size, sha256, member.executable, "")
        return found

    def _check_member(self, member: Member, found: Mapping[str, Found]) -> None:
        told = self._listed.get(member.path)
        if told is None:
            raise self._refuse(member.path, "it does not list this file")
        if member.path in found:
            raise self._refuse(member.path, "twice in the archive")
        if member.kind == "other":
            raise self._refuse(member.path, "neither a file nor a link")
        kind, listed = ("link", "softlink") if member.kind == "link" else ("file", "hardlink")
        if told.type not in ("", listed):
            raise self._refuse(member.path, f"a {kind}, and is listed as {told.type}")
        if told.size is not None and member.kind == "file" and told.size != member.size:
            raise self._refuse(member.path, f"has {member.size} bytes, and is listed with {told.size}")

    def _other(self, path: str, target: str, found: Mapping[str, Found]) -> Found:
        """The file that ``path`` is another name of."""
        other = found.get(target.removeprefix("./"))
        if other is None or not other.sha256 or other.target:
            raise self._refuse(path, f"a hard link to {target!r}, which comes later or is no file that is kept")
        self._check_content(path, other.size, other.sha256)
        return other

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

    def _check_links(self, found: Mapping[str, Found]) -> None:
        """Every link stays inside of the prefix, followed through the package's other links."""
        targets = {self._installed(path): one.target for path, one in found.items() if one.target}
        for path, one in found.items():
            if one.target and links.leaves(self._installed(path), targets):
                raise self._refuse(path, f"a link to {one.target!r}, outside of the environment")

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

    def _file(self, path: str, one: Found) -> CondaFile:
        told = self._listed[path]
        place, inside = self._placed(path)
        executable = one.executable or place == "scripts"
        how = ("", "") if one.target else (told.placeholder, told.mode)
        return CondaFile(place, inside, path, one.size, one.sha256, executable, one.target, *how)

    def _placed(self, path: str) -> tuple[Place, str]:
        if self._told.pure and path.startswith(_SITE):
            return "site", path.removeprefix(_SITE)
        if self._told.pure and path.startswith(_PROGRAMS):
            return "scripts", path.removeprefix(_PROGRAMS)
        return "prefix", path


class _Folders:
    """The folders below ``root`` as they are needed."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._made = {""}

    def place(self, path: str) -> str:
        """Where ``path`` is below the root, in a folder that is there."""
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            os.makedirs(f"{self._root}/{folder}", exist_ok=True)  # noqa: PTH103  no Path per file
            self._made.add(folder)
        return f"{self._root}/{path}"


def _new(path: str, blocks: Iterable[bytes | memoryview], mode: int) -> str:
    """Writes a new file with ``mode`` and returns the sha256 of what it wrote."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for block in blocks:
            digest.update(block)
            written = os.write(descriptor, block)
            while written < len(block):
                written += os.write(descriptor, block[written:])
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as stream:  # noqa: PTH123  no Path per file
        while block := stream.read(_BLOCK):
            yield block
