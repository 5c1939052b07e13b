"""``flowkiln config``, ``explain`` and ``--version``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flowkiln
from flowkiln.cli import problems
from flowkiln.cli.root import root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return problems.execute(root, list(arguments), program="flowkiln")


def test_set_then_show_with_origin(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "set", "python.downloads", "never") == 0
    assert run("config", "set", "max-workers", "3") == 0
    assert run("config", "set", "python.downloads", "auto") == 0
    assert run("config", "set", "platforms", "linux/amd64,darwin/arm64") == 0
    capsys.readouterr()
    assert run("config", "show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert shown["python.downloads"] == {"value": "auto", "origin": str(home / "config.toml")}
    assert shown["max-workers"]["value"] == 3
    assert shown["platforms"]["value"] == ["linux/amd64", "darwin/arm64"]


def test_a_table_is_set_whole(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("old", 'print "token" -n 1'):
        assert run("config", "set", "credentials", f"pkgs.example.com={command}") == 0
    assert (home / "config.toml").read_text() == ('credentials = {"pkgs.example.com" = "print \\"token\\" -n 1"}\n')
    capsys.readouterr()
    assert run("config", "show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)["settings"]["credentials"]
    assert shown["value"] == ['pkgs.example.com=print "token" -n 1']
    assert run("config", "set", "credentials", "pkgs.example.com") == 2


def test_json_and_table_name_the_same_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLOWKILN_STORE", raising=False)
    assert run("config", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["store"]["value"] == str(home / ".flowkiln")
    assert run("config", "show") == 0
    assert ["store", str(home / ".flowkiln")] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_set_keeps_the_rest_of_the_file(home: Path) -> None:
    text = '# mine\nisolation = "fork"\n\n[python]\n# why\nmirror = "https://m"\n\n[profiles.ci]\noffline = true\n'
    (home / "config.toml").write_text(text)
    assert run("config", "set", "python.downloads", "never") == 0
    assert run("config", "set", "isolation", "spawn") == 0
    changed = text.replace("# why", 'downloads = "never"\n# why').replace('"fork"', '"spawn"')
    assert (home / "config.toml").read_text() == changed


def test_set_in_the_project(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "set", "max-workers", "3", "--project") == 2
    (home / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert run("config", "set", "max-workers", "3", "--project") == 0
    assert run("config", "set", "python.downloads", "never", "--project") == 0
    capsys.readouterr()
    assert run("config", "show", "--origin") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "pyproject.toml" in line] == [
        ["python.downloads", "never", str(home / "pyproject.toml")],
        ["max-workers", "3", str(home / "pyproject.toml")],
    ]


def test_a_bad_value_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "set", "isolation", "none") == 2
    assert run("config", "set", "isolatoin", "fork") == 2
    assert not (home / "config.toml").exists()
    assert "Did you mean 'isolation'?" in capsys.readouterr().err


def test_options_stand_on_either_side_of_the_verb(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--json", "config", "show"], ["config", "--json", "show"], ["config", "show", "--json"]):
        assert run(*words) == 0
        assert json.loads(capsys.readouterr().out)["schema"] == 1
    for words in (["--offline", "config", "show", "--json"], ["config", "show", "--offline", "--json"]):
        assert run(*words) == 0
        assert json.loads(capsys.readouterr().out)["settings"]["offline"]["origin"] == "--offline"


def test_explain(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", "cfg001") == 0
    assert capsys.readouterr().out.startswith("CFG001: Bad setting (exit code 2)\n\n")
    assert run("explain") == 0
    assert "CLI001" in capsys.readouterr().out
    assert run("explain", "CFG01") == 2
    assert "Did you mean CFG" in capsys.readouterr().err


def test_version(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"flowkiln {flowkiln.__version__}\n"
