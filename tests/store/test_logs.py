from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln._base.errors import FormatTooNew
from flowkiln._base.json import compact
from flowkiln.store import logs
from flowkiln.store.errors import BlobDamaged
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogLine, LogWriter

line = st.builds(
    LogLine,
    st.integers(0, 2**60),
    st.sampled_from(["stdout", "stderr"]),
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=200),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=st.lists(line, max_size=20), repeat=st.sampled_from([1, 100]))
def test_lines_round_trip(store: FolderStore, tmp_path: Path, lines: list[LogLine], repeat: int) -> None:
    writer = LogWriter(tmp_path / "spill")
    for one in lines * repeat:
        writer.append(one)
    document = writer.finish(store.blobs)
    compact(document)
    assert list(logs.read(document, store.blobs)) == lines * repeat
    assert document["lines"] == len(lines) * repeat
    assert ("inline" in document) == (document["size"] <= 16 * 1024)
    assert not (tmp_path / "spill").exists()


def test_no_log_at_all(store: FolderStore, tmp_path: Path) -> None:
    assert list(logs.read({}, store.blobs)) == []
    assert list(logs.read(LogWriter(tmp_path / "s").finish(store.blobs), store.blobs)) == []


def test_a_line_feed_begins_another_line(store: FolderStore, tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "spill")
    writer.append(LogLine(5, "stdout", "a\nb\r50%\rc\udcff"))
    lines = list(logs.read(writer.finish(store.blobs), store.blobs))
    assert lines == [LogLine(5, "stdout", "a"), LogLine(5, "stdout", "b\r50%\rc\\udcff")]


def test_twenty_megabytes_pass_through_little_memory(store: FolderStore, tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "deep" / "spill")
    text = "x" * 999
    for number in range(20_000):
        writer.append(LogLine(number, "stderr", text))
        assert len(writer._memory) < 128 * 1024
    document = writer.finish(store.blobs, incomplete=True)
    assert document["incomplete"] is True
    assert "truncated" not in document
    read = logs.read(document, store.blobs)
    assert sum(found.at_us for found in read) == sum(range(20_000))
    assert list(tmp_path.rglob("spill")) == []


def test_what_is_left_out_is_counted(store: FolderStore, tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "spill", limit=100)
    for _ in range(20):
        writer.append(LogLine(1, "stdout", "123456"))
    document = writer.finish(store.blobs)
    assert (document["lines"], document["truncated"], document["size"]) == (9, 11, 99)
    assert len(list(logs.read(document, store.blobs))) == 9


def test_discarding_removes_the_spill(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "spill")
    writer.append(LogLine(1, "stdout", "x" * 100_000))
    assert (tmp_path / "spill").exists()
    writer.discard()
    writer.discard()
    assert not (tmp_path / "spill").exists()


def test_formats(store: FolderStore) -> None:
    with pytest.raises(FormatTooNew):
        list(logs.read({"schema": 2}, store.blobs))
    with pytest.raises(BlobDamaged):
        list(logs.read({"schema": 1, "inline": "nonsense\n"}, store.blobs))
    version_1 = {"schema": 1, "lines": 2, "size": 23, "inline": "17 o hello world\n18 e \n"}
    assert list(logs.read(version_1, store.blobs)) == [
        LogLine(17, "stdout", "hello world"),
        LogLine(18, "stderr", ""),
    ]


def test_what_a_killed_launcher_had_shown_is_kept_without_its_half_line(store: FolderStore, tmp_path: Path) -> None:
    spill = tmp_path / "log-1-2-0"
    assert logs.salvage(spill, store.blobs) == {}
    spill.write_bytes(b"17 o whole\n18 e other\n19 o ha")
    document = logs.salvage(spill, store.blobs)
    assert document["incomplete"] is True
    assert list(logs.read(document, store.blobs)) == [
        LogLine(17, "stdout", "whole"),
        LogLine(18, "stderr", "other"),
    ]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["log-1-2-0"]
