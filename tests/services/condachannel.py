"""The channel of several hundred packages that tests of conda environments share, made once for each recipe.

Real: python 3.11 and 3.13 for linux-64 and linux-aarch64, numpy, pandas, scipy, scikit-learn, pip and what they
depend on, from Debian and from the wheels that ``condawheels.json`` pins. Invented: those of ``condacases.py``.

From a shell: ``python -m tests.services.condachannel`` prints its folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from tests.services.channel import Channel
from tests.services.condacases import cases
from tests.services.condapackages import package
from tests.services.condapython import interpreter
from tests.services.condawheels import from_wheel
from tests.stack.place import CannotRun, built, locked

SUBDIRS = ("linux-64", "linux-aarch64")
PYTHONS = {"3.11": "2.17", "3.13": "2.38"}
"""The interpreters and the C library that each says it needs."""

_PINS = Path(__file__).with_name("condawheels.json")
_KEPT = 2 * 24 * 3600


def conda_channel() -> Channel:
    """The shared channel, indexed; nobody writes into it, :meth:`Channel.mirror` gives one's own.

    Raises :class:`CannotRun` where wheels or Debian's packages cannot be fetched and were not before.
    """
    folder = built("conda", _recipe())
    with locked("conda-channel"):
        if not folder.exists():
            _forget_old(folder.parent)
            scratch = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(scratch, ignore_errors=True)
            _make(Channel(scratch))
            scratch.rename(folder)
        (folder / "used").touch()
    return Channel(folder)


def _recipe() -> str:
    """A name that changes with everything that the channel is made of."""
    here = Path(__file__).parent
    names = ("condaarchive", "condacases", "condachannel", "condapackages", "condapython", "condawheels", "channel")
    digest = hashlib.sha256(_PINS.read_bytes())
    for path in (*(here / f"{name}.py" for name in names), here.parent / "stack" / "debian.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make(channel: Channel) -> None:
    for python, glibc in PYTHONS.items():
        for subdir in SUBDIRS:
            interpreter(channel.folder, python, subdir=subdir, glibc=glibc)
        mark = f"cp{python.replace('.', '')}"
        package(
            channel.folder,
            "python_abi",
            python,
            build=f"5_{mark}",
            build_number=5,
            constrains=[f"python {python}.*"],
        )
    pins = json.loads(_PINS.read_text(encoding="utf-8"))
    with ThreadPoolExecutor(4) as pool:
        wheels = list(pool.map(_wheel, pins))
    for pin, wheel in zip(pins, wheels, strict=True):
        subdir = "linux-aarch64" if wheel.stem.endswith("aarch64") else "linux-64"
        uploaded = int(datetime.fromisoformat(pin["uploaded"]).timestamp() * 1000)
        python = "3.13" if "-cp313-" in wheel.name else "3.11"
        from_wheel(channel.folder, wheel, subdir=subdir, python=python, timestamp=uploaded)
    cases(channel)
    channel.index()


def _wheel(pin: dict[str, str]) -> Path:
    """Where the pinned wheel is; fetched if it is not there yet, and checked."""
    path = built("wheels", pin["filename"])
    if not path.exists():
        try:
            with urllib.request.urlopen(pin["url"], context=ssl.create_default_context(), timeout=120) as answer:
                data = answer.read()
        except OSError as error:
            raise CannotRun("the conda channel", f"{pin['filename']} cannot be fetched: {error}") from error
        if hashlib.sha256(data).hexdigest() != pin["sha256"]:
            raise CannotRun("the conda channel", f"{pin['filename']} has another hash than pinned")
        scratch = path.with_suffix(".new")
        scratch.write_bytes(data)
        scratch.replace(path)
    return path


def _forget_old(folder: Path) -> None:
    """Removes the channels of earlier recipes that nobody used for two days."""
    for used in folder.glob("*/used"):
        if time.time() - used.stat().st_mtime > _KEPT:
            shutil.rmtree(used.parent, ignore_errors=True)


if __name__ == "__main__":
    print(conda_channel().folder)  # noqa: T201 - the folder is this command's result
