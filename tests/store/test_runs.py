from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.errors import FormatTooNew
from flowkiln.store import keys, packs, runs
from flowkiln.store.errors import BadKey, RunNotFound
from flowkiln.store.folder import FolderStore
from tests.store import processes

TIME = 1_700_000_000_000_000


def test_a_run_from_opening_to_end(store: FolderStore) -> None:
    run = runs.open_run(store.records, "Train", {"user": "ada", "tags": ["b", "a"]}, clock=lambda: TIME * 1000)
    assert run == "1700000000000000"
    found = runs.read_run(store.records, "Train", run)
    assert (found.flow, found.run, found.status, found.ended) == ("Train", run, "running", None)
    assert found.opened == {
        "user": "ada", "tags": ["b", "a"], "schema": 1, "flow": "Train", "run": run, "opened_us": TIME,
    }  # fmt: skip
    assert found.tags == ("a", "b")
    assert runs.close_run(store.records, "Train", run, {"status": "ok"}, clock=lambda: TIME * 1000 + 5000)
    assert not runs.close_run(store.records, "Train", run, {"status": "failed"})
    found = runs.read_run(store.records, "Train", run)
    assert found.status == "ok"
    assert found.ended == {"status": "ok", "schema": 1, "flow": "Train", "run": run, "ended_us": TIME + 5}
    assert runs.flow_of(store.records, run) == "Train"


def test_the_loser_of_an_instant_takes_the_next_one(store: FolderStore) -> None:
    made = [runs.open_run(store.records, flow, {}, clock=lambda: TIME * 1000) for flow in ("A", "B", "A")]
    assert made == ["1700000000000000", "1700000000000001", "1700000000000002"]
    assert runs.run_ids(store.records, "A") == [made[2], made[0]]
    assert runs.flow_of(store.records, made[1]) == "B"


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_ids_sort_as_times(one: int, other: int) -> None:
    assert (runs.new_run_id(one) < runs.new_run_id(other)) == (one < other)
    assert runs.is_run_id(runs.new_run_id(one))


OPEN = (
    processes.WAIT
    + """
from flowkiln.store import runs
from flowkiln.store.folder import FolderStore
records = FolderStore(sys.argv[1]).records
frozen = lambda: 1_700_000_000_000_000_000
for number in range(25):
    alpha = f"{sys.argv[2]}-{number}"
    flow = ("A", "B")[number % 2]
    print(flow, runs.open_run(records, flow, {"alpha": alpha}, clock=frozen), alpha)
"""
)


def test_2_x_200_simultaneous_run_starts(store: FolderStore) -> None:
    """Sixteen processes start 400 runs of two flows in one microsecond: no id twice, no crossed parameters."""
    lines = [line.split() for output in processes.race(OPEN, store.root, count=16) for line in output.splitlines()]
    assert len(lines) == 400
    assert len({run for _, run, _ in lines}) == 400
    for flow, run, alpha in lines:
        assert runs.read_run(store.records, flow, run).opened["alpha"] == alpha
    assert len(runs.run_ids(store.records, "A")) + len(runs.run_ids(store.records, "B")) == 400


def test_unknown_runs(store: FolderStore) -> None:
    for run in ("1700000000000000", "latest", "../../x"):
        with pytest.raises(RunNotFound, match="no run"):
            runs.read_run(store.records, "F", run)
        with pytest.raises(RunNotFound):
            runs.flow_of(store.records, run)
    assert runs.run_ids(store.records, "../x") == []
    assert list(runs.runs(store.records)) == []


def test_runs_come_newest_first(store: FolderStore) -> None:
    first = runs.open_run(store.records, "F", {}, clock=lambda: TIME * 1000)
    second = runs.open_run(store.records, "F", {}, clock=lambda: TIME * 1000)
    assert [run.run for run in runs.runs(store.records)] == [second, first]


def test_an_end_reaches_the_disk_with_what_it_needs(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.open_run(store.records, "F", {})
    pack = packs.write([b"x" * 5000], store.blobs)
    synced: list[str] = []
    monkeypatch.setattr(store.records, "sync", synced.extend)
    runs.close_run(store.records, "F", run, {"status": "ok", "tasks": pack.to_json()})
    assert synced == [keys.blob(pack.sha256 or ""), keys.run_opened("F", run), keys.run_ended("F", run)]


def test_a_run_needs_a_status_to_end(store: FolderStore) -> None:
    with pytest.raises(TypeError):
        runs.close_run(store.records, "F", "1700000000000000", {})


def test_tags_are_sets(store: FolderStore) -> None:
    run = runs.open_run(store.records, "F", {"tags": ["x"]})
    assert runs.change_tags(store.records, "F", run, add=["y", "a b/ü"]) == ("a b/ü", "x", "y")
    assert runs.change_tags(store.records, "F", run, add=["y"]) == ("a b/ü", "x", "y")
    assert runs.change_tags(store.records, "F", run, remove=["x", "z"]) == ("a b/ü", "y")
    assert runs.read_run(store.records, "F", run).tags == ("a b/ü", "y")
    assert store.records.names(keys.tag_sets("F", run)) == ["000000", "000001"]


TAG = (
    processes.WAIT
    + """
from flowkiln.store import runs
from flowkiln.store.folder import FolderStore
records = FolderStore(sys.argv[1]).records
for number in range(5):
    runs.change_tags(records, "F", sys.argv[2], add=[f"{sys.argv[3]}-{number}"])
"""
)


def test_no_tag_of_many_writers_is_lost(store: FolderStore) -> None:
    run = runs.open_run(store.records, "F", {})
    processes.race(TAG, store.root, run, count=8)
    assert len(runs.read_run(store.records, "F", run).tags) == 40


def test_a_flow_whose_name_is_no_key(store: FolderStore) -> None:
    with pytest.raises(BadKey):
        runs.open_run(store.records, "a/b", {})


def test_records_of_a_newer_flowkiln_are_refused(store: FolderStore) -> None:
    store.records.create(keys.run_opened("F", "1700000000000000"), b'{"schema":9,"needs":"2.0"}')
    with pytest.raises(FormatTooNew) as caught:
        runs.read_run(store.records, "F", "1700000000000000")
    assert "2.0" in (caught.value.hint or "")


def test_frozen_records_of_version_1_are_read() -> None:
    records = FolderStore(Path(__file__).parent / "fixtures" / "store-v1").records
    found = list(runs.runs(records))
    assert [(run.flow, run.run, run.status, run.tags) for run in found] == [
        ("Train", "1700000000000001", "running", ()),
        ("Train", "1700000000000000", "ok", ("best", "nightly")),
    ]
    assert found[1].ended == {
        "status": "ok", "tasks": 3, "schema": 1, "flow": "Train", "run": "1700000000000000",
        "ended_us": 1700000000900000,
    }  # fmt: skip
