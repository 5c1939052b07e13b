"""Wheel tags of a target and the choice of one wheel by their order.

The target is a value: nothing here looks at the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowkiln._base.platforms import Platform

MACOS_FLOOR = (14, 0)
"""Oldest macOS that a darwin lock is made for."""

OLDEST_GLIBC = (2, 17)
"""Lowest floor that can be asked for: uv knows no older manylinux."""

_MACHINES = {("linux", "amd64"): "x86_64", ("linux", "arm64"): "aarch64"}
_MAC_MACHINES = {"amd64": "x86_64", "arm64": "arm64"}
_UV_MANYLINUX: tuple[int, ...] = (17, 28, *range(31, 41))
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST_MINOR = {"amd64": 5, "arm64": 17}


@dataclass(frozen=True)
class Target:
    """What a lock is made for: a platform with its floor and a Python ``X.Y``."""

    platform: Platform
    python: str
    glibc: tuple[int, int] | None

    @property
    def uv_platform(self) -> str:
        """The platform as ``uv --python-platform`` spells it: the highest manylinux not above the floor."""
        if self.platform.os == "darwin":
            return ("aarch64" if self.platform.arch == "arm64" else "x86_64") + "-apple-darwin"
        machine = _MACHINES[self.platform.os, self.platform.arch]
        return f"{machine}-manylinux_2_{self._manylinux}"

    @property
    def _manylinux(self) -> int:
        assert self.glibc is not None
        floor = self.glibc
        return max(minor for minor in _UV_MANYLINUX if (2, minor) <= floor)

    @cached_property
    def ranks(self) -> dict[Tag, int]:
        """Every tag that the target accepts with its place, best first."""
        return _ranks(self.platform.os, self.platform.arch, self.python, self._floor)

    @property
    def _floor(self) -> int:
        return self._manylinux if self.platform.os == "linux" else 0

    def rank(self, filename: str) -> tuple[int, tuple[int, str]] | None:
        """How good a wheel is for the target, lower is better; None when no tag matches or it is no wheel."""
        try:
            _, _, build, tags = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            return None
        places = [self.ranks[tag] for tag in tags if tag in self.ranks]
        if not places:
            return None
        number, text = build or (0, "")
        return min(places), (-number, text)

    def best(self, filenames: Iterable[str]) -> str | None:
        """The wheel to install among ``filenames``, or None when none fits. Ties go to the first by name."""
        ranked = sorted((place, name) for name in filenames if (place := self.rank(name)) is not None)
        return ranked[0][1] if ranked else None


def tags_of(filename: str) -> str:
    """The tag part of a wheel's file name: ``cp311-cp311-manylinux_2_28_x86_64``."""
    return "-".join(filename.removesuffix(".whl").split("-")[-3:])


@lru_cache(maxsize=32)
def _ranks(system: str, arch: str, python: str, floor: int) -> dict[Tag, int]:
    major, minor = python.split(".")
    version = (int(major), int(minor))
    interpreter = f"cp{version[0]}{version[1]}"
    platforms = list(_platforms(system, arch, floor))
    ordered = [
        *cpython_tags(version, abis=[interpreter], platforms=platforms),
        *compatible_tags(version, interpreter=interpreter, platforms=platforms),
    ]
    ranks: dict[Tag, int] = {}
    for place, tag in enumerate(ordered):
        ranks.setdefault(tag, place)
    return ranks


def _platforms(system: str, arch: str, floor: int) -> Iterator[str]:
    if system == "darwin":
        yield from mac_platforms(MACOS_FLOOR, _MAC_MACHINES[arch])
        return
    machine = _MACHINES[system, arch]
    for minor in range(floor, _OLDEST_MINOR[arch] - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in _LEGACY and (arch == "amd64" or minor == 17):
            yield f"{_LEGACY[minor]}_{machine}"
    yield f"linux_{machine}"
