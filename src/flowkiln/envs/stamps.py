"""What a folder's files look like to ``stat``, so that a change is found without reading them.

A stamp is (size, inode, mtime in ns, mode) of a file; of a link its target as well. Stamps hold on this machine
alone: after a copy of the cache they differ while the contents do not, and the caller then reads the contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from flowkiln._base import files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Stamp(NamedTuple):
    """One file or link as ``lstat`` shows it. ``mode`` is the whole of ``st_mode``."""

    size: int
    inode: int
    mtime: int
    mode: int
    target: str = ""

    @property
    def permissions(self) -> int:
        """The mode without the file's type."""
        return stat.S_IMODE(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


# Half the time of Stamp(...), for tens of thousands of files at every start of a run.
_new = tuple.__new__


def survey(root: Path | str, *, skip: Iterable[str] = ()) -> dict[str, Stamp]:
    """The stamps of all files and links below ``root`` by relative path; ``skip`` names top-level folders.

    Bytecode in ``__pycache__`` is passed over: whoever runs a tree keeps its bytecode elsewhere and reads none
    from there. Raises ``OSError``.
    """
    found: dict[str, Stamp] = {}
    skipped = frozenset(skip)
    pending = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        bytecode = prefix.endswith("__pycache__/")
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if prefix or name not in skipped:
                        pending.append((entry.path, f"{prefix}{name}/"))
                elif not (bytecode and name.endswith(".pyc")):
                    seen = entry.stat(follow_symlinks=False)
                    target = os.readlink(entry.path) if entry.is_symlink() else ""  # noqa: PTH115
                    found[prefix + name] = _new(
                        Stamp, (seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_mode, target)
                    )
    return found


def of(path: str) -> Stamp:
    """The stamp of one file or link. Raises ``OSError``."""
    seen = os.lstat(path)
    target = os.readlink(path) if stat.S_ISLNK(seen.st_mode) else ""  # noqa: PTH115  no Path per file
    return Stamp(seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_mode, target)


def write(path: Path, stamps: dict[str, Stamp]) -> None:
    """Writes ``stamps`` to ``path``, whole or not at all. Raises NoSpace, ReadOnly."""
    body = json.dumps(stamps, separators=(",", ":")).encode()
    files.write_atomic(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read(path: Path) -> dict[str, Stamp]:
    """The stamps at ``path``; none when it is absent or damaged, and everything is then to be read again."""
    try:
        told, _, body = path.read_bytes().partition(b"\n")
        if told.decode() != hashlib.sha256(body).hexdigest():
            return {}
        return {name: _new(Stamp, values) for name, values in json.loads(body).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
