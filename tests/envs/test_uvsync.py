"""``uv pip sync`` of the same lock installs the same files: the lock needs no flowkiln to be used."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln.envs import pylock, uv
from flowkiln.envs.tree import Trees
from tests.envs.made import PYTHON, interpreter, locked, part
from tests.services.wheels import data_folder, wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

OURS_ALONE = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json"}
UVS_ALONE = {"_virtualenv.py", "_virtualenv.pth"}
WHEELS = [
    wheel("Plain.Name", "1.2.post1", files={"plain_name/__init__.py": "", "plain_name/data/x.json": "{}"}),
    wheel(
        "scripts",
        files={
            "scripts.py": "def main(): pass\n",
            f"{data_folder('scripts')}/scripts/run-me": "#!python\nprint()\n",
            f"{data_folder('scripts')}/scripts/native": "#!/bin/sh\n",
            f"{data_folder('scripts')}/data/share/doc/x": "doc",
            f"{data_folder('scripts')}/purelib/pure_part.py": "",
        },
        console={"console": "scripts:main"},
        entry_points="[gui_scripts]\nwindow = scripts:main\n",
    ),
    wheel("headed", files={"headed.py": "", f"{data_folder('headed')}/headers/headed.h": "#define X"}),
    wheel("namespace-a", files={"shared/a.py": "a = 1"}),
    wheel("namespace-b", files={"shared/b.py": "b = 1"}),
    wheel("native", tag="py3-none-manylinux_2_17_x86_64.manylinux_2_17_aarch64", files={"native.so": b"\x7fELF"}),
]


def found(prefix: Path) -> dict[str, tuple[bytes, bool]]:
    """Content and executability of all files that installing decides, by path."""
    passed = {"bin", f"lib/python{PYTHON}/site-packages", "share", "include"}
    return {
        str(path.relative_to(prefix)): (path.read_bytes(), bool(path.stat().st_mode & 0o111))
        for folder in passed
        for path in (prefix / folder).rglob("*")
        if path.is_file() and path.name not in OURS_ALONE | UVS_ALONE and "__pycache__" not in path.parts
    }


def test_uv_installs_the_same_files(package_index: PackageIndex, home: Home) -> None:
    package_index.add(*WHEELS)
    lock = part([locked(one, package_index.base) for one in WHEELS])
    tree = Trees(home.cache).materialise(lock, interpreter())
    (home.work / "pylock.toml").write_text(pylock.serialise(lock.python, lock.wheels))
    environ = home.environ(UV_CACHE_DIR=str(home.root / "uv-cache"), UV_PYTHON_DOWNLOADS="never", UV_NO_CONFIG="1")
    program = uv.find(environ)
    venv = home.work / "venv"
    for command in (
        ["venv", "--python", interpreter().path, str(venv)],
        ["pip", "sync", "--python", f"{venv}/bin/python", f"{home.work}/pylock.toml"],
    ):
        subprocess.run([program, *command], env=environ, check=True, capture_output=True)
    ours, theirs = found(tree.root), found(venv)
    launchers = {path for path in ours if path.startswith("bin/") and "python" not in path} - {"bin/native"}
    assert launchers == {"bin/console", "bin/window", "bin/run-me"}
    own_commands = {path for path in theirs if path.startswith("bin/") and path not in ours}
    assert all("activate" in path or path in ("bin/pydoc.bat", "bin/deactivate.bat") for path in own_commands)
    assert ours.keys() == theirs.keys() - own_commands
    for path in ours.keys() - launchers - {path for path in ours if path.startswith("bin/python")}:
        assert ours[path] == theirs[path], path
    for path in launchers:
        assert ours[path][1]
        assert theirs[path][1]
