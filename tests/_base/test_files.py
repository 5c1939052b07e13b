from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowkiln._base import files
from flowkiln._base.errors import NoSpace, ReadOnly


def test_write_atomic_replaces_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    files.write_atomic(target, b"one")
    files.write_atomic(target, b"two", mode=0o600)
    assert target.read_bytes() == b"two"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, ReadOnly), (errno.EACCES, ReadOnly)],
)
def test_disk_errors_name_the_path_and_a_next_step(
    number: int, kind: type[NoSpace | ReadOnly], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught, files.disk_errors(tmp_path / "x", setting="store"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "x") in caught.value.message
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_to_names_the_setting_that_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    for path, move in [("cache/images/x", ", or set `cache` to another folder"), ("x", "")]:
        with pytest.raises(ReadOnly) as caught, files.disk_errors(tmp_path / path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        assert caught.value.hint == f"Make it writable{move}."


def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "full" / "file"
    files.write_atomic(target, b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from flowkiln._base import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: files.write_atomic(Path(sys.argv[1]), b'x' * 100)\n"
        "except OSError as error: print(error.errno)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.strip() == str(errno.EFBIG)
    assert target.read_bytes() == b"old"
    assert [p.name for p in target.parent.iterdir()] == ["file"]


def test_scratch_folder_is_gone_unless_renamed(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path) as folder:
        (folder / "locked").mkdir(mode=0o500)
        (folder / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []
    with files.scratch_folder(tmp_path) as folder:
        folder.rename(tmp_path / "kept")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_try_lock_sees_another_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = files.try_lock(path)
    assert first is not None
    assert files.try_lock(path) is None
    os.close(first)
    second = files.try_lock(path, shared=True)
    third = files.try_lock(path, shared=True)
    assert second is not None
    assert third is not None
    os.close(second)
    os.close(third)


def test_lock_dies_with_its_process_and_the_waiter_is_told_its_pid(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from flowkiln._base import files\n"
        "with files.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, env=environ
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told: list[str] = []

        def waiting(who: str, _seconds: float) -> None:
            told.append(who)
            holder.send_signal(signal.SIGKILL)

        with files.locked(path, waiting=waiting, every=0.05):
            assert told[0] == f"pid {holder.pid}"


def test_locked_excludes_others_while_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path):
        assert files.try_lock(path) is None
    descriptor = files.try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_sync_of_a_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    files.sync(tmp_path / "file")
    files.sync(tmp_path)
