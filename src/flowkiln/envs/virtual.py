"""The virtual packages that a platform is assumed to have, for the solver: never those of this machine.

A function of the platform and the request alone: ``CONDA_OVERRIDE_*``, this kernel and this GPU change no lock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln.envs.errors import UnknownOption
from flowkiln.envs.wheels import MACOS_FLOOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln._base.platforms import Platform

KERNEL = "5.10"
"""The Linux kernel assumed: the oldest that distributions still maintained run, and what conda-lock assumes."""

_MICROARCHITECTURES = {
    ("linux", "amd64"): "x86_64",
    ("linux", "arm64"): "aarch64",
    ("darwin", "amd64"): "x86_64",
    ("darwin", "arm64"): "m1",
}
_VERSION = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True, slots=True)
class Virtual:
    """One virtual package: its name with the underscores, version, build, and who says so."""

    name: str
    version: str
    build: str
    origin: str

    @property
    def pair(self) -> tuple[str, str]:
        """As locks record it: ``("glibc", "2.28")``, ``("archspec", "x86_64")``."""
        return self.name.removeprefix("__"), self.build if self.name == "__archspec" else self.version

    def __str__(self) -> str:
        shown = self.build if self.name == "__archspec" else self.version
        return f"{self.name} {shown} ({self.origin})"


def assumed(
    platform: Platform, *, glibc: tuple[int, int], own: Iterable[tuple[str, str]] = ()
) -> tuple[Virtual, ...]:
    """The virtual packages of ``platform``, by name; ``own`` are the request's, which win.

    ``glibc`` is the floor of the request. A CUDA driver is assumed where the request names one, and on no Mac.
    Raises ``UnknownOption`` for a version that is none.
    """
    machine = _MICROARCHITECTURES[platform.os, platform.arch]
    found = [_one("unix", "0", str(platform)), _one("archspec", machine, str(platform))]
    if platform.os == "linux":
        found += [_one("linux", KERNEL, f"default of {platform}"), _one("glibc", f"{glibc[0]}.{glibc[1]}", "glibc")]
    else:
        found.append(_one("osx", ".".join(map(str, MACOS_FLOOR)), f"default of {platform}"))
    told = [_own(name, version) for name, version in own if platform.os == "linux" or name != "cuda"]
    by_name = {one.name: one for one in (*found, *told)}
    return tuple(by_name[name] for name in sorted(by_name))


def _one(name: str, version: str, origin: str) -> Virtual:
    if name == "archspec":
        return Virtual("__archspec", "1", version, origin)
    return Virtual(f"__{name}", version, "0", origin)


def _own(name: str, version: str) -> Virtual:
    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise UnknownOption(f"{name!r} is not the name of a virtual package", hint="Write it as `cuda`.")
    if name != "archspec" and not _VERSION.fullmatch(version):
        raise UnknownOption(f"{name}={version!r} is not a version", hint=f'Write for example {name}="12.4".')
    return _one(name, version, name)
