from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from flowkiln.envs.proof import verify
from flowkiln.envs.running import bytecode_folder, variables
from flowkiln.envs.tree import Trees
from tests.envs.made import interpreter, locked, part
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.home import Home

ONE = wheel("pkg", files={"pkg.py": "def main():\n    print('pkg runs')\n"}, console={"pkg-run": "pkg:main"})


def test_commands_and_packages_of_the_tree_are_used(home: Home, tmp_path: Path) -> None:
    tree = Trees(home.cache).materialise(part([locked(ONE, str(tmp_path))]), interpreter())
    ambient = {
        "PATH": "/some/venv/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": "/some/venv",
        "PYTHONPATH": "/elsewhere",
        "PYTHONHOME": "/elsewhere",
        "KEPT": "1",
    }
    environ = variables(tree, home.cache, ambient)
    assert environ["PATH"] == f"{tree.root}/bin:/usr/bin:/bin"
    assert environ["KEPT"] == "1"
    assert not {"PYTHONPATH", "PYTHONHOME"} & environ.keys()
    done = subprocess.run(
        ["sh", "-c", "pkg-run && python -c 'import pkg'"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "pkg runs\n"
    assert not list(tree.root.rglob("*.pyc"))
    assert list(bytecode_folder(home.cache).rglob("pkg.*.pyc"))
    verify(tree.root, tree.env_id, tree.tree_digest, "full")


def test_without_a_path_the_system_has_one(home: Home) -> None:
    tree = Trees(home.cache).materialise(part([]), interpreter())
    assert variables(tree, home.cache, {})["PATH"].startswith(f"{tree.root}/bin:")
