"""What ties a tree to its prefix and interpreter: launchers, ``pyvenv.cfg``, interpreter links, the marker.

Glue is a pure function of (prefix, interpreter, launchers) and no part of ``tree_digest``.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowkiln.envs.installer import Launcher

_LONGEST_LINE = 127
"""Bytes of a first line that every kernel reads whole."""
_LAUNCHER = """\
import sys
from {module} import {name}
if __name__ == "__main__":
    sys.exit({attr}())
"""
MARKER = """\
[externally-managed]
Error=This environment is made by flowkiln from a lock and shared by every flow that has the same lock.
 Declare the package where the environment is declared, and lock again.
"""


class Glue(NamedTuple):
    """One file or link that names the prefix: ``data`` for a file, ``target`` for a symbolic link."""

    path: str
    mode: int
    data: bytes
    target: str = ""


def links(interpreter: str, python: str) -> list[Glue]:
    """The interpreter links of a prefix for Python ``X.Y``; ``interpreter`` is an absolute path."""
    return [
        Glue("bin/python", 0o777, b"", interpreter),
        Glue("bin/python3", 0o777, b"", "python"),
        Glue(f"bin/python{python}", 0o777, b"", "python"),
    ]


def configuration(interpreter: str, version: str) -> Glue:
    """``pyvenv.cfg`` for an interpreter of version ``X.Y.Z``: what makes the prefix an environment."""
    home = interpreter.rpartition("/")[0]
    lines = [
        f"home = {home}",
        "include-system-site-packages = false",
        f"version = {version}",
        f"executable = {interpreter}",
    ]
    return Glue("pyvenv.cfg", 0o444, ("\n".join(lines) + "\n").encode())


def marker(python: str) -> Glue:
    """The file that keeps installers of other tools away (PEP 668)."""
    return Glue(f"lib/python{python}/EXTERNALLY-MANAGED", 0o444, MARKER.encode())


def launcher(one: Launcher, prefix: str, read: Callable[[], bytes]) -> Glue:
    """The file that ``bin/NAME`` is in ``prefix``. ``read`` gives the bytes of a script of the wheel."""
    first = _first_line(f"{prefix}/bin/python")
    if one.entry_point is not None:
        point = one.entry_point
        name = point.attr.partition(".")[0]
        code = _LAUNCHER.format(module=point.module, name=name, attr=point.attr)
        return Glue(one.path, 0o555, first + code.encode())
    _, _, rest = read().partition(b"\n")
    return Glue(one.path, 0o555, first + rest)


def all_of(
    prefix: str,
    interpreter: str,
    version: str,
    launchers: Iterable[tuple[Launcher, Callable[[], bytes]]],
) -> tuple[Glue, ...]:
    """All glue of one prefix, sorted by path. Without an ``interpreter`` one of its packages is the interpreter."""
    python = version.rpartition(".")[0]
    if interpreter:
        found = [*links(interpreter, python), configuration(interpreter, version), marker(python)]
    else:
        found = [Glue("conda-meta/history", 0o444, b""), marker(python)]
    found += [launcher(one, prefix, read) for one, read in launchers]
    return tuple(sorted(found))


def _first_line(executable: str) -> bytes:
    """``#!`` with ``executable``, by way of ``/bin/sh`` where the kernel would not take the path.

    The second form is a shell script that starts Python on itself, and to Python a string followed by its code.
    """
    line = b"#!" + executable.encode() + b"\n"
    if len(line) <= _LONGEST_LINE and b" " not in line:
        return line
    return b"#!/bin/sh\n'''exec' " + shlex.quote(executable).encode() + b' "$0" "$@"\n' + b"' '''\n"
