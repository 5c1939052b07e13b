"""Platforms in the users' spelling: ``linux/amd64``, ``linux/arm64``, ``darwin/arm64``, ``darwin/amd64``.

uv's, conda's and wheel tags' spellings live in the adapters that need them.
"""

from __future__ import annotations

import os
import platform as host_platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_MACHINES = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
}
_SYSTEMS = {"linux": "linux", "darwin": "darwin", "macos": "darwin", "osx": "darwin"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system with an architecture: what a lock is made for. ``str()`` gives ``os/arch``."""

    os: str
    arch: str

    @classmethod
    def parse(cls, text: str) -> Platform:
        """The platform that ``text`` names, common spellings included.

        Raises ``ValueError`` naming the accepted platforms.
        """
        system, _, machine = text.strip().lower().replace("-", "/").replace("_64", "%64").partition("/")
        machine = machine.replace("%64", "_64")
        if system not in _SYSTEMS or machine not in _MACHINES:
            message = f"unknown platform {text!r}; known: {', '.join(str(p) for p in KNOWN)}"
            raise ValueError(message)
        return cls(_SYSTEMS[system], _MACHINES[machine])

    def __str__(self) -> str:
        return f"{self.os}/{self.arch}"

    @property
    def slug(self) -> str:
        """The platform as part of a file name: ``linux-amd64``."""
        return f"{self.os}-{self.arch}"


KNOWN = (
    Platform("linux", "amd64"),
    Platform("linux", "arm64"),
    Platform("darwin", "arm64"),
    Platform("darwin", "amd64"),
)


def from_system(system: str, machine: str, *, translated: bool = False) -> Platform:
    """The platform of ``sys.platform`` and ``platform.machine()``; ``translated`` is Rosetta's flag.

    A process under Rosetta sees an Intel machine on arm64 hardware; natively run steps are arm64 there.
    Raises ``ValueError`` for anything that flowkiln has no platform for.
    """
    found = Platform.parse(f"{system}/{machine}")
    if found.os == "darwin" and translated:
        return Platform("darwin", "arm64")
    return found


def host() -> Platform:
    """The platform of this machine. ``FLOWKILN_HOST_PLATFORM`` (``os/arch``) replaces it, for tests of locking."""
    told = os.environ.get("FLOWKILN_HOST_PLATFORM")
    if told:
        return Platform.parse(told)
    translated = sys.platform == "darwin" and _is_translated()
    return from_system(sys.platform, host_platform.machine(), translated=translated)


def host_glibc() -> tuple[int, int] | None:
    """The glibc version of this machine as (major, minor), or None where there is none (musl, macOS)."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        return None
    if not text or not text.startswith("glibc "):
        return None
    major, _, rest = text.removeprefix("glibc ").partition(".")
    return int(major), int(rest.partition(".")[0])


def host_musl(folder: Path = Path("/lib")) -> str | None:
    """The version of musl on this machine, as its loader in ``folder`` tells it; None where there is none."""
    for loader in sorted(folder.glob("ld-musl-*.so.1")):
        try:
            answer = subprocess.run([loader], capture_output=True, text=True, check=False, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            continue
        _, found, rest = (answer.stderr + answer.stdout).partition("Version ")
        if found:
            return rest.split()[0]
    return None


def _is_translated() -> bool:
    try:
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "sysctl.proc_translated"], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return answer.stdout.strip() == "1"
