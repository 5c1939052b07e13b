"""The conda-lock command, in an environment of its own that test runs share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flowkiln._base import files
from tests.services import unavailable
from tests.services.home import MACHINE

REQUIREMENT = "conda-lock>=4,<5"


def python() -> Path:
    """The interpreter that has conda-lock, installed from the machine's package index where it is not yet."""
    caches = MACHINE.get("XDG_CACHE_HOME") or Path(MACHINE.get("HOME") or Path.home()) / ".cache"
    home = Path(caches).absolute() / "flowkiln-tools" / f"conda-lock-4-py{sys.version_info[0]}{sys.version_info[1]}"
    ready = home / "ready"
    with files.locked(home.with_suffix(".lock")):
        if not ready.exists():
            environ = {**MACHINE, "UV_PYTHON_DOWNLOADS": "never"}
            for words in (
                ["venv", "-q", "--clear", "--python", sys.executable, str(home)],
                ["pip", "install", "-q", "--python", str(home / "bin/python"), REQUIREMENT],
            ):
                done = subprocess.run(["uv", *words], env=environ, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    unavailable(f"conda-lock cannot be installed: {done.stderr[-400:]}")
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
