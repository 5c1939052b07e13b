"""What ``check`` says of imports that it could not look for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flowkiln.cli import problems
from flowkiln.cli.flow import command
from flowkiln.cli.output import Session
from flowkiln.wiring.loading import load
from tests.cli.declaring import flow, run

if TYPE_CHECKING:
    from pathlib import Path


def checked(path: Path, *words: str) -> int:
    speaker = Session()
    return problems.execute(command(load(path), speaker), [*words, "check"], program="python", session=speaker)


@pytest.mark.parametrize("how", ["CI", "--locked"])
def test_what_was_not_checked_is_no_pass_in_ci(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    path = flow(folder, "{'alpha': '1.0'}")
    assert run("env", "lock", path) == 0
    assert checked(path) == 0
    assert "is not installed" in capsys.readouterr().err
    words = [] if how == "CI" else ["--locked"]
    if how == "CI":
        monkeypatch.setenv("CI", "true")
    assert checked(path, *words) == 3
    shown = capsys.readouterr()
    assert "is not installed" in shown.err
    assert "env verify --repair" in shown.err
    assert "is sound" not in shown.out
    assert run("env", "verify", "--repair", path) == 0
    assert checked(path, *words) == 0
