"""Renaming that refuses to replace, for file systems without hard links."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux: renameat2(2)
_RENAME_EXCL = 4  # macOS: renamex_np(2)


def rename_exclusive(source: str, target: str) -> None:
    """Renames ``source`` to ``target`` unless that exists.

    Raises ``FileExistsError``, and ``OSError`` with ``ENOTSUP`` where the system has no such call.
    """
    library = ctypes.CDLL(None, use_errno=True)
    before, after = os.fsencode(source), os.fsencode(target)
    try:
        if sys.platform == "darwin":
            result = library.renamex_np(before, after, _RENAME_EXCL)
        else:
            result = library.renameat2(_AT_FDCWD, before, _AT_FDCWD, after, _RENAME_NOREPLACE)
    except AttributeError:
        raise OSError(errno.ENOTSUP, "neither hard links nor an exclusive rename", target) from None
    if result != 0:
        number = ctypes.get_errno()
        if number == errno.EINVAL:  # the file system does not know the flag
            raise OSError(errno.ENOTSUP, "neither hard links nor an exclusive rename", target)
        raise OSError(number, os.strerror(number), source, None, target)
