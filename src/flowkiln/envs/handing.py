"""Wheels that uv is given beside those of the indexes: built ones, and those that a request names by URL."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from flowkiln.envs.lock import LockedBuild

_DIRECT = "direct"
_LINKS = "links"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedWheel:
    """A wheel in a file of this machine, and what the lock says of it.

    ``url`` is that of its source, or its own where it was not built; ``index`` is that of a source distribution.
    ``direct`` means that the request names this very wheel: no other one of that name will do.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    path: Path
    url: str
    index: str | None = None
    build: LockedBuild | None = None
    direct: bool = False


def requirements(lines: Sequence[str], handed: Iterable[HandedWheel], folder: Path) -> list[str]:
    """``lines`` (PEP 508) with the direct wheels by their files, which ``folder`` holds then."""
    direct = {one.name: one for one in handed if one.direct}
    return [_named(line, direct, folder) for line in lines] if direct else list(lines)


def links(handed: Iterable[HandedWheel], folder: Path) -> Iterator[Path]:
    """A folder in ``folder`` with the other wheels, where there are any."""
    others = [one for one in handed if not one.direct]
    for one in others:
        _put(one, folder / _LINKS)
    if others:
        yield folder / _LINKS


def locked(wheel: HandedWheel, requires: tuple[str, ...]) -> LockedWheel:
    """What the lock has for ``wheel``, which depends on ``requires``."""
    return LockedWheel(
        name=wheel.name,
        version=wheel.version,
        filename=wheel.filename,
        url=wheel.url,
        sha256=wheel.sha256,
        size=wheel.size,
        index=wheel.index,
        requires=requires,
        build=wheel.build,
    )


def _named(line: str, direct: dict[str, HandedWheel], folder: Path) -> str:
    wanted = Requirement(line)
    wheel = direct.get(normal_name(wanted.name))
    if wheel is None:
        return line
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    marker = f" ; {wanted.marker}" if wanted.marker else ""
    return f"{wheel.name}{extras} @ {_put(wheel, folder / _DIRECT).as_uri()}{marker}"


def _put(wheel: HandedWheel, folder: Path) -> Path:
    """The file under its proper name, which wheels are known by."""
    folder.mkdir(exist_ok=True)
    target = folder.absolute() / wheel.filename
    if not target.exists():
        try:
            os.link(wheel.path, target)
        except OSError:
            shutil.copyfile(wheel.path, target)
    return target
