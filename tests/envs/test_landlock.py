"""A held program writes below its folder alone, and so does all that it starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flowkiln.envs import landlock
from tests.services import unavailable

HELD = [sys.executable, "-I", "-S", landlock.__file__]


@pytest.fixture(autouse=True)
def _kernel() -> None:
    if not landlock.available():
        unavailable("a kernel with Landlock (Linux 5.13) is needed")


def held(folder: Path, code: str, network: str = "no") -> subprocess.CompletedProcess[str]:
    command = [*HELD, str(folder), network, sys.executable, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_writing_outside_is_refused_and_inside_is_not(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "old").write_text("old")
    code = f"""
import os, pathlib, subprocess
inside, outside = pathlib.Path({str(inside)!r}), pathlib.Path({str(outside)!r})
(inside / "new").write_text("x")
os.rename(inside / "new", inside / "newer")
(inside / "sub").mkdir()
open("/dev/null", "w").write("x")
assert (outside / "old").read_text() == "old"
tries = [
    lambda: (outside / "new").write_text("x"),
    lambda: (outside / "old").write_text("x"),
    lambda: os.truncate(outside / "old", 0),
    lambda: (outside / "old").unlink(),
    lambda: (outside / "sub").mkdir(),
    lambda: os.symlink("x", outside / "link"),
    lambda: os.rename(inside / "newer", outside / "moved"),
    lambda: os.link(inside / "newer", outside / "linked"),
]
for number, one in enumerate(tries):
    try:
        one()
    except OSError:
        continue
    raise SystemExit(f"{{number}} was allowed")
assert subprocess.run(["/bin/sh", "-c", f"echo x > {{outside}}/shell"]).returncode != 0
"""
    done = held(inside, code)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in outside.iterdir()] == ["old"]
    assert (outside / "old").read_text() == "old"


def test_no_connection_is_made(tmp_path: Path) -> None:
    if landlock._version() < 4:
        unavailable("a kernel that holds TCP by Landlock (Linux 6.7) is needed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        refused = held(tmp_path, code)
        assert refused.returncode != 0
        assert "Permission" in refused.stderr
        assert held(tmp_path, code, "yes").returncode == 0


def test_the_exit_code_is_the_programs(tmp_path: Path) -> None:
    assert held(tmp_path, "raise SystemExit(7)").returncode == 7
