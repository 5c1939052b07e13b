"""Environments of past runs: found again when their locks have moved on, been moved or are gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.declaring import flow, run
from tests.e2e.project import SOURCE


@pytest.fixture
def past(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of the flow with alpha 1.0 in its start step: ``Small/RUN``."""
    monkeypatch.chdir(folder)
    path = flow(folder, "{'alpha': '1.0'}")
    words = [sys.executable, str(path), "run", "--run-id-file", "id"]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    return f"Small/{(folder / 'id').read_text().strip()}"


@pytest.mark.parametrize("what", ["gone", "moved on"])
def test_a_past_task_shows_what_it_ran_in(
    folder: Path, past: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "flow.locks")
    if what == "moved on":
        assert run("env", "lock", flow(folder, "{'beta': '1.0'}")) == 0
        capsys.readouterr()
    assert run("env", "show", f"{past}/start") == 0
    shown = capsys.readouterr().out
    assert "alpha" in shown
    assert "beta" not in shown
    assert run("env", "export", f"{past}/start/1") == 0
    assert run("env", "verify", f"{past}/start") == 0
    assert run("store", "check") == 0


def test_two_past_runs_can_be_compared(folder: Path, past: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "lock", flow(folder, "{'beta': '1.0'}")) == 0
    capsys.readouterr()
    assert run("env", "diff", f"{past}/start", "flow.py:start") == 0
    assert "+ beta 1.0" in capsys.readouterr().out


def test_what_is_on_one_side_only_is_said(folder: Path, past: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("env", "diff", "flow.py:start", "flow.locks") == 0
    assert capsys.readouterr().out.splitlines() == ["end: only in flow.locks", "start: equal"]
    assert run("env", "diff", "flow.py:start", "flow.py:end") == 0
    assert "start -> end: 1 change\n" in capsys.readouterr().out


def broken(folder: Path) -> None:
    for place in (Path(os.environ["FLOWKILN_CACHE"]) / "trees").iterdir():
        victim = place / "bin" / "activate_this_is_ours.py"
        victim.write_text("changed")


def test_verify_names_every_environment_that_fails(
    folder: Path, past: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("env", "verify", "flow.py") == 0
    broken(folder)
    capsys.readouterr()
    assert run("env", "verify", "flow.py") == 17
    shown = capsys.readouterr()
    assert "start: changed" in shown.out
    assert "end: changed" in shown.out
    assert shown.err.count("extra: bin/activate_this_is_ours.py") == 2
    assert "error[ENV050]" in shown.err
    assert "`flowkiln env verify --repair flow.py`" in shown.err
    assert run("env", "verify", "flow.py", "--json") == 17
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found["environments"]] == ["changed", "changed"]
    assert found["error"]["code"] == "ENV050"
    assert run("env", "verify", "--repair", f"{past}/start", f"{past}/end") == 0
    assert run("env", "verify", "flow.py") == 0


def test_a_run_in_a_changed_environment_names_the_command_that_repairs_it(folder: Path, past: str) -> None:
    broken(folder)
    words = [sys.executable, "flow.py", "run"]
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(words, check=False, capture_output=True, env=environ, text=True)
    assert done.returncode == 17
    assert "error[ENV050]" in done.stderr
    command = re.search(r"flowkiln (env verify --repair Small/\d+/start)", done.stderr)
    assert command is not None
    assert run(*command[1].split()) == 0
    assert subprocess.run(words, check=False, capture_output=True, env=environ).returncode == 17
    assert run("env", "verify", "--repair", "flow.py") == 0
    subprocess.run(words, check=True, capture_output=True, env=environ)


def test_what_is_not_installed_is_no_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = flow(folder, "{'alpha': '1.0'}")
    assert run("env", "lock", path) == 0
    assert run("env", "verify", path) == 17
    assert "start: not installed" in capsys.readouterr().out
    assert run("env", "verify", "--repair", path) == 0
    assert run("env", "verify", path) == 0
