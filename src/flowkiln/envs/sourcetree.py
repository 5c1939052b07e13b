"""Source archives on disk: unpacked with every member checked first, and what builds them (PEP 517, PEP 518)."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from flowkiln.envs.builderrors import HostileSource, NotAProject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_BYTES = 4 << 30
MOST_MEMBERS = 200_000
_LEGACY = ("setuptools>=40.8.0",)
_LEGACY_BACKEND = "setuptools.build_meta:__legacy__"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSystem:
    """What builds a project: requirements (PEP 508), the back end's object, folders of back ends in the source."""

    requires: tuple[str, ...]
    backend: str
    backend_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Member:
    path: str
    size: int
    executable: bool
    link: str | None = None
    hard: bool = False


def unpack(archive: Path, target: Path, *, subdirectory: str | None = None, label: str) -> Path:
    """Unpacks a ``.tar``, ``.tar.*`` or ``.zip`` into the new folder ``target``; the folder of the project in it.

    That is the archive's only folder, where it has one and nothing else, and ``subdirectory`` in it. Links inside
    are kept, permissions are 0644 and 0755. Raises ``HostileSource`` before anything is written, ``NotAProject``.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, target, label)
        else:
            _unpack_tar(archive, target, label)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise HostileSource(f"{label}: the source archive cannot be read: {error}") from error
    found = sorted(target.iterdir())
    root = found[0] if len(found) == 1 and found[0].is_dir() and not found[0].is_symlink() else target
    return _below(root, subdirectory, label)


def build_system(root: Path, label: str) -> BuildSystem:
    """What builds the project in ``root``. Raises ``NotAProject``."""
    path = root / "pyproject.toml"
    if not path.is_file():
        if not (root / "setup.py").is_file():
            raise NotAProject(f"{label}: there is neither a pyproject.toml nor a setup.py")
        return BuildSystem(requires=_LEGACY, backend=_LEGACY_BACKEND)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("build-system")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NotAProject(f"{label}: its pyproject.toml cannot be read: {error}") from error
    if table is None:
        return BuildSystem(requires=_LEGACY, backend=_LEGACY_BACKEND)
    requires: list[str] = table.get("requires", []) if isinstance(table, dict) else []
    if not isinstance(table, dict) or not _texts(requires) or not _texts(table.get("backend-path", [])):
        raise NotAProject(f"{label}: [build-system] of its pyproject.toml is not as PEP 518 has it")
    for line in requires:
        _check(line, label)
    backend = table.get("build-backend", _LEGACY_BACKEND)
    folders = tuple(posixpath.normpath(one) for one in table.get("backend-path", []))
    if not isinstance(backend, str) or any(one.startswith(("/", "..")) for one in folders):
        raise NotAProject(f"{label}: [build-system] names a back end that is not in the source")
    return BuildSystem(requires=tuple(requires), backend=backend, backend_path=folders)


def _check(line: str, label: str) -> None:
    try:
        wanted = Requirement(line)
    except InvalidRequirement as error:
        raise NotAProject(f"{label}: its build requirement {line!r} is not valid") from error
    if wanted.url is not None:
        raise NotAProject(f"{label}: its build requirement {line!r} is a URL, which is not built itself")


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _below(root: Path, subdirectory: str | None, label: str) -> Path:
    if not subdirectory:
        return root
    found = root / subdirectory
    if not found.is_dir() or not found.resolve().is_relative_to(root.resolve()):
        raise NotAProject(f"{label}: the source has no folder {subdirectory!r}")
    return found


def _unpack_zip(archive: Path, target: Path, label: str) -> None:
    with zipfile.ZipFile(archive) as opened:
        infos = [info for info in opened.infolist() if not info.is_dir()]
        members = []
        for info in infos:
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                raise HostileSource(f"{label}: {info.filename!r} is a link in a zip archive")
            members.append(_Member(info.filename, info.file_size, bool(mode & 0o111)))
        checked = _checked(members, label)
        target.mkdir()
        for info, member in zip(infos, checked, strict=True):
            with opened.open(info) as stream:
                _write(stream, target / member.path, member)


def _unpack_tar(archive: Path, target: Path, label: str) -> None:
    with tarfile.open(archive) as opened:
        infos = [info for info in opened if not info.isdir()]
        checked = _checked(list(_tar_members(infos, label)), label)
        target.mkdir()
        late: list[_Member] = []
        for info, member in zip(infos, checked, strict=True):
            if member.link is not None:
                late.append(member)
                continue
            stream = opened.extractfile(info)
            assert stream is not None
            with stream:
                _write(stream, target / member.path, member)
        # Links come last: nothing is ever written through one.
        for member in late:
            _link(target, member, label)


def _tar_members(infos: list[tarfile.TarInfo], label: str) -> Iterator[_Member]:
    for info in infos:
        if not (info.isreg() or info.issym() or info.islnk()):
            raise HostileSource(f"{label}: {info.name!r} is neither a file nor a folder nor a link")
        link = info.linkname if info.issym() or info.islnk() else None
        yield _Member(info.name, info.size, bool(info.mode & 0o111), link, info.islnk())


def _checked(members: list[_Member], label: str) -> list[_Member]:
    """``members`` with normal paths. Raises ``HostileSource``."""
    if len(members) > MOST_MEMBERS or sum(one.size for one in members) > MOST_BYTES:
        raise HostileSource(f"{label}: the source archive is larger than any source")
    found = []
    for one in members:
        path = _inside(one.path, label)
        link = one.link
        if link is not None:
            base = "" if one.hard else posixpath.dirname(path)
            whole = _inside(posixpath.join(base, link), label) if not link.startswith("/") else ""
            if not whole:
                raise HostileSource(f"{label}: the link {path!r} leads out of the archive")
            link = whole
        found.append(_Member(path, one.size, one.executable, link, one.hard))
    links = {one.path for one in found if one.link is not None}
    paths = {one.path for one in found}
    for one in found:
        above = next((parent for parent in _parents(one.path) if parent in paths), None)
        if above is not None:
            raise HostileSource(f"{label}: {one.path!r} lies below a {'link' if above in links else 'file'}")
        if one.link is not None and any(part in links for part in (one.link, *_parents(one.link))):
            raise HostileSource(f"{label}: the link {one.path!r} leads through another link")
    if len(paths) < len(found):
        raise HostileSource(f"{label}: the archive holds a path twice")
    return found


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _inside(path: str, label: str) -> str:
    normal = posixpath.normpath(path)
    if path.startswith("/") or "\\" in path or "\0" in path or normal in {".", ".."} or normal.startswith("../"):
        raise HostileSource(f"{label}: the path {path!r} leads out of the archive")
    return normal


def _write(stream: IO[bytes], path: Path, member: _Member) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with open(descriptor, "wb") as target:  # noqa: PTH123  a descriptor, not a path
        shutil.copyfileobj(stream, target, 1 << 20)
        os.fchmod(descriptor, 0o755 if member.executable else 0o644)


def _link(target: Path, member: _Member, label: str) -> None:
    assert member.link is not None
    path, source = target / member.path, target / member.link
    path.parent.mkdir(parents=True, exist_ok=True)
    if not member.hard:
        path.symlink_to(os.path.relpath(source, path.parent))
        return
    if not source.is_file() or source.is_symlink():
        raise HostileSource(f"{label}: {member.path!r} is a hard link to what is not in the archive")
    shutil.copy(source, path)
