from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import glue
from flowkiln.envs.installer import Launcher
from flowkiln.envs.wheel import EntryPoint

if TYPE_CHECKING:
    from pathlib import Path


def nothing() -> bytes:
    return b""


RUN = Launcher("bin/run", EntryPoint("run", "json.tool", "main", False), "", "")


def test_all_glue_of_a_prefix() -> None:
    made = {one.path: one for one in glue.all_of("/p", "/usr/bin/python3.11", "3.11.2", [(RUN, nothing)])}
    assert sorted(made) == [
        "bin/python",
        "bin/python3",
        "bin/python3.11",
        "bin/run",
        "lib/python3.11/EXTERNALLY-MANAGED",
        "pyvenv.cfg",
    ]
    assert made["bin/python"].target == "/usr/bin/python3.11"
    assert made["bin/python3.11"].target == "python"
    assert b"home = /usr/bin\n" in made["pyvenv.cfg"].data
    assert b"include-system-site-packages = false\n" in made["pyvenv.cfg"].data
    assert made["bin/run"].data.startswith(b"#!/p/bin/python\n")
    assert made["lib/python3.11/EXTERNALLY-MANAGED"].data.startswith(b"[externally-managed]\nError=")


@pytest.mark.parametrize("folder", ["plain", "with space", "long" * 40, "quote'd"])
def test_launchers_run_from_any_prefix(folder: str, tmp_path: Path) -> None:
    prefix = tmp_path / folder
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").symlink_to(sys.executable)
    script = Launcher("bin/script", None, "stored", "")
    for one in (
        glue.launcher(RUN, str(prefix), nothing),
        glue.launcher(script, str(prefix), lambda: b"#!python -E\nfrom json.tool import main\nmain()\n"),
    ):
        path = prefix / one.path
        path.write_bytes(one.data)
        path.chmod(one.mode)
        done = subprocess.run([path], input="[1]", capture_output=True, text=True, check=True)
        assert done.stdout == "[\n    1\n]\n"


def test_only_the_first_line_of_a_script_is_replaced() -> None:
    script = Launcher("bin/script", None, "stored", "")
    made = glue.launcher(script, "/p", lambda: b"#!python\n#!python\nprint('\xc3\xa9')\n")
    assert made.data == b"#!/p/bin/python\n#!python\nprint('\xc3\xa9')\n"
