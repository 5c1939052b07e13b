from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from flowkiln._base.json import compact
from flowkiln.store import artifacts, keys, packs, runs
from flowkiln.store.check import check
from flowkiln.store.folder import FolderStore
from flowkiln.store.journal import Journal

RUN = "1700000000000000"


@pytest.fixture
def filled(store: FolderStore) -> tuple[FolderStore, artifacts.Artifact, artifacts.Artifact]:
    """A run with an artifact in a record, and another one that only a packed document refers to."""
    one = artifacts.save("a", np.arange(5000), store.blobs)
    other = artifacts.save("b", np.arange(6000), store.blobs)
    runs.open_run(store.records, "F", {}, clock=lambda: int(RUN) * 1000)
    store.records.create(keys.outcome(RUN, 1, 0), compact({"schema": 1, "artifacts": {"a": one.to_json()}}))
    documents = [compact({"artifacts": {"b": other.to_json()}}), b"{}" * 3000]
    pack = packs.write(documents, store.blobs)
    journal = Journal(store.records, RUN)
    for number in range(3):
        journal.append({"n": number})
    runs.close_run(store.records, "F", RUN, {"status": "ok", "tasks": pack.to_json()})
    return store, one, other


def old(store: FolderStore) -> None:
    """Makes every file look two days old."""
    for parent, _, names in os.walk(store.root):
        for name in names:
            os.utime(Path(parent, name), (1, 1))


Filled = tuple[FolderStore, artifacts.Artifact, artifacts.Artifact]


def test_a_sound_store(filled: Filled) -> None:
    store, *_ = filled
    old(store)
    found = check(store)
    assert (found.problems, found.ok, found.records, found.blobs) == ([], True, 7, 3)
    assert found.size == sum(
        path.stat().st_size
        for top in ("flows", "r", "blobs")
        for path in Path(store.root, top).rglob("*")
        if path.is_file()
    )


def test_an_empty_store(store: FolderStore) -> None:
    assert check(store).problems == []


def test_every_changed_byte_is_found(filled: Filled) -> None:
    store, *_ = filled
    for path in [
        path
        for path in Path(store.root).rglob("*")
        if path.is_file() and path.name not in (".gitignore", "store.json")
    ]:
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:] if len(data) > 20 else b"x" + data[1:])
        found = check(store)
        where = path.relative_to(store.root).as_posix()
        assert where in [problem.where for problem in found.problems if not problem.harmless]
        assert not found.ok
        path.write_bytes(data)
    assert check(store).ok


def test_missing_blobs_name_who_needs_them(filled: Filled) -> None:
    store, one, other = filled
    Path(store.blobs.path(one.sha256)).unlink()
    Path(store.blobs.path(other.sha256)).unlink()
    found = check(store)
    assert sorted((problem.kind, problem.where.split("/")[0]) for problem in found.problems) == [
        ("missing-blob", "blobs"), ("missing-blob", "r"),
    ]  # fmt: skip
    assert not found.ok


def test_garbage_is_listed_once_it_has_settled(filled: Filled) -> None:
    store, one, _ = filled
    lost = store.blobs.put(b"nobody refers to this")
    Path(store.root, "tmp", "left").write_bytes(b"half")
    assert check(store).problems == []
    old(store)
    found = check(store)
    assert found.ok
    assert found.unreferenced == [lost]
    assert [(problem.kind, problem.harmless) for problem in found.problems] == [
        ("unreferenced", True),
        ("left-over", True),
    ]
    store.records.delete(keys.outcome(RUN, 1, 0))
    assert check(store).unreferenced == sorted([lost, one.sha256])


def test_a_gap_in_a_journal(filled: Filled) -> None:
    store, *_ = filled
    store.records.delete(keys.journal(RUN, 1))
    assert [(problem.kind, problem.where, problem.text) for problem in check(store).problems] == [
        ("journal-gap", f"r/{RUN}/journal", "entry 1 is missing")
    ]


def test_records_lost_to_a_power_loss_and_foreign_files_are_harmless(filled: Filled) -> None:
    store, *_ = filled
    Path(store.root, keys.journal(RUN, 2)).write_bytes(b"")
    Path(store.root, "notes.txt").write_text("mine")
    Path(store.root, "blobs", "readme").write_text("mine")
    found = check(store)
    assert found.ok
    assert [problem.kind for problem in found.problems] == ["lost-record", "foreign", "foreign"]


@pytest.fixture
def finished(store: FolderStore) -> FolderStore:
    """A finished run of a process backend: two tasks, the second one a join."""
    code = store.blobs.put(b"the code" * 1000)
    plan = {"code": code, "steps": [{"name": "start", "kind": "linear"}, {"name": "join", "kind": "join"}]}
    runs.open_run(store.records, "F", {"plan": plan}, clock=lambda: int(RUN) * 1000)
    outcome = compact({"schema": 1, "status": "ok", "execution": {"kind": "process"}})
    for task in (1, 2):
        store.records.create(keys.begin(RUN, task, 0), b"{}")
        store.records.create(keys.outcome(RUN, task, 0), outcome)
    store.records.create(keys.inputs(RUN, 2), b"{}")
    journal = Journal(store.records, RUN)
    for number in range(2):
        journal.append({"n": number})
    tasks = packs.write(
        [compact([task, name, [], 0, "ok"]) for task, name in ((1, "start"), (2, "join"))], store.blobs
    )
    runs.close_run(store.records, "F", RUN, {"status": "ok", "tasks": tasks.to_json(), "entries": 2})
    assert check(store).problems == []
    return store


@pytest.mark.parametrize(
    "key",
    [
        keys.outcome(RUN, 1, 0),
        keys.begin(RUN, 1, 0),
        keys.inputs(RUN, 2),
        keys.journal(RUN, 1),
        keys.claim(RUN),
        keys.run_opened("F", RUN),
    ],
)
@pytest.mark.parametrize("how", ["deleted", "emptied", "a folder"])
def test_a_record_that_must_be_there_and_is_not(finished: FolderStore, key: str, how: str) -> None:
    path = Path(finished.root, key)
    path.unlink()
    if how == "emptied":
        path.touch()
    elif how == "a folder":
        path.mkdir()
    found = check(finished)
    assert not found.ok
    assert [problem.kind for problem in found.problems if not problem.harmless] == ["missing-record"]


def test_a_missing_code_package(finished: FolderStore) -> None:
    Path(finished.blobs.path(finished.blobs.put(b"the code" * 1000))).unlink()
    assert [problem.where for problem in check(finished).problems] == [keys.run_opened("F", RUN)]
