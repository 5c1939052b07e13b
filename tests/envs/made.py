"""Locks and interpreters for the tests of installing, made from generated wheels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import platforms
from flowkiln.envs.interpreter import Interpreter
from flowkiln.envs.lock import LockedWheel, PlatformLock
from tests.services.wheels import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.services.wheels import Distribution

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = f"{PYTHON}.{sys.version_info.micro}"


def interpreter() -> Interpreter:
    """The interpreter that the tests run on, its base rather than a venv's."""
    base = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    return Interpreter(path=str(base), version=VERSION, platform=platforms.host())


def locked(one: Distribution, url: str = "", **changes: object) -> LockedWheel:
    """``one`` as a lock names it; ``url`` is an index's base, or a folder for ``file:`` URLs."""
    if url.startswith("http"):
        url = f"{url}/files/{normalise(one.name)}/{one.filename}"
    elif url:
        url = one.write(Path(url)).as_uri()
    values: dict[str, object] = {
        "name": normalise(one.name),
        "version": one.version,
        "filename": one.filename,
        "url": url or f"https://index.invalid/{one.filename}",
        "sha256": one.sha256,
        "size": one.size,
    }
    return LockedWheel(**{**values, **changes})  # type: ignore[arg-type]


def part(wheels: Iterable[LockedWheel], **changes: object) -> PlatformLock:
    """A lock for this machine and interpreter."""
    values: dict[str, object] = {"platform": platforms.host(), "python": PYTHON, "wheels": tuple(wheels)}
    return PlatformLock(**{**values, **changes})  # type: ignore[arg-type]
