"""The programs we compare with, each in an environment of its own below the benchmark's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from uv import find_uv_bin

from benchmarks.measure import run


def uv() -> str:
    """The uv that flowkiln itself uses."""
    return find_uv_bin()


class Peers:
    """Environments made on demand below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._built = False

    def _environment(self, name: str, *packages: str) -> Path:
        folder = self.root / name
        if not (folder / "ready").exists():
            run([uv(), "venv", "--quiet", "--clear", "--python", sys.executable, folder], cwd=self.root)
            run([uv(), "pip", "install", "--quiet", "--python", folder / "bin/python", *packages], cwd=self.root)
            (folder / "ready").touch()
        return folder / "bin" / "python"

    def metaflow(self) -> Path:
        """Python of an environment with Metaflow, pandas installed for the row that imports it."""
        return self._environment("metaflow", "metaflow", "pandas>=2.2,<3", "setuptools")

    def flowkiln(self) -> Path:
        """Python of an environment with flowkiln, built from the sources as they are now, and the same pandas."""
        source = Path(__file__).resolve().parent.parent
        project = f"flowkiln[conda] @ {source.as_uri()}"
        python = self._environment("flowkiln", project, "pandas>=2.2,<3")
        if not self._built:
            install = [uv(), "pip", "install", "--quiet", "--python", str(python)]
            run([*install, "--reinstall-package", "flowkiln", project], cwd=self.root)
            self._built = True
        return python

    def environ(self, home: Path) -> dict[str, str]:
        """A process environment with its own home, caches and stores, the same for both sides."""
        home.mkdir(parents=True, exist_ok=True)
        kept = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "LANG", "TMPDIR")
        environ = {key: os.environ[key] for key in kept if key in os.environ}
        return environ | {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "USER": "bench",
            "USERNAME": "bench",
            "FLOWKILN_CACHE": str(home / "cache"),
            "METAFLOW_HOME": str(home / "metaflow"),
        }
