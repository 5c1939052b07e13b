from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from flowkiln.envs import placing
from flowkiln.envs.placing import Placer
from tests.services import unavailable


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    path.chmod(0o444)
    return path


@pytest.mark.parametrize("how", ["clone", "link", "copy"])
def test_the_target_has_content_and_mode(how: str, source: Path, tmp_path: Path) -> None:
    placer = Placer(how)
    linked = placer.place(str(source), str(tmp_path / "target"), 0o444)
    assert (tmp_path / "target").read_bytes() == b"content"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o444
    assert linked == (source.stat().st_ino == (tmp_path / "target").stat().st_ino)
    assert linked == (placer.how == "link")


def test_what_the_file_system_cannot_do_is_not_tried_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(placing, "_clone", cannot)
    monkeypatch.setattr(os, "link", cannot)
    placer = Placer()
    assert not placer.place(str(source), str(tmp_path / "one"), 0o555)
    assert placer.how == "copy"
    assert (tmp_path / "one").read_bytes() == b"content"
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o555


def test_too_many_links_concern_one_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(*_: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", too_many)
        placer = Placer("link")
        assert not placer.place(str(source), str(tmp_path / "one"), 0o444)
    assert placer.place(str(source), str(tmp_path / "two"), 0o444)


def test_across_devices_files_are_copied(source: Path, tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == source.stat().st_dev:
        unavailable("no second file system at /dev/shm")
    target = other / f"flowkiln-test-{os.getpid()}"
    try:
        assert not Placer().place(str(source), str(target), 0o444)
        assert target.read_bytes() == b"content"
    finally:
        target.unlink()


def test_a_full_disk_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(placing, "_clone", full)
    with pytest.raises(OSError, match="No space"):
        Placer().place(str(source), str(tmp_path / "one"), 0o444)
