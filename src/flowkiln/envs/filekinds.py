"""What a file that declares an environment is, by its name alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["requirements", "pyproject", "script", "environment", "uvlock", "pylock", "condalock"]
LOCKS: tuple[Kind, ...] = ("uvlock", "pylock", "condalock")
"""Those that say what there is, and are taken as they are."""
_BY_SUFFIX: dict[str, Kind] = {
    ".yml": "environment",
    ".yaml": "environment",
    ".toml": "pyproject",
    ".py": "script",
}
_PYLOCK = re.compile(r"pylock\.(?:[^.]+\.)?toml")
_CONDA_LOCK = re.compile(r"(?:.+[.-])?conda-lock\.ya?ml")


def kind_of(path: Path) -> Kind:
    """What the file called ``path`` is, by its name alone."""
    name = path.name
    if name == "uv.lock":
        return "uvlock"
    if _PYLOCK.fullmatch(name):
        return "pylock"
    if _CONDA_LOCK.fullmatch(name):
        return "condalock"
    return _BY_SUFFIX.get(path.suffix, "requirements")
