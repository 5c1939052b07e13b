from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.errors import ExitCode, FormatTooNew, NoSpace, ReadOnly
from flowkiln.store import formats, place
from flowkiln.store.check import check
from flowkiln.store.errors import BadKey, BlobDamaged, BlobMissing, RecordDamaged, StoreUnusable
from flowkiln.store.folder import FolderStore
from flowkiln.store.renaming import rename_exclusive
from tests.store import processes


def test_a_record_is_created_once(store: FolderStore) -> None:
    assert store.records.create("r/1/t/0/0/begin", b"first")
    assert not store.records.create("r/1/t/0/0/begin", b"second")
    assert store.records.read("r/1/t/0/0/begin") == b"first"
    assert store.records.exists("r/1/t/0/0/begin")
    assert store.scratch_files() == []


def test_absent_records_are_none(store: FolderStore) -> None:
    assert store.records.read("r/1") is None
    assert store.records.names("r/1") == []
    assert not store.records.exists("r/1")
    store.records.create("r/1", b"a file")
    assert store.records.read("r/1/below") is None
    assert store.records.names("r/1/below") == []
    store.records.delete("r/1/below")
    store.records.delete("r/2")


def test_the_folder_keeps_itself_out_of_git(store: FolderStore) -> None:
    assert not Path(store.root).exists()  # looking makes nothing
    store.records.create("a", b"")
    assert Path(store.root, ".gitignore").read_bytes() == b"*\n"
    assert (formats.document_of(Path(store.root, "store.json").read_bytes(), 1, "it"))["kind"] == "flowkiln store"


def test_a_record_is_replaced_and_deleted(store: FolderStore) -> None:
    store.records.write("r/1/heartbeat", b"1")
    store.records.write("r/1/heartbeat", b"22")
    assert store.records.read("r/1/heartbeat") == b"22"
    store.records.delete("r/1/heartbeat")
    assert store.records.read("r/1/heartbeat") is None


def test_names_are_sorted(store: FolderStore) -> None:
    for name in ("b", "a", "10", "9"):
        store.records.create(f"flows/F/runs/{name}", b"x")
    assert store.records.names("flows/F/runs") == ["10", "9", "a", "b"]


@given(st.binary())
def test_a_frame_round_trips_and_shows_every_cut(data: bytes) -> None:
    stored = formats.framed(data)
    assert formats.unframed(stored) == data
    assert all(formats.unframed(stored[:cut]) is None for cut in range(len(stored)))


def test_a_changed_record_is_not_read(store: FolderStore) -> None:
    store.records.create("a", b"right")
    path = Path(store.root, "a")
    path.write_bytes(path.read_bytes().replace(b"right", b"wrong"))
    with pytest.raises(RecordDamaged) as caught:
        store.records.read("a")
    assert caught.value.exit_code == ExitCode.STORE
    assert str(path) in caught.value.message


def test_a_record_emptied_by_a_power_loss_counts_as_never_made(store: FolderStore) -> None:
    store.records.create("a", b"lost")
    Path(store.root, "a").write_bytes(b"")
    assert store.records.read("a") is None
    assert not store.records.exists("a")
    assert store.records.create("a", b"again")
    assert store.records.read("a") == b"again"


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "..", "a//b", ".hidden", "a/", "a b", "a\n", "a\0"])
def test_no_key_leads_out_of_the_store(store: FolderStore, key: str) -> None:
    with pytest.raises(BadKey):
        store.records.read(key)


def test_blobs_are_named_by_their_content(store: FolderStore, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    assert not store.blobs.has(sha256)
    with store.blobs.put_stream() as sink:
        assert sink.write(data[:1_000_001]) == 1_000_001
        sink.write(memoryview(data)[1_000_001:])
    assert (sink.sha256, sink.size) == (sha256, len(data))
    assert store.blobs.has(sha256)
    assert store.blobs.put(data) == sha256
    (tmp_path / "file").write_bytes(data)
    assert store.blobs.put_file(tmp_path / "file") == sha256
    assert store.blobs.read(sha256) == data
    assert store.blobs.read_range(sha256, 2_999_990, 10) == data[-10:]
    assert store.scratch_files() == []


def test_an_exception_while_streaming_leaves_nothing(store: FolderStore) -> None:
    def stream() -> None:
        with store.blobs.put_stream() as sink:
            sink.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        stream()
    assert store.scratch_files() == []
    assert not Path(store.root, "blobs").exists()


def test_a_mapping_is_writable_and_private(store: FolderStore) -> None:
    sha256 = store.blobs.put(b"abcdef")
    mapped = store.blobs.map(sha256)
    mapped[0:3] = b"xyz"
    assert mapped[:] == b"xyzdef"
    assert store.blobs.read(sha256) == b"abcdef"


def test_missing_and_short_blobs_are_told_apart(store: FolderStore) -> None:
    for call in (
        store.blobs.read,
        store.blobs.map,
        lambda sha: store.blobs.read_range(sha, 0, 1),
    ):
        with pytest.raises(BlobMissing):
            call("0" * 64)
    sha256 = store.blobs.put(b"abc")
    with pytest.raises(BlobDamaged, match="ends at byte 3"):
        store.blobs.read_range(sha256, 1, 5)
    with pytest.raises(BlobDamaged, match="empty"):
        store.blobs.map(store.blobs.put(b""))
    with pytest.raises(BadKey):
        store.blobs.read("../../etc/passwd")


def test_a_blob_cut_by_a_power_loss_is_stored_again(store: FolderStore) -> None:
    sha256 = store.blobs.put(b"abc")
    path = Path(store.blobs.path(sha256))
    path.chmod(0o644)
    path.write_bytes(b"")
    assert store.blobs.put(b"abc") == sha256
    assert store.blobs.read(sha256) == b"abc"


@pytest.mark.parametrize("content", [b'{"schema":1,', b"<<<<<<< ours\n{}", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_description_of_the_store_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.json").write_bytes(content)
    with pytest.raises(RecordDamaged, match=r"store\.json is not what flowkiln wrote") as caught:
        FolderStore(tmp_path)
    assert caught.value.exit_code == ExitCode.STORE


def test_a_store_of_a_newer_flowkiln_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"schema": 2, "needs": "3.1"}')
    with pytest.raises(FormatTooNew) as caught:
        FolderStore(tmp_path)
    assert "format 2" in caught.value.message
    assert caught.value.hint == "Read it with flowkiln 3.1 or newer."


def test_a_file_in_place_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="Not a directory"):
        FolderStore(tmp_path / "file")
    with pytest.raises(StoreUnusable):
        FolderStore(tmp_path / "file" / "below").records.create("a", b"")


def test_read_only_folders_and_full_disks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match=str(tmp_path)):
        place.fail_to_write(OSError(errno.EROFS, "Read-only file system"), str(tmp_path))
    with pytest.raises(NoSpace, match=str(tmp_path)):
        place.fail_to_write(OSError(errno.ENOSPC, "No space left on device"), str(tmp_path))
    with pytest.raises(StoreUnusable, match="Input/output error"):
        place.fail_to_write(OSError(errno.EIO, "Input/output error"), str(tmp_path))


def test_without_hard_links_an_exclusive_rename_is_used(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_link(source: str, target: str) -> None:
        asked.append(target)
        raise OSError(errno.EPERM, "no hard links on this file system")

    monkeypatch.setattr(os, "link", no_link)
    assert store.records.create("r/1/a", b"first")
    assert not store.records.create("r/1/a", b"second")
    assert store.records.create("r/1/b", b"other")
    assert store.records.read("r/1/a") == b"first"
    assert store.scratch_files() == []
    assert asked  # and once it was refused, it was not asked again
    assert not any(target.endswith("b") for target in asked)


def test_an_exclusive_rename_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    with pytest.raises(FileExistsError):
        rename_exclusive(str(tmp_path / "new"), str(tmp_path / "old"))
    with pytest.raises(FileNotFoundError):
        rename_exclusive(str(tmp_path / "absent"), str(tmp_path / "other"))
    assert (tmp_path / "old").read_text() == "old"


CREATE = (
    processes.WAIT
    + """
from flowkiln.store.folder import FolderStore
records = FolderStore(sys.argv[1]).records
print(sum(records.create(f"r/1/t/{task}/0/outcome", sys.argv[2].encode() * 2000) for task in range(100)))
"""
)


def test_sixteen_creators_of_the_same_records(store: FolderStore) -> None:
    won = [int(output) for output in processes.race(CREATE, store.root, count=16)]
    assert sum(won) == 100
    owners = [store.records.read(f"r/1/t/{task}/0/outcome") or b"" for task in range(100)]
    for number, count in enumerate(won):
        assert owners.count(str(number).encode() * 2000) == count
    assert store.scratch_files() == []


KILLED = """
import os, signal, sys
from flowkiln.store.folder import FolderStore
store = FolderStore(sys.argv[1])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], die)
if sys.argv[3] == "record":
    store.records.create("r/2/t/0/0/outcome", b"x")
else:
    store.blobs.put(b"bytes")
"""


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("link", "record"),
        ("write", "record"),
        ("unlink", "record"),
        ("replace", "blob"),
        ("write", "blob"),
        ("mkdir", "record"),
    ],
)
def test_kill_9_between_any_two_calls_leaves_a_sound_store(store: FolderStore, call: str, what: str) -> None:
    store.records.create("r/1/t/0/0/begin", b"{}")
    process = processes.start(KILLED, store.root, call, what)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert store.records.read("r/2/t/0/0/outcome") in (None, b"x")
    found = check(store)
    assert found.ok
    assert found.problems == []
    # the same work then succeeds, and what was left behind is swept later
    made = store.records.read("r/2/t/0/0/outcome") is None
    assert store.records.create("r/2/t/0/0/outcome", b"x") is made
    store.blobs.put(b"bytes")
    assert store.sweep(older_than=3600) == 0
    assert store.sweep(older_than=-1) == 1
    assert store.scratch_files() == []


def test_sync_reaches_records_and_their_folders(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.records.create("r/1/journal/00000000", b"{}")
    synced = []
    real_open, real_fsync = os.open, os.fsync
    opened: dict[int, str] = {}

    def remembering(path: str, flags: int) -> int:
        descriptor = real_open(path, flags)
        opened[descriptor] = path.removeprefix(store.root)
        return descriptor

    def fsync(descriptor: int) -> None:
        synced.append(opened[descriptor])
        real_fsync(descriptor)

    monkeypatch.setattr(os, "open", remembering)
    monkeypatch.setattr(os, "fsync", fsync)
    store.records.sync(["r/1/journal/00000000"])
    assert synced == ["/r/1/journal/00000000", "/r/1/journal", "/r/1", "/r", ""]


def test_no_space_left_while_writing_leaves_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.records.create("a", b"there")

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(NoSpace):
        store.records.create("b", b"x")
    with pytest.raises(NoSpace):
        store.blobs.put(b"x")
    with pytest.raises(NoSpace), store.blobs.put_stream() as sink:
        sink.write(b"x")
    assert store.scratch_files() == []
    assert store.records.read("b") is None
