"""The environment variables for running a command in a tree: ``env exec`` and ``env shell``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln.envs.tree import Tree

_DROPPED = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__", "CONDA_PREFIX")


def bytecode_folder(cache: Path) -> Path:
    """Where Python keeps the bytecode of trees: never inside them, but below their own paths in here."""
    return cache / "pyc"


def variables(tree: Tree, cache: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` changed so that ``tree``'s commands and packages are used, and no others of Python."""
    kept = {name: value for name, value in environ.items() if name not in _DROPPED}
    path = [f"{tree.root}/bin", *_without(environ.get("VIRTUAL_ENV"), environ.get("PATH", os.defpath))]
    return kept | {
        "PATH": os.pathsep.join(path),
        "VIRTUAL_ENV": str(tree.root),
        "PYTHONNOUSERSITE": "1",
        "PYTHONPYCACHEPREFIX": str(bytecode_folder(cache)),
    }


def _without(active: str | None, path: str) -> list[str]:
    """The folders of ``path`` without those of a virtual environment that is active now."""
    gone = f"{active}/bin" if active else None
    return [folder for folder in path.split(os.pathsep) if folder != gone]
