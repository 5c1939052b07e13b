from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import stamps

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "pkg" / "__pycache__").mkdir(parents=True)
    (folder / "own").mkdir()
    (folder / "pkg" / "a.py").write_text("a")
    (folder / "pkg" / "__pycache__" / "a.cpython-311.pyc").write_text("code")
    (folder / "pkg" / "__pycache__" / "stray.py").write_text("x")
    (folder / "own" / "file").write_text("x")
    (folder / "link").symlink_to("pkg")
    return folder


def test_a_survey_tells_every_file_and_link_but_bytecode(root: Path) -> None:
    found = stamps.survey(root, skip=["own"])
    assert sorted(found) == ["link", "pkg/__pycache__/stray.py", "pkg/a.py"]
    assert found["link"].is_link
    assert found["link"].target == "pkg"
    assert found["pkg/a.py"] == stamps.of(str(root / "pkg/a.py"))
    assert found["pkg/a.py"].size == 1
    assert not found["pkg/a.py"].is_link


def test_only_folders_at_the_top_are_skipped(root: Path) -> None:
    (root / "pkg" / "own").mkdir()
    (root / "pkg" / "own" / "file").write_text("")
    assert "pkg/own/file" in stamps.survey(root, skip=["own"])


def test_every_change_but_a_link_to_it_shows(root: Path) -> None:
    path = root / "pkg" / "a.py"
    before = stamps.of(str(path))
    os.link(path, root / "second")
    assert stamps.of(str(path)) == before
    path.chmod(0o600)
    assert stamps.of(str(path)) != before
    path.chmod(before.permissions)
    assert stamps.of(str(path)) == before
    path.write_text("b")
    os.utime(path, ns=(0, before.mtime + 1))
    assert stamps.of(str(path)) != before


def test_written_stamps_are_read_back(root: Path, tmp_path: Path) -> None:
    found = stamps.survey(root)
    stamps.write(tmp_path / "stamps.json", found)
    assert stamps.read(tmp_path / "stamps.json") == found


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\n{}", b"0" * 64 + b"\n[]"])
def test_damaged_stamps_are_none(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "stamps.json").write_bytes(damage)
    assert stamps.read(tmp_path / "stamps.json") == {}
    assert stamps.read(tmp_path / "absent.json") == {}
