"""``flowkiln env lock`` and ``list``: whose settings hold, what is written, what is removed, what is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import settings
from flowkiln.wiring import trees
from tests.cli.declaring import answer, flow, project, run
from tests.services import canary

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.services.index import PackageIndex


def test_the_settings_of_the_declaring_folder_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    assert (folder / "flow.locks" / "pylock.start-linux-amd64.toml").exists()


def test_offline_of_the_declaring_folder_holds(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    project(folder, index, "offline = true\n")
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 5
    assert "ENV016" in capsys.readouterr().err


def test_a_group_that_was_locked_by_itself_is_listed_and_stays(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = '[tool.flowkiln.envs.shared]\npackages = ["alpha"]\n'
    project(folder, index, f'{shared}[dependency-groups]\ndev = ["beta"]\n')
    path = folder / "pyproject.toml"
    assert run("env", "lock", f"{path}:dev") == 0
    assert run("env", "lock", path) == 0
    listed = answer(capsys, "env", "list", path)["environments"]
    assert {one["name"]: one["state"] for one in listed} == {"shared": "fresh", "dev": "fresh"}
    assert (folder / "pyproject.locks" / "pylock.dev-linux-amd64.toml").exists()
    project(folder, index, shared)
    done = answer(capsys, "env", "lock", path)
    assert done["removed"] == ["dev"]
    assert not (folder / "pyproject.locks" / "pylock.dev-linux-amd64.toml").exists()


def test_an_extra_is_locked_by_its_name(folder: Path, index: PackageIndex) -> None:
    more = '[project]\nname = "p"\nversion = "1"\n[project.optional-dependencies]\nplots = ["beta"]\n'
    project(folder, index, more)
    assert run("env", "lock", f"{folder / 'pyproject.toml'}:plots") == 0
    text = (folder / "pyproject.locks" / "pylock.plots-linux-amd64.toml").read_text()
    assert '"beta"' in text


def test_the_lock_of_a_requirements_file_of_equal_stem_stays(folder: Path) -> None:
    (folder / "flow.txt").write_text("beta\n")
    assert run("env", "lock", folder / "flow.txt") == 0
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    assert (folder / "flow.locks" / "pylock.flow-linux-amd64.toml").exists()


def test_a_flow_without_environments_keeps_no_lock_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    (folder / "plain").mkdir()
    (folder / "flow.locks").rename(folder / "plain" / "flow.locks")
    capsys.readouterr()
    assert run("env", "lock", flow(folder / "plain", None)) == 0
    shown = capsys.readouterr().out
    assert "no step declares an environment" in shown
    assert "removed start" in shown
    assert not (folder / "plain" / "flow.locks").exists()
    assert run("env", "list", folder / "plain" / "flow.py") == 0
    assert "no step declares an environment" in capsys.readouterr().out


def test_a06_the_first_line_says_host_and_targets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}"), "--platform", "darwin/arm64") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("locking on ")
    assert first.endswith(" for darwin/arm64, linux/amd64, linux/arm64")


def test_an_upgrade_of_what_no_lock_has_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = flow(folder, "{'beta': ''}")
    assert run("env", "lock", path) == 0
    assert run("env", "lock", "--upgrade", "alpah", path) == 2
    shown = capsys.readouterr().err
    assert "alpah" in shown
    assert "Did you mean alpha?" in shown
    assert run("env", "lock", "--upgrade", "Alpha", path) == 0


def test_an_environment_looks_alike_in_every_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = flow(folder, "{'beta': ''}")
    locked = answer(capsys, "env", "lock", path)["environments"]
    assert [one.pop("changed") for one in locked] == [True, True]
    told = answer(capsys, "env", "list", path)
    listed = told["environments"]
    assert told["images"] == []
    assert locked == listed
    start = next(one for one in locked if one["name"] == "start")
    shown = answer(capsys, "env", "show", f"{path}:start")["environment"]
    assert start == {name: value for name, value in shown.items() if name in start}
    assert start["platforms"][0]["packages"] == 2


def test_one_is_not_several(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    assert "start: locked, 1 package," in capsys.readouterr().out


def test_a_command_of_the_settings_gives_the_password_to_lock_and_to_install(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    project(folder, index, "[tool.flowkiln.credentials]\n'127.0.0.1' = 'echo CANARY123'\n")
    index.require("__token__", "CANARY123")
    assert run("env", "lock", flow(folder, "{'alpha': '1.0'}")) == 0
    said = capsys.readouterr()
    assert "CANARY123" not in said.out + said.err
    network = trees.Host(settings.load(folder)).fetcher().network
    assert network.credentials is not None
    assert network.credentials(index.url) == ("__token__", "CANARY123")
    assert canary.find("CANARY123", folder, besides={"pyproject.toml"}) == []


def test_a_setting_of_uv_that_would_change_a_lock_stops_it_and_a_fresh_lock_needs_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = flow(folder, "{'alpha': '1.0'}")
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    assert run("env", "lock", target) == 2
    said = capsys.readouterr().err
    assert "UV_RESOLUTION = lowest (environment variable)" in said
    assert not list(folder.glob("*.locks"))
    monkeypatch.delenv("UV_RESOLUTION")
    assert run("env", "lock", target) == 0
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    assert run("env", "lock", target) == 0
