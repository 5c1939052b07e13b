"""``flowkiln env lock`` and ``list``: whose settings hold, what is written, what is removed, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.cli import problems
from flowkiln.cli.root import root
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

FLOW = """
from flowkiln import FlowSpec, pypi, step

class Small(FlowSpec):
    {decorator}
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture
def index(package_index: PackageIndex) -> PackageIndex:
    package_index.add(wheel("alpha", "1.0"), wheel("beta", "1.0", requires=["alpha"]))
    return package_index


@pytest.fixture
def folder(home: Home, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pyproject.toml names the index; the command is given from elsewhere unless a test says so."""
    place = tmp_path / "project"
    elsewhere = tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    project(place, index)
    return place


def project(folder: Path, index: PackageIndex, more: str = "") -> None:
    text = f'[tool.flowkiln]\nindexes = ["{index.url}"]\n{more}'
    (folder / "pyproject.toml").write_text(text)


def flow(folder: Path, packages: str | None) -> Path:
    path = folder / "flow.py"
    path.write_text(FLOW.format(decorator=f"@pypi(python='3.11', packages={packages})" if packages else ""))
    return path


def run(*words: object) -> int:
    return problems.execute(root, [str(word) for word in words], program="flowkiln")


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_settings_of_the_declaring_folder_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    assert (folder / "flow.locks" / "pylock.start-linux-amd64.toml").exists()


def test_offline_of_the_declaring_folder_holds(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    project(folder, index, "offline = true\n")
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 5
    assert "ENV016" in capsys.readouterr().err
