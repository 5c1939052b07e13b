"""Whether a pinned base carries an environment: decided from the facts of the pin alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.envs.interpreter import bounds, numbers, within
from flowkiln.images.errors import BaseLibraryUnfit, BaseOfAnotherPlatform, BasePythonDiffers

if TYPE_CHECKING:
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import PlatformLock


def check(pin: BasePin, part: PlatformLock, *, name: str) -> None:
    """Guarantees that environment ``name`` can be baked on ``pin``.

    Raises ``BaseOfAnotherPlatform``, ``BaseLibraryUnfit`` and ``BasePythonDiffers``, with what is there and what is
    needed.
    """
    if pin.platform != part.platform:
        message = f"base {pin.reference} is pinned for {pin.platform}, environment {name!r} needs {part.platform}"
        raise BaseOfAnotherPlatform(message)
    _check_library(pin, part, name)
    if part.own_python is None:
        _check_python(pin, part, name)


def _check_library(pin: BasePin, part: PlatformLock, name: str) -> None:
    if part.glibc is None:
        return
    floor = ".".join(map(str, part.glibc))
    needs = f"environment {name!r} needs glibc {floor}"
    other = f"Name a base with it, as {_official(part)}"
    facts = pin.facts
    if facts.libc == "musl":
        message = f"base {pin.reference} has musl, as Alpine Linux does; {needs}"
        raise BaseLibraryUnfit(message, hint=f"{other}.")
    if facts.libc == "none":
        message = f"base {pin.reference} has no C library; {needs}"
        raise BaseLibraryUnfit(message, hint=f"{other}.")
    if facts.glibc is None:
        message = f"base {pin.reference} does not say which glibc it has; {needs}"
        raise BaseLibraryUnfit(message, hint=f"{other}.")
    if facts.glibc < part.glibc:
        message = f"base {pin.reference} has glibc {facts.glibc[0]}.{facts.glibc[1]}, {needs}"
        raise BaseLibraryUnfit(message, hint="Name a base of a newer system, or lock with a lower floor.")


def _check_python(pin: BasePin, part: PlatformLock, name: str) -> None:
    version = pin.facts.python
    if version is not None and within(version, part):
        return
    has = f"Python {version}" if version else "no Python"
    message = f"base {pin.reference} has {has}, environment {name!r} needs {bounds(part)}"
    raise BasePythonDiffers(message, hint=f"Name a base that has it, as {_official(part)}.")


def _official(part: PlatformLock) -> str:
    """An official image with a Python that ``part`` holds for."""
    below = numbers(part.python_below) if part.python_below else ()
    version = f"{part.python}.{below[2] - 1}" if below and below[2] else part.python
    return f"python:{version}-slim"
