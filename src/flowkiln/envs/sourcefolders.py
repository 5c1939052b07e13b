"""Folders of projects: the files that belong to one, and the archive of them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import TYPE_CHECKING

from flowkiln._base import files, paths
from flowkiln.envs import repositories, sourcetar
from flowkiln.envs.directerrors import FolderMissing, HasSubmodules, RepositoryUnreachable
from flowkiln.envs.sourcetar import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import IO

_PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
_SETTLED = 2_000_000_000
"""Nanoseconds after which a file whose time did not change was not written to either, on any file system."""


def content(folder: Path, *, environ: Mapping[str, str], cache: Path | None = None) -> str:
    """The sha256 of the archive of the project in ``folder``, remembered below ``cache`` by the looks of its files.

    Raises ``FolderMissing``, ``LinkLeaves``, ``SourceTooLarge``, ``GitMissing``.
    """
    before = time.time_ns()
    found = files_of(folder, environ=environ)
    looks = hashlib.sha256()
    newest = 0
    for file in found:
        told = os.lstat(folder / file.path)
        newest = max(newest, told.st_mtime_ns, told.st_ctime_ns)
        line = (file, told.st_mtime_ns, told.st_ctime_ns, told.st_ino, told.st_dev)
        looks.update(repr(line).encode("utf-8", "surrogateescape") + b"\n")
    remembered = (cache or paths.cache_root()) / "sources" / "folders" / looks.hexdigest()
    if newest + _SETTLED < before and remembered.is_file():
        return remembered.read_text(encoding="ascii")
    digest, _ = sourcetar.write(_read(folder, found))
    if newest + _SETTLED < before:
        files.write_atomic(remembered, digest.encode())
    return digest


def archive(folder: Path, target: IO[bytes], *, environ: Mapping[str, str]) -> tuple[str, int]:
    """Writes the archive of the project in ``folder`` to ``target``; its sha256 and size. Raises as ``content``."""
    return sourcetar.write(_read(folder, files_of(folder, environ=environ)), target)


def files_of(folder: Path, *, environ: Mapping[str, str]) -> list[SourceFile]:
    """The files of the project in ``folder``, sorted: those that git tracks or would, else all.

    Bytecode, virtual environments and what builds leave behind are no part of it unless git tracks them.
    """
    if not folder.is_dir():
        raise FolderMissing(f"there is no folder {folder}")
    listed = _of_git(folder, environ) if _below_git(folder) else None
    # A folder that git ignores as a whole is no project of that repository.
    if listed is None or not set(_PROJECT) & set(listed):
        listed = list(_walk(folder, "", top=True))
    found = [file for path in sorted(set(listed)) if (file := _file(folder, path)) is not None]
    sourcetar.check(found, str(folder))
    return found


def _below_git(folder: Path) -> bool:
    absolute = folder.absolute()
    return any((parent / ".git").exists() for parent in (absolute, *absolute.parents))


def _of_git(folder: Path, environ: Mapping[str, str]) -> list[str]:
    arguments = ["ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard"]
    told = repositories.run_git(arguments, environ=environ, folder=folder)
    if told.code != 0:
        raise RepositoryUnreachable(f"{folder}: git does not tell its files: {told.stderr.strip()}")
    found: list[str] = []
    for record in told.output.split(b"\0"):
        mark, _, name = record.decode("utf-8", "surrogateescape").partition(" ")
        if not name:
            continue
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # another repository: a submodule, or one that lies there
            if mark != "?" and not any(path.iterdir()):
                raise HasSubmodules(f"{folder}: {name} is a submodule that is not checked out")
            found += [f"{name.rstrip('/')}/{inner}" for inner in _of_nested(path, environ)]
        elif mark != "?" or not _skipped_path(folder, name):
            found.append(name)
    return found


def _of_nested(path: Path, environ: Mapping[str, str]) -> list[str]:
    if not (path / ".git").exists():
        return list(_walk(path, "", top=False))
    return _of_git(path, environ)


def _walk(folder: Path, inside: str, *, top: bool) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{inside}{entry.name}"
            if _skipped(folder / entry.name, entry.name, top=top):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{path}/", top=False)
            else:
                yield path


def _skipped_path(folder: Path, name: str) -> bool:
    parts = name.split("/")
    return any(
        _skipped(folder.joinpath(*parts[: number + 1]), part, top=number == 0) for number, part in enumerate(parts)
    )


def _skipped(path: Path, name: str, *, top: bool) -> bool:
    if name in {".git", "__pycache__", ".flowkiln"} or name.endswith((".pyc", ".egg-info", ".locks")):
        return True
    if top and name in {"build", "dist"} and path.is_dir():
        return True
    return path.is_dir() and (path / "pyvenv.cfg").is_file()


def _file(folder: Path, path: str) -> SourceFile | None:
    """The file at ``path``; None for one that git has and the folder has not, and for what is no file."""
    try:
        told = os.lstat(folder / path)
    except OSError:
        return None
    if stat.S_ISLNK(told.st_mode):
        return SourceFile(path, 0, link=str((folder / path).readlink()))
    return SourceFile(path, told.st_size, bool(told.st_mode & 0o100)) if stat.S_ISREG(told.st_mode) else None


def _read(folder: Path, found: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, Callable[[], bytes]]]:
    return ((file, (folder / file.path).read_bytes) for file in found)
