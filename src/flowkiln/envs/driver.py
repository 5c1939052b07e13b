"""The NVIDIA driver of this machine, held against the CUDA that a lock assumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln.envs import variants
from flowkiln.envs.installerrors import DriverTooOld

if TYPE_CHECKING:
    from flowkiln.envs.lock import PlatformLock

KERNEL_FILE = Path("/proc/driver/nvidia/version")
"""Where the kernel module tells its version. Containers of this machine run on the same one."""
_VERSION = re.compile(r"^NVRM version:.*?\s(?P<version>\d{3,}(?:\.\d+)+)\s", re.MULTILINE)


def found(file: Path | None = None) -> str | None:
    """The version of this machine's driver; None where it is not known, be it that there is none."""
    try:
        text = (file or KERNEL_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = _VERSION.search(text)
    return match["version"] if match else None


def needed(part: PlatformLock) -> tuple[str, str] | None:
    """The CUDA that ``part`` assumes and the oldest driver that offers it; None where either is not known."""
    cuda = dict(part.virtual).get("cuda")
    oldest = variants.driver(cuda) if cuda is not None and part.platform.os == "linux" else None
    return (cuda, oldest) if cuda is not None and oldest is not None else None


def check(part: PlatformLock, file: Path | None = None) -> None:
    """Guarantees that this machine's driver, where it is known, offers the CUDA that ``part`` assumes.

    Raises ``DriverTooOld`` with both versions. A machine without a known driver passes: packages for CUDA run on
    processors alone as well.
    """
    wanted, here = needed(part), found(file)
    if wanted is None or here is None or _numbers(here) >= _numbers(wanted[1]):
        return
    cuda, oldest = wanted
    message = f"the lock is for CUDA {cuda}, which needs NVIDIA driver {oldest} or newer; this machine has {here}"
    raise DriverTooOld(message, data={"cuda": cuda, "needed": oldest, "found": here})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
