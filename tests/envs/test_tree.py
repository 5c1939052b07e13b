from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln.envs.tree import Trees
from tests.envs.made import PYTHON, interpreter, locked, part
from tests.services.wheels import data_folder, wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

ALPHA = wheel(
    "Alpha.Pkg",
    "1.0",
    files={
        "alpha/__init__.py": "def main():\n    print('alpha runs')\n",
        f"{data_folder('Alpha.Pkg')}/scripts/alpha-script": "#!python\nimport alpha; alpha.main()\n",
        f"{data_folder('Alpha.Pkg')}/data/share/alpha/notes.txt": "notes",
        f"{data_folder('Alpha.Pkg')}/headers/alpha.h": "#define ALPHA",
    },
    console={"alpha": "alpha:main"},
)
BETA = wheel("beta", "2.0")


def test_a_tree_is_a_complete_prefix(package_index: PackageIndex, home: Home) -> None:
    package_index.add(ALPHA, BETA)
    trees = Trees(home.cache)
    tree = trees.materialise(
        part([locked(ALPHA, package_index.base), locked(BETA, package_index.base)]), interpreter()
    )
    for command in ([f"{tree.root}/bin/alpha"], [f"{tree.root}/bin/alpha-script"]):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "alpha runs\n"
    script = "import sys, beta; print(sys.prefix, beta.__version__, beta.__file__)"
    told = subprocess.run([tree.python, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert told == [str(tree.root), "2.0", f"{tree.root}/lib/python{PYTHON}/site-packages/beta/__init__.py"]
    assert (tree.root / "share/alpha/notes.txt").read_text() == "notes"
    assert (tree.root / f"include/site/python{PYTHON}/alpha-pkg/alpha.h").exists()


def test_a_second_call_finds_it_without_a_request(package_index: PackageIndex, home: Home) -> None:
    package_index.add(BETA)
    lock = part([locked(BETA, package_index.base)])
    first = Trees(home.cache).materialise(lock, interpreter())
    package_index.forget_requests()
    assert Trees(home.cache).materialise(lock, interpreter()) == first
    assert Trees(home.cache).find(lock.env_id, interpreter()) == first
    assert package_index.total == 0


def test_files_are_read_only_and_linked_from_our_own_store(home: Home, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        tree = Trees(home.cache).materialise(part([locked(BETA, str(tmp_path))]), interpreter())
    finally:
        os.umask(before)
    module = tree.root / f"lib/python{PYTHON}/site-packages/beta/__init__.py"
    assert module.stat().st_mode & 0o777 == 0o444
    assert module.stat().st_nlink in (1, 2)
