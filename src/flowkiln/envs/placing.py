"""Puts a stored file at a second path without copying its bytes where the file system allows it.

Cloned (copy on write) where possible, else hard-linked, else copied. Cloning and linking are tried once per pair
of folders and remembered.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FICLONE = 0x40049409
_CANNOT_CLONE = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.ETXTBSY,
)
_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)


class Placer:
    """Places files of one source folder into one target folder. ``how`` is ``clone``, ``link`` or ``copy``."""

    def __init__(self, how: str = "clone") -> None:
        self.how = how

    def place(self, source: str, target: str, mode: int) -> bool:
        """Makes ``target``, which must not exist, equal to ``source`` with ``mode``; whether it is a hard link.

        Raises ``OSError``.
        """
        if self.how == "clone":
            try:
                _clone(source, target, mode)
            except OSError as error:
                if error.errno not in _CANNOT_CLONE:
                    raise
                self.how = "link"
            else:
                return False
        if self.how == "link":
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
                # EMLINK concerns one file, the others the folders.
                if error.errno != errno.EMLINK:
                    self.how = "copy"
            else:
                return True
        shutil.copyfile(source, target)
        os.chmod(target, mode)  # noqa: PTH101  thousands of files: no Path objects
        return False


def _clone_linux(source: str, target: str, mode: int) -> None:
    origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(copy, _FICLONE, origin)
            os.fchmod(copy, mode)
        except OSError:
            os.unlink(target)  # noqa: PTH108
            raise
        finally:
            os.close(copy)
    finally:
        os.close(origin)


def _clone_darwin(source: str, target: str, mode: int) -> None:
    import ctypes  # noqa: PLC0415  slow to load, and not for Linux

    library = ctypes.CDLL(None, use_errno=True)
    if library.clonefile(os.fsencode(source), os.fsencode(target), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)
    os.chmod(target, mode)  # noqa: PTH101


_clone: Callable[[str, str, int], None] = _clone_darwin if sys.platform == "darwin" else _clone_linux
