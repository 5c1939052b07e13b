"""Where flowkiln keeps things on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_root() -> Path:
    """The cache of this user: ``FLOWKILN_CACHE``, else the platform's cache folder. Not created here."""
    told = os.environ.get("FLOWKILN_CACHE")
    if told:
        return Path(told).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "flowkiln"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flowkiln"


def nearest_pyproject(folder: Path) -> Path | None:
    """The ``pyproject.toml`` in ``folder`` or the nearest folder above it, or None."""
    for place in (folder, *folder.parents):
        if (place / "pyproject.toml").is_file():
            return place / "pyproject.toml"
    return None


def user_settings_file() -> Path:
    """The settings file of this user: ``FLOWKILN_CONFIG``, else ``flowkiln/config.toml`` in the config folder."""
    told = os.environ.get("FLOWKILN_CONFIG")
    if told:
        return Path(told).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "flowkiln" / "config.toml"
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "flowkiln" / "config.toml"
