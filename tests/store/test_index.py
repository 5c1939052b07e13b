from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flowkiln.store import index, runs
from flowkiln.store.folder import FolderStore
from flowkiln.store.index import Index
from tests.store import processes

TIME = 1_700_000_000_000_000


def fill(store: FolderStore, count: int = 6) -> list[str]:
    made = []
    for number in range(count):
        flow = ("A", "B")[number % 2]
        document = {"user": ("ada", "bob", "eve")[number % 3], "tags": [f"t{number % 2}", "all"]}
        run = runs.open_run(store.records, flow, document, clock=lambda: TIME * 1000)
        if number % 3 != 2:
            runs.close_run(store.records, flow, run, {"status": ("ok", "failed")[number % 2]})
        made.append(run)
    return made


def test_an_index_fills_itself(store: FolderStore, tmp_path: Path) -> None:
    made = fill(store)
    with Index(store.records, store.root, tmp_path / "cache") as found:
        assert [line.run for line in found.query()] == made[::-1]
        assert [line.run for line in found.query(flow="A")] == [made[4], made[2], made[0]]
        assert [line.run for line in found.query(status="running")] == [made[5], made[2]]
        assert [line.run for line in found.query(user="bob", tags=["t1", "all"])] == [made[1]]
        assert [line.run for line in found.query(before=made[2], limit=1)] == [made[1]]
        line = found.query(flow="A", status="ok", limit=1)[0]
        assert (line.run, line.user, line.tags, line.opened_us) == (made[4], "bob", ("all", "t0"), TIME)
        assert line.ended_us is not None
        assert found.query(flow="none") == []


def test_it_catches_up_with_other_drivers(store: FolderStore, tmp_path: Path) -> None:
    made = fill(store)
    with Index(store.records, store.root, tmp_path / "cache") as found:
        assert found.catch_up() == 0
        new = runs.open_run(store.records, "C", {})
        runs.close_run(store.records, "A", made[2], {"status": "failed"})
        assert found.catch_up() == 2
        assert found.query(limit=1)[0].run == new
        assert [line.run for line in found.query(status="running")] == [new, made[5]]
        runs.change_tags(store.records, "C", new, add=["late"])
        found.put(runs.read_run(store.records, "C", new))
        assert [line.run for line in found.query(tags=["late"])] == [new]
        runs.change_tags(store.records, "C", new, remove=["late"])
        assert found.reindex() == 7
        assert found.query(tags=["late"]) == []


def test_launchers_note_runs_once_somebody_has_asked(store: FolderStore, tmp_path: Path) -> None:
    made = fill(store, 1)
    index.note(store.records, store.root, "A", made[0], tmp_path)
    assert list(tmp_path.glob("*.sqlite")) == []
    Index(store.records, store.root, tmp_path).close()
    run = runs.open_run(store.records, "C", {})
    index.note(store.records, store.root, "C", run, tmp_path)
    with Index(store.records, store.root, tmp_path) as found:
        assert found.query(limit=1)[0].run == run
        runs.close_run(store.records, "C", run, {"status": "ok"})
        index.note(store.records, store.root, "C", run, tmp_path)
        assert found.query(limit=1)[0].status == "ok"
        assert found.catch_up() == 0


def test_a_note_in_a_harmed_index_is_no_trouble(store: FolderStore, tmp_path: Path) -> None:
    made = fill(store, 1)
    index.path_of(store.root, tmp_path).write_bytes(b"not a database" * 1000)
    index.note(store.records, store.root, "A", made[0], tmp_path)
    with Index(store.records, store.root, tmp_path) as found:
        assert found.query(limit=1)[0].run == made[0]


def test_it_survives_and_is_shared(store: FolderStore, tmp_path: Path) -> None:
    fill(store)
    with Index(store.records, store.root, tmp_path) as first, Index(store.records, store.root, tmp_path) as second:
        run = runs.open_run(store.records, "D", {})
        first.put(runs.read_run(store.records, "D", run))
        assert second.query(flow="D")[0].run == run
    with Index(store.records, "elsewhere", tmp_path) as other:
        assert other.path != first.path


@pytest.mark.parametrize("harm", ["garbage", "version", "removed"])
def test_a_harmed_or_older_index_is_built_anew(store: FolderStore, tmp_path: Path, harm: str) -> None:
    made = fill(store)
    with Index(store.records, store.root, tmp_path) as found:
        path = found.path
    if harm == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif harm == "version":
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE runs")
            database.execute("CREATE TABLE runs (other TEXT)")
            database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.unlink()
    with Index(store.records, store.root, tmp_path) as found:
        assert [line.run for line in found.query()] == made[::-1]
        assert found.path.exists()


def test_an_unwritable_cache_is_replaced_by_memory(store: FolderStore, tmp_path: Path) -> None:
    made = fill(store)
    (tmp_path / "file").write_text("")
    with Index(store.records, store.root, tmp_path / "file") as found:
        assert [line.run for line in found.query()] == made[::-1]


PUT = (
    processes.WAIT
    + """
from pathlib import Path
from flowkiln.store import runs
from flowkiln.store.folder import FolderStore
from flowkiln.store.index import Index
store = FolderStore(sys.argv[1])
with Index(store.records, store.root, Path(sys.argv[2])) as found:
    for _ in range(10):
        run = runs.open_run(store.records, "F", {"tags": [sys.argv[3]]})
        found.put(runs.read_run(store.records, "F", run))
"""
)


def test_sixteen_writers_on_one_index(store: FolderStore, tmp_path: Path) -> None:
    processes.race(PUT, store.root, str(tmp_path / "cache"), count=16)
    with Index(store.records, store.root, tmp_path / "cache") as found:
        assert len(found.query(limit=1000)) == 160
        assert all(len(found.query(tags=[str(number)], limit=99)) == 10 for number in range(16))


def test_the_last_successful_run_is_found_by_the_key(store: FolderStore, tmp_path: Path) -> None:
    """Among any number of runs the question is answered from one index, without a scan or a sort."""
    with Index(store.records, store.root, tmp_path) as found:
        plan = found._rows("EXPLAIN QUERY PLAN SELECT run FROM runs r WHERE flow = ? AND status = ? "
                           "ORDER BY run DESC LIMIT 1", "A", "ok")  # fmt: skip
    assert [row[-1] for row in plan] == ["SEARCH r USING COVERING INDEX by_status (flow=? AND status=?)"]
    assert index.INDEX_SCHEMA == 1
