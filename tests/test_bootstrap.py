"""Setting up the development environment on a machine that has only a Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.services.home import MACHINE
from tests.services.wheels import wheel
from tests.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.home import Home
    from tests.services.index import PackageIndex

BASE = f"{sys.base_prefix}/bin/python3"
INDEX = {name: value for name, value in MACHINE.items() if name in {"PIP_INDEX_URL", "PIP_CERT"}}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the bootstrap needs of the project, without an environment."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("tools", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def bootstrap(clone: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "tools/bootstrap")]
    return subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, check=False)


def test_no_interpreter_of_a_supported_version(clone: Path, home: Home) -> None:
    done = bootstrap(clone, home.environ(PYTHON="/bin/false"))
    assert done.returncode == 2
    assert "no Python 3.11 to 3.15" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_pip_with_a_wrong_hash_is_refused(clone: Path, home: Home, package_index: PackageIndex) -> None:
    package_index.html_only()
    pinned = (ROOT / "tools/bootstrap.py").read_text(encoding="utf-8").split('PIP = ("')[1].split('"')[0]
    package_index.add(wheel("pip", pinned))
    package_index.require("user", "s3cret")
    url = package_index.url_with("user", "s3cret")
    done = bootstrap(clone, home.environ(PYTHON=BASE, PIP_INDEX_URL=url))
    assert done.returncode == 1
    assert "has a wrong hash" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert not (clone / ".venv/bootstrapped").exists()


def test_index_that_refuses_is_named_with_the_settings_to_look_at(clone: Path, home: Home) -> None:
    done = bootstrap(clone, home.environ(PYTHON=BASE, PIP_INDEX_URL="http://127.0.0.1:9/simple"))
    assert done.returncode == 1
    assert "http://127.0.0.1:9/simple/pip/" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_from_nothing_then_again_without_work(clone: Path, home: Home) -> None:
    environ = home.environ(PYTHON=BASE, **INDEX)
    first = bootstrap(clone, environ)
    assert first.returncode == 0, first.stderr
    assert "is ready" in first.stdout
    asked = [str(clone / ".venv/bin/python"), "-c", "import flowkiln, pytest; print(flowkiln.__file__)"]
    imported = subprocess.run(asked, cwd="/", env=environ, capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == str(clone / "src/flowkiln/__init__.py")
    unreachable = {**environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    again = bootstrap(clone, unreachable)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
