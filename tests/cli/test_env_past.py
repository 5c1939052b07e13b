"""Environments of past runs: found again when their locks have moved on, been moved or are gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.declaring import flow, run
from tests.e2e.project import SOURCE

if TYPE_CHECKING:
    from pathlib import Path


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
