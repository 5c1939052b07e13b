"""The one parser of ENV."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.cli.errors import UnknownTarget
from flowkiln.cli.targets import (
    FlowTarget,
    FolderTarget,
    ImageTarget,
    NameTarget,
    RunTarget,
    SourceTarget,
    Target,
    TaskTarget,
    parse,
)

DIGEST = "sha256:" + 64 * "0"
TAG = "fk-" + 64 * "1"


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
        ("absent.py:fk-1", "there is no absent.py"),
        ("oci:absent", "there is no OCI layout 'oci:absent'"),
        ("oci:", "there is no OCI layout 'oci:'"),
        ("", "there is no "),
    ],
)
def test_everything_else_says_what_is_accepted(folder: Path, text: str, part: str) -> None:
    with pytest.raises(UnknownTarget) as caught:
        parse(text, folder=folder)
    assert part in caught.value.message
    assert ("oci:FOLDER" if text.startswith("oci:") else "FLOW.py[:STEP]") in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (
            f"registry.example.com/team/flows@{DIGEST}",
            ImageTarget("registry", f"registry.example.com/team/flows@{DIGEST}"),
        ),
        (f"flows:{TAG}@{DIGEST}", ImageTarget("registry", f"flows:{TAG}@{DIGEST}")),
        ("localhost:5000/team/flows:newest", ImageTarget("registry", "localhost:5000/team/flows:newest")),
        (f"team/flows:{TAG}", ImageTarget("registry", f"team/flows:{TAG}")),
        (f"flowkiln:{TAG}", ImageTarget("engine", f"flowkiln:{TAG}")),
    ],
)
def test_images_are_told_by_digest_or_tag(folder: Path, text: str, made: ImageTarget) -> None:
    assert parse(text, folder=folder) == made


def test_layouts_may_name_one_of_their_images(folder: Path) -> None:
    assert parse("oci:plain", folder=folder) == ImageTarget("layout", "", folder / "plain")
    assert parse("oci:plain:fit", folder=folder) == ImageTarget("layout", "fit", folder / "plain")
    (folder / "plain:fit").mkdir()
    assert parse("oci:plain:fit", folder=folder) == ImageTarget("layout", "", folder / "plain:fit")


def test_whole_runs_are_told_unless_there_is_such_a_path(folder: Path) -> None:
    assert parse("Train/1700000000000001", folder=folder) == RunTarget("Train", "1700000000000001")
    place = folder / "Train" / "1700000000000001"
    place.mkdir(parents=True)
    (place / "flowkiln.lock").write_text("")
    assert parse("Train/1700000000000001", folder=folder) == FolderTarget(place)
