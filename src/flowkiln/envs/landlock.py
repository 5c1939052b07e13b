"""Holds a program to writing below one folder, by Landlock (Linux 5.13 and newer, Documentation/userspace-api).

    python landlock.py FOLDER NETWORK PROGRAM ARGUMENT...

runs PROGRAM in place of itself; NETWORK is ``yes`` or ``no``. Without it no TCP connection is made or taken (Linux
6.7 and newer); reading files stays free. On the standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of the system calls, equal on every architecture."""
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38
_DEATH_SIGNAL, _KILL = 1, 9
_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 13))
"""Writing a file; removing and making of everything."""
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 3
"""Binding and connecting."""
_SCOPES = 3
"""Abstract sockets and signals reach only what is held too."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/shm", "/dev/ptmx", "/dev/pts")  # noqa: S108


def available() -> bool:
    """Whether this kernel can hold a program to a folder."""
    return sys.platform == "linux" and _version() > 0


def hold(folder: str, *, network: bool) -> None:
    """From now on this process, and all that it starts, write below ``folder`` alone. Raises ``OSError``."""
    version = _version()
    handled = _WRITES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    closed = _TCP if version >= 4 and not network else 0
    attributes = struct.pack("Q", handled)
    if version >= 4:
        attributes += struct.pack("Q", closed)
    if version >= 6:
        attributes += struct.pack("Q", _SCOPES)
    ruleset = _call(_CREATE, attributes, len(attributes), 0)
    try:
        _allow(ruleset, folder, handled)
        for device in DEVICES:
            if os.path.exists(device):  # noqa: PTH110  alone, pathlib is not worth its load
                _allow(ruleset, device, handled if os.path.isdir(device) else handled & ((1 << 1) | _TRUNCATE))  # noqa: PTH112
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _call(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _version() -> int:
    try:
        return _call(_CREATE, None, 0, _VERSION)
    except (OSError, AttributeError):
        return 0


def _call(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    told = [
        ctypes.c_char_p(one) if isinstance(one, bytes) or one is None else ctypes.c_long(one) for one in arguments
    ]
    found = int(libc.syscall(ctypes.c_long(number), *told))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def end_with_parent() -> None:
    """From now on this process is killed when the thread that started it ends: nobody waits for it then."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, _KILL, 0, 0, 0)


if __name__ == "__main__":
    end_with_parent()
    hold(sys.argv[1], network=sys.argv[2] == "yes")
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606  the program takes the place of this one
