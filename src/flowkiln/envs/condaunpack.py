"""One conda package -> its unpacked files and their description, verified against what it says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from flowkiln.envs import condaarchive, links
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.installer import EXECUTABLE_MODE, FILE_MODE
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda
from flowkiln.envs.names import check_path, collision_key
from flowkiln.envs.wheel import EntryPoint

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln.envs.condapackage import Place
    from flowkiln.envs.lock import LockedConda

_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What packages stand for the prefix that do not say it."""
_INTERPRETER = re.compile(r"pythonw?(\d+(\.\d+)*)?t?")
_SCRIPT = re.compile(r"bin/\.(.+)-((?:pre|post)-(?:un)?link)\.sh")
_ENTRY_POINT = re.compile(r"\s*([^\s=]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?\s*")
_HAS_PREFIX = re.compile(r'(?:"([^"]+)"|(\S+))\s+(text|binary)\s+(?:"([^"]+)"|(.+))')
_KEPT = ("build_number", "constrains", "depends", "license", "noarch", "subdir", "timestamp", "track_features")
_BLOCK = 1 << 20
_SHOWN = 8
_SITE, _PROGRAMS = "site-packages/", "python-scripts/"
_SITE_ANYWHERE = "lib/python3/site-packages/"
"""As deep as where Python has its modules; which Python it is, joining several packages knows."""

Told = dict[str, "dict[str, Any]"]
"""What a package says of its files, by path."""


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
        self._info = info
        self._index = self._json("index.json")
        self._pure = (self._json("link.json", needed=False).get("noarch") or {}).get("type") == "python"
        self._pure = self._pure or self._index.get("noarch") == "python"
        self._told = self._read_told()
        self._links: dict[str, str] = {}

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
            entry_points=self._entry_points(),
            scripts=tuple(scripts),
            record={key: self._index[key] for key in _KEPT if key in self._index},
        )

    # -- what it says of itself --------------------------------------------------------------------------------

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        if name not in self._info:
            if needed:
                raise CondaUnreadable(f"{self._name}: has no info/{name}")
            return {}
        try:
            found = json.loads(self._info[name])
        except ValueError as error:
            message = f"{self._name}: info/{name} is no JSON: {error}"
            raise CondaUnreadable(message) from error
        if not isinstance(found, dict):
            raise CondaUnreadable(f"{self._name}: info/{name} is no JSON object")
        return found

    def _read_told(self) -> Told:
        try:
            if "paths.json" in self._info:
                return {one["_path"]: one for one in self._json("paths.json")["paths"]}
            return self._read_old()
        except (KeyError, TypeError, UnicodeDecodeError) as error:
            message = f"{self._name}: its list of files cannot be read ({error!r})"
            raise CondaUnreadable(message) from error

    def _read_old(self) -> Told:
        """From ``info/files`` and ``info/has_prefix``, as packages of before 2016 have them."""
        told: Told = {line: {"_path": line} for line in self._lines("files")}
        for line in self._lines("has_prefix"):
            match = _HAS_PREFIX.fullmatch(line)
            placeholder, kind, path = _OLD_PLACEHOLDER, "text", line
            if match is not None:
                placeholder, kind, path = match[1] or match[2], match[3], match[4] or match[5]
            told.setdefault(path, {"_path": path})
            told[path] |= {"prefix_placeholder": placeholder, "file_mode": kind}
        return told

    def _lines(self, name: str) -> list[str]:
        return [line for line in self._info.get(name, b"").decode().splitlines() if line.strip()]

    def _check_identity(self) -> None:
        told = tuple(str(self._index.get(key)) for key in ("name", "version", "build"))
        locked = (self._locked.name, self._locked.version, self._locked.build)
        if told != locked:
            message = f"{self._name}: it says that it is {' '.join(told)}, locked is {' '.join(locked)}"
            raise CondaMismatch(message)

    # -- names -------------------------------------------------------------------------------------------------

    def _check_names(self) -> None:
        # Names that differ in case alone are common (terminfo), and are told apart where the file system does.
        for path in self._told:
            check_path(path, partial(self._refuse, path))
            self._check_claims(collision_key(path), path)
            parent = path.rpartition("/")[0]
            while parent:
                if parent in self._told and self._told[parent].get("path_type") != "directory":
                    raise self._refuse(path, f"{parent!r} is a file and its folder")
                parent = parent.rpartition("/")[0]

    def _check_claims(self, key: str, path: str) -> None:
        """Refuses files that would replace what makes the prefix an environment of ours."""
        top, _, rest = key.partition("/")
        claims = (
            key in ("pyvenv.cfg", "conda-meta/history")
            or top in (".flowkiln", "conda-meta")
            or (top == "bin" and _INTERPRETER.fullmatch(rest) and self._locked.name != "python")
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
                if path not in self._told:
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
        if member.issym():
            target = self._target(path, member.linkname)
            return len(target), hashlib.sha256(target).hexdigest(), False, member.linkname
        if path.endswith(".pyc"):
            return member.size, "", False, ""
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if member.islnk():
            other = member.linkname.removeprefix("./")
            if other not in found or found[other][3]:
                raise self._refuse(path, f"a hard link to {other!r}, which comes later or is no file")
            shutil.copyfile(folder / other, place)
            place.chmod((folder / other).stat().st_mode & 0o777)
            return found[other]
        if not member.isfile():
            raise self._refuse(path, "neither a file nor a link")
        size = self._told[path].get("size_in_bytes")
        if size is not None and member.size != size:
            raise self._refuse(path, f"has {member.size} bytes, and is listed with {size}")
        executable = bool(member.mode & 0o111)
        with condaarchive.unreadable(self._name):
            content = archive.extractfile(member)
            sha256 = _copy(cast("IO[bytes]", content), place, EXECUTABLE_MODE if executable else FILE_MODE)
        told = self._told[path].get("sha256")
        if told is not None and told != sha256:
            raise self._refuse(path, "has another sha256 than it is listed with")
        return member.size, sha256, executable, ""

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
        lacking = sorted(self._told.keys() - found.keys())
        lacking = [path for path in lacking if self._told[path].get("path_type") != "directory"]
        if lacking:
            more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
            message = f"{self._name}: it lists files that it has not: {', '.join(lacking[:_SHOWN])}{more}"
            raise CondaUnreadable(message)

    def _file(self, path: str, size: int, sha256: str, executable: bool, target: str) -> CondaFile:
        told = self._told[path]
        place, inside = self._placed(path)
        executable = executable or place == "scripts"
        placeholder = "" if target else str(told.get("prefix_placeholder") or "")
        kind = str(told.get("file_mode") or "text") if placeholder else ""
        if kind not in ("", "text", "binary"):
            raise CondaUnreadable(
                f"{self._name}: {path!r}: its prefix is replaced in a way that is not known: {kind}"
            )
        return CondaFile(place, inside, path, size, sha256, executable, target, placeholder, kind)

    def _placed(self, path: str) -> tuple[Place, str]:
        if self._pure and path.startswith(_SITE):
            return "site", path.removeprefix(_SITE)
        if self._pure and path.startswith(_PROGRAMS):
            return "scripts", path.removeprefix(_PROGRAMS)
        return "prefix", path

    def _entry_points(self) -> tuple[EntryPoint, ...]:
        told = (self._json("link.json", needed=False).get("noarch") or {}).get("entry_points") or ()
        found: dict[str, EntryPoint] = {}
        for line in told:
            match = _ENTRY_POINT.fullmatch(str(line))
            if match is None:
                raise CondaUnreadable(f"{self._name}: {line!r} is no entry point")
            name = match[1]
            check_path(name, lambda reason: self._refuse("info/link.json", reason))
            if "/" in name or _INTERPRETER.fullmatch(name):
                raise self._refuse("info/link.json", f"a script may not be called {name!r}")
            found[name] = EntryPoint(name, match[2], match[3], False)
        return tuple(found[name] for name in sorted(found))


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
