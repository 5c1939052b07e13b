"""Isolated homes: every folder that flowkiln or its tools may touch, inside one folder of the test."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {
    **os.environ,
    "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]),
}
"""The environment as the test run was started, for the few tests that use the machine's own package index; the
programs of the development environment (uv, flowkiln) come first."""

_AMBIENT = ("FLOWKILN_", "METAFLOW_", "PIP_", "UV_", "VIRTUAL_ENV", "PYTHON", "CONDA_", "NETRC", "XDG_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Home:
    """Where things are while a test runs."""

    root: Path

    @property
    def home(self) -> Path:
        """``HOME``."""
        return self.root / "home"

    @property
    def cache(self) -> Path:
        """``FLOWKILN_CACHE``."""
        return self.root / "cache"

    @property
    def config(self) -> Path:
        """``FLOWKILN_CONFIG``: a file that does not exist yet."""
        return self.root / "config" / "config.toml"

    @property
    def store(self) -> Path:
        """``FLOWKILN_STORE``."""
        return self.root / "store"

    @property
    def work(self) -> Path:
        """A folder to work in."""
        return self.root / "work"

    def prepare(self) -> Home:
        """Makes ``HOME`` and the work folder; itself."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        return self

    def variables(self) -> dict[str, str]:
        """The variables that point here."""
        return {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.root / "xdg-cache"),
            "XDG_CONFIG_HOME": str(self.root / "xdg-config"),
            "XDG_DATA_HOME": str(self.root / "xdg-data"),
            "FLOWKILN_CACHE": str(self.cache),
            "FLOWKILN_CONFIG": str(self.config),
            "FLOWKILN_STORE": str(self.store),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def environ(self, **more: str) -> dict[str, str]:
        """An environment for a subprocess: the machine's without ambient settings, ours, then ``more``."""
        return {**stripped(MACHINE), **self.variables(), **more}


def is_ambient(name: str) -> bool:
    """Whether a variable would change what tests see: settings of flowkiln, pip, uv, Python, proxies."""
    return name.startswith(_AMBIENT) or name == "CI" or name.lower() in _PROXIES


def stripped(environ: dict[str, str]) -> dict[str, str]:
    """``environ`` without ambient settings."""
    return {name: value for name, value in environ.items() if not is_ambient(name)}


HOSTILE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "http://127.0.0.1:9/extra",
    "PIP_NO_INDEX": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_USER": "1",
    "UV_INDEX_URL": "http://127.0.0.1:9/simple",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
    "UV_OFFLINE": "1",
    "UV_SYSTEM_PYTHON": "1",
    "UV_PYTHON": "2.7",
    "UV_RESOLUTION": "lowest",
    "UV_PRERELEASE": "allow",
    "UV_COMPILE_BYTECODE": "1",
    "UV_LINK_MODE": "symlink",
    "UV_PROJECT_ENVIRONMENT": "/nonexistent/venv",
    "VIRTUAL_ENV": "/nonexistent/venv",
    "CONDA_PREFIX": "/nonexistent/conda",
    "PYTHONHASHSEED": "12345",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TZ": "Pacific/Kiritimati",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "COLUMNS": "20",
    "NO_COLOR": "",
    "FORCE_COLOR": "1",
    "MAKEFLAGS": "-n",
}
"""Settings of a real machine that must change nothing: other indexes, another Python, locale and zone."""
