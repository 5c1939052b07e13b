"""``flowkiln env kernel``: what Jupyter is told, and that it starts the environment from any folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.declaring import answer, flow, run
from tests.services.index import PackageIndex
from tests.services.wheels import wheel


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return tmp_path / "jupyter"


@pytest.fixture
def declared(folder: Path, index: PackageIndex) -> str:
    launcher = "import sys\nprint('started', sys.argv[1:])\n"
    index.add(wheel("ipykernel", "7.0", files={"ipykernel_launcher.py": launcher}))
    path = flow(folder, "{'ipykernel': '', 'alpha': ''}")
    assert run("env", "lock", path) == 0
    return str(path)


def test_a_kernel_starts_the_environment_from_any_folder(
    declared: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(capsys, "env", "kernel", f"{declared}:start", "--name", "My kernel")
    assert told["kernel"] == str(data / "kernels" / "flowkiln-my-kernel")
    found = json.loads((data / "kernels" / "flowkiln-my-kernel" / "kernel.json").read_text())
    assert (found["display_name"], found["language"]) == ("flowkiln: My kernel", "python")
    command = [word.replace("{connection_file}", "/x.json") for word in found["argv"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "started ['-f', '/x.json']\n"


def test_an_environment_without_ipykernel_is_told(
    folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = flow(folder, "{'alpha': ''}")
    assert run("env", "lock", path) == 0
    capsys.readouterr()
    assert run("env", "kernel", f"{path}:start") == 2
    assert "has no ipykernel" in capsys.readouterr().err
    assert not data.exists()


def test_a_name_without_a_file_is_told(
    folder: Path, declared: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "pyproject.toml").open("a") as stream:
        stream.write('\n[tool.flowkiln.envs.notes]\npackages = ["ipykernel"]\n')
    monkeypatch.chdir(folder)
    assert run("env", "lock", "notes") == 0
    capsys.readouterr()
    assert run("env", "kernel", "notes") == 2
    assert "named without a file" in capsys.readouterr().err
    assert run("env", "kernel", "pyproject.locks:notes") == 0
