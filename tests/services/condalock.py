"""The conda-lock command, in an environment of its own that test runs share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from flowkiln._base import files
from tests.services import unavailable
from tests.services.home import MACHINE

REQUIREMENT = "conda-lock>=4,<5"


def tools() -> Path:
    """The folder of the environments that test runs share."""
    caches = MACHINE.get("XDG_CACHE_HOME") or Path(MACHINE.get("HOME") or Path.home()) / ".cache"
    return Path(caches).absolute() / "flowkiln-tools"


def install(home: Path, *requirements: str) -> None:
    """Makes the environment ``home`` anew with packages from the machine's package index."""
    environ = {**MACHINE, "UV_PYTHON_DOWNLOADS": "never"}
    for words in (
        ["venv", "-q", "--clear", "--python", sys.executable, str(home)],
        ["pip", "install", "-q", "--python", str(home / "bin/python"), *requirements],
    ):
        done = subprocess.run([find_uv_bin(), *words], env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            unavailable(f"{home.name} cannot be installed: {done.stderr[-400:]}")


def python() -> Path:
    """The interpreter that has conda-lock, installed where it is not yet."""
    home = tools() / f"conda-lock-4-py{sys.version_info[0]}{sys.version_info[1]}"
    ready = home / "ready"
    with files.locked(home.with_suffix(".lock")):
        if not ready.exists():
            install(home, REQUIREMENT)
            ready.touch()
    return home / "bin" / "python"


def run(*words: str | os.PathLike[str], folder: Path, **environ: str) -> str:
    """What ``conda-lock WORDS`` says in ``folder``."""
    command = [python(), "-m", "conda_lock", *words]
    variables = {**MACHINE, "HOME": str(folder), **environ}
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
