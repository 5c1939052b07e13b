"""The one parser of ENV."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.cli.errors import UnknownTarget
from flowkiln.cli.targets import (
    FlowTarget,
    FolderTarget,
    NameTarget,
    SourceTarget,
    Target,
    TaskTarget,
    parse,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flow.py").write_text("from flowkiln import FlowSpec\n")
    (tmp_path / "script.py").write_text("# /// script\n# dependencies = []\n# ///\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "flow.locks").mkdir()
    (tmp_path / "plain").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("flow.py", lambda base: FlowTarget(base / "flow.py")),
        ("flow.py:fit", lambda base: FlowTarget(base / "flow.py", "fit")),
        ("script.py", lambda base: SourceTarget(base / "script.py", "script")),
        ("requirements.txt", lambda base: SourceTarget(base / "requirements.txt", "requirements")),
        ("pyproject.toml", lambda base: SourceTarget(base / "pyproject.toml", "pyproject")),
        ("pyproject.toml:dev", lambda base: SourceTarget(base / "pyproject.toml", "pyproject", "dev")),
        ("flow.locks", lambda base: FolderTarget(base / "flow.locks")),
        ("flow.locks:fit", lambda base: FolderTarget(base / "flow.locks", "fit")),
        ("train", lambda base: NameTarget("train")),
        ("data-1.2", lambda base: NameTarget("data-1.2")),
        ("Train/1700000000000001/fit", lambda base: TaskTarget("Train", "1700000000000001", "fit")),
        ("Train/1700000000000001/fit/4", lambda base: TaskTarget("Train", "1700000000000001", "fit", 4)),
    ],
)
def test_every_form_is_understood(folder: Path, text: str, made: object) -> None:
    expected: Target = made(folder)  # type: ignore[operator]
    assert parse(text, folder=folder) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("absent.py", "there is no absent.py"),
        ("absent.py:fit", "there is no absent.py"),
        ("a/b/c", "there is no a/b/c"),
        ("plain", "a folder without lock files"),
        ("script.py:x", "a script has one environment"),
        ("repo/image@sha256:0123456789", "is an image"),
        ("", "there is no "),
    ],
)
def test_everything_else_says_what_is_accepted(folder: Path, text: str, part: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        parse(text, folder=folder)
    assert part in caught.value.message
    assert "FLOW.py[:STEP]" in (caught.value.hint or "")
