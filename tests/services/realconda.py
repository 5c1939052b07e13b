"""A real conda with its own solver, as far as package registries have one: the copy that conda-lock brings along.

conda-lock has conda 24.7 inside, under another name, and PyPI has the SAT solver that it uses. What conda's own
modules import as ``conda`` is led there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flowkiln._base import files
from tests.services import condalock

INSIDE = "conda-lock==4.0.3"
"""The one that has this conda."""
NEEDED = ("pycosat", "conda-package-handling", "conda-package-streaming", "tqdm", "archspec", "frozendict")
SCRIPT = """#!{python}
import importlib, importlib.abc, importlib.util, os, sys

os.environ["CONDA_SOLVER"] = "classic"  # the other one is no package of PyPI


class Led(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        own = name == "conda" or name.startswith("conda.")
        return importlib.util.spec_from_loader(name, self) if own else None

    def create_module(self, spec):
        return importlib.import_module("conda_lock._vendor.conda" + spec.name.removeprefix("conda"))

    def exec_module(self, module): ...


sys.meta_path.insert(0, Led())
from conda_lock._vendor.conda.cli.main import main

sys.exit(main(*sys.argv[1:]))
"""


def conda() -> Path:
    """The program, in an environment of its own that test runs share."""
    home = condalock.tools() / f"conda-24-py{sys.version_info[0]}{sys.version_info[1]}"
    program = home / "bin" / "conda"
    with files.locked(home.with_suffix(".lock")):
        if not (home / "ready").exists():
            condalock.install(home, INSIDE, *NEEDED, "distro", "pluggy")
            program.write_text(SCRIPT.format(python=home / "bin" / "python"))
            program.chmod(0o755)
            (home / "ready").touch()
    return program
