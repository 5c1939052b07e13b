"""Files and locks on disk: whole or absent, locks that die with their process.

Nothing here removes a lock file: ``flock`` ends with the process, and the empty file stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.errors import NoSpace, ReadOnly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def disk_errors(path: Path, *, setting: str = "") -> Iterator[None]:
    """Turns a full disk into ``NoSpace`` and a read-only folder into ``ReadOnly``, naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            message = f"no space left while writing {path}"
            raise NoSpace(message, hint="`flowkiln cache gc --dry-run` shows what can be freed.") from error
        if error.errno in _DENIED:
            where = setting or ("cache" if paths.cache_root() in path.absolute().parents else "")
            move = f", or set `{where}` to another folder" if where else ""
            message = f"cannot write {path}: {os.strerror(error.errno)}"
            raise ReadOnly(message, hint=f"Make it writable{move}.") from error
        raise


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Writes ``data`` to ``path`` whole or not at all, replacing what was there. Raises NoSpace, ReadOnly."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(descriptor, "wb") as stream:  # noqa: PTH123  a descriptor, not a path
                stream.write(data)
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder below ``parent`` that is gone afterwards unless it was renamed away."""
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / f".scratch-{os.getpid()}-{os.urandom(6).hex()}"
        folder.mkdir()
    try:
        yield folder
    finally:
        remove_tree(folder)


def put_folder(scratch: Path, target: Path, sound: Callable[[Path], bool]) -> None:
    """Gives ``scratch`` the name ``target``, unless a ``sound`` folder has it: what else had it is removed."""
    while True:
        try:
            scratch.rename(target)
        except OSError:
            if not os.path.lexists(target):
                raise
        else:
            return
        if sound(target):  # somebody was faster, with the same content
            return
        with scratch_folder(target.parent) as aside, contextlib.suppress(FileNotFoundError):
            target.rename(aside / target.name)  # first: processes that use it find its successor at once


def remove_tree(folder: Path) -> None:
    """Removes ``folder`` and all below it, read-only folders included. Absent is fine."""
    if not folder.exists():
        return
    for parent, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(parent).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Forces a file or folder to the disk (``fsync``)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    waiting: Callable[[str, float], None] | None = None,
    every: float = 5.0,
) -> Iterator[None]:
    """Holds the OS lock on ``path``, waiting for it; ``waiting(holder, seconds)`` is called every ``every`` s.

    ``holder`` is what the present holder wrote of itself: ``pid N: what``. The lock ends with the process.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _acquire(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, waiting, every)
        if not shared:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """The descriptor of a held lock on ``path``, or None when another process holds it. Close it to release."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _acquire(descriptor: int, kind: int, waiting: Callable[[str, float], None] | None, every: float) -> None:
    started = time.monotonic()
    told = started
    pause = 0.005
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            if waiting is not None and now - told >= every:
                told = now
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                waiting(holder, now - started)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        else:
            return
