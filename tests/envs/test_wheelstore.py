from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flowkiln._base.errors import ReadOnly
from flowkiln.envs.installerrors import HostileWheel
from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.wheelstore import WheelStore
from tests.envs.made import locked
from tests.services.wheels import Member, wheel

ONE = wheel("pkg", files={"pkg/a.py": "a = 1\n", "pkg/b.py": "b = 2\n"})


class Source:
    """Gives the wheel's file, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0

    def __call__(self, _: LockedWheel) -> Path:
        self.calls += 1
        return ONE.write(self.folder / str(self.calls))


def test_a_wheel_is_unpacked_once_and_its_file_is_not_kept(tmp_path: Path) -> None:
    store, source = WheelStore(tmp_path / "cache"), Source(tmp_path)
    wheel = store.add(locked(ONE), source)
    assert store.add(locked(ONE), source) == wheel == store.get(ONE.sha256)
    assert source.calls == 1
    assert store.entry(ONE.sha256) == tmp_path / "cache" / "wheels" / ONE.sha256[:2] / ONE.sha256
    assert (store.content(ONE.sha256) / "pkg/a.py").read_text() == "a = 1\n"
    assert not list(tmp_path.rglob("*.whl"))
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{}", "0" * 64 + '\n{"schema": 1}'])
def test_a_damaged_description_counts_as_absent_and_is_made_anew(damage: str, tmp_path: Path) -> None:
    store, source = WheelStore(tmp_path / "cache"), Source(tmp_path)
    first = store.add(locked(ONE), source)
    (store.entry(ONE.sha256) / "wheel.json").write_text(damage)
    assert store.get(ONE.sha256) is None
    assert store.add(locked(ONE), source) == first
    assert source.calls == 2


def test_verify_names_changed_missing_and_extra_files(tmp_path: Path) -> None:
    store = WheelStore(tmp_path / "cache")
    wheel = store.add(locked(ONE), Source(tmp_path))
    assert store.verify(wheel) == []
    content = store.content(ONE.sha256)
    (content / "pkg/a.py").chmod(0o644)
    (content / "pkg/a.py").write_text("a = 2\n")
    (content / "pkg/b.py").unlink()
    (content / "pkg/c.py").write_text("")
    assert store.verify(wheel) == ["pkg/a.py", "pkg/b.py", "pkg/c.py"]
    store.evict(ONE.sha256)
    assert store.get(ONE.sha256) is None
    assert store.verify(wheel) != []
    store.evict(ONE.sha256)


def test_a_wheel_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    evil = wheel("evil", members=[Member("../x", b"")])
    store = WheelStore(tmp_path / "cache")
    with pytest.raises(HostileWheel):
        store.add(locked(evil), lambda _: evil.write(tmp_path))
    assert not store.entry(evil.sha256).exists()
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []


def test_threads_wait_for_the_one_that_fetches(tmp_path: Path) -> None:
    store, source = WheelStore(tmp_path / "cache"), Source(tmp_path)
    found = []
    threads = [threading.Thread(target=lambda: found.append(store.add(locked(ONE), source))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert source.calls == 1


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises((ReadOnly, NotADirectoryError, FileExistsError)):
        WheelStore(tmp_path / "cache").add(locked(ONE), Source(tmp_path))
