"""What ties a tree to its prefix and interpreter: launchers, ``pyvenv.cfg``, interpreter links, the marker.

Glue is a pure function of (prefix, interpreter, launchers) and no part of ``tree_digest``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from installer.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowkiln.envs.installer import Launcher

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
    executable = f"{prefix}/bin/python"
    if one.entry_point is not None:
        point = one.entry_point
        script = Script(point.name, point.module, point.attr, "gui" if point.gui else "console")
        _, data = script.generate(executable, "posix")
        return Glue(one.path, 0o555, data)
    _, _, rest = read().partition(b"\n")
    return Glue(one.path, 0o555, _first_line(executable) + b"\n" + rest)


def all_of(
    prefix: str,
    interpreter: str,
    version: str,
    launchers: Iterable[tuple[Launcher, Callable[[], bytes]]],
) -> tuple[Glue, ...]:
    """All glue of one prefix, sorted by path."""
    python = version.rpartition(".")[0]
    found = [*links(interpreter, python), configuration(interpreter, version), marker(python)]
    found += [launcher(one, prefix, read) for one, read in launchers]
    return tuple(sorted(found))


def _first_line(executable: str) -> bytes:
    """``#!`` with ``executable``, by way of ``/bin/sh`` where the kernel would not take the path."""
    name, data = Script("x", "x", "x", "console").generate(executable, "posix")
    head = data.partition(b"# -*- coding")[0]
    assert name == "x"
    return head.rstrip(b"\n")
