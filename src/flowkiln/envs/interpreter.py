"""A Python interpreter of this machine as a value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln._base import platforms
from flowkiln.envs.installerrors import InterpreterOutOfBounds, PlatformTooOld

if TYPE_CHECKING:
    from flowkiln._base.platforms import Platform
    from flowkiln.envs.lock import PlatformLock


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A released CPython with the GIL. ``path`` is the base executable, never a venv's or a shim's.

    It is empty for an environment that brings its own.

    ``version`` is ``X.Y.Z``; ``platform`` what it was built for.
    """

    path: str
    version: str
    platform: Platform

    @property
    def python(self) -> str:
        """``X.Y``."""
        return self.version.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Part of a tree's name: two interpreters of one version have different ones."""
        if not self.path:
            return f"{self.version}-own"
        return f"{self.version}-{hashlib.sha256(self.path.encode()).hexdigest()[:8]}"


def own(part: PlatformLock) -> Interpreter | None:
    """The interpreter that ``part`` brings; None where it comes from elsewhere."""
    found = part.own_python
    return None if found is None else Interpreter(path="", version=found.version, platform=part.platform)


def numbers(version: str) -> tuple[int, ...]:
    """``X.Y.Z`` for comparing."""
    return tuple(int(part) for part in version.split("."))


def within(version: str, part: PlatformLock) -> bool:
    """Whether a full version is one that ``part`` holds for."""
    if version.rpartition(".")[0] != part.python:
        return False
    at_least = part.python_minimum is None or numbers(version) >= numbers(part.python_minimum)
    return at_least and (part.python_below is None or numbers(version) < numbers(part.python_below))


def bounds(part: PlatformLock) -> str:
    """The versions that ``part`` holds for, in words: ``3.11 (>= 3.11.3)``."""
    limits = [f">= {part.python_minimum}"] if part.python_minimum else []
    limits += [f"< {part.python_below}"] if part.python_below else []
    return f"{part.python} ({', '.join(limits)})" if limits else part.python


def check(interpreter: Interpreter, part: PlatformLock) -> None:
    """Guarantees that ``interpreter``, on this machine, may carry ``part``.

    Raises InterpreterOutOfBounds and PlatformTooOld.
    """
    if not within(interpreter.version, part):
        message = f"{interpreter.path} is Python {interpreter.version}; the lock holds for {bounds(part)}"
        raise InterpreterOutOfBounds(message, hint=f"Install a Python {bounds(part)}, or lock again.")
    if interpreter.platform != part.platform:
        message = f"this machine is {interpreter.platform}; the lock is for {part.platform}"
        raise PlatformTooOld(message, hint=f"Lock for {interpreter.platform} as well, or use a container.")
    check_libc(part)


def check_libc(part: PlatformLock) -> None:
    """Guarantees that this machine's C library carries ``part``. Raises PlatformTooOld with both versions."""
    libc = platforms.host_glibc()
    if part.glibc is not None and (libc is None or libc < part.glibc):
        floor = ".".join(map(str, part.glibc))
        musl = None if libc else platforms.host_musl()
        here = f"glibc {libc[0]}.{libc[1]}" if libc else f"musl {musl}" if musl else "no glibc"
        message = f"the lock needs glibc {floor}; this machine has {here}"
        raise PlatformTooOld(message, hint="Lock with a lower floor, or use a newer system or a container.")
