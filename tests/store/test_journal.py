from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln._base.errors import ExitCode, FormatTooNew
from flowkiln.store import keys
from flowkiln.store.errors import Displaced, JournalDamaged
from flowkiln.store.folder import FolderStore
from flowkiln.store.journal import Journal
from tests.store import processes

RUN = "1700000000000000"


def test_entries_come_back_in_order(store: FolderStore) -> None:
    journal = Journal(store.records, RUN)
    assert [journal.append({"kind": "a", "n": number}) for number in range(12)] == list(range(12))
    assert list(Journal(store.records, RUN).entries()) == [{"kind": "a", "n": number} for number in range(12)]


def test_a_displaced_driver_loses_its_next_append(store: FolderStore) -> None:
    first = Journal(store.records, RUN)
    first.append({"by": 1})
    second = Journal(store.records, RUN)
    assert list(second.entries()) == [{"by": 1}]
    assert second.append({"by": 2}) == 1
    with pytest.raises(Displaced) as caught:
        first.append({"by": 1})
    assert caught.value.exit_code == ExitCode.LEASE
    assert second.append({"by": 2}) == 2
    assert [entry["by"] for entry in Journal(store.records, RUN).entries()] == [1, 2, 2]


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=25))
def test_a_driver_writes_only_after_what_it_has_read(steps: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        records = FolderStore(folder).records
        drivers = [Journal(records, RUN) for _ in range(4)]
        seen = dict.fromkeys(range(4), 0)
        for driver in drivers:
            assert list(driver.entries()) == []
        written: list[int] = []
        for number, reads in steps:
            if reads:
                assert [entry["by"] for entry in drivers[number].entries()] == written
                seen[number] = len(written)
            elif seen[number] == len(written):
                assert drivers[number].append({"by": number}) == len(written)
                written.append(number)
                seen[number] += 1
            else:
                with pytest.raises(Displaced):
                    drivers[number].append({"by": number})


TAKE_OVER = (
    processes.WAIT
    + """
from flowkiln.store.errors import Displaced
from flowkiln.store.folder import FolderStore
from flowkiln.store.journal import Journal
journal = Journal(FolderStore(sys.argv[1]).records, sys.argv[2])
written = 0
try:
    for _ in range(50):
        journal.append({"by": sys.argv[3]})
        written += 1
except Displaced:
    pass
print(written)
"""
)


def test_sixteen_drivers_at_once_write_each_entry_once(store: FolderStore) -> None:
    written = [int(output) for output in processes.race(TAKE_OVER, store.root, RUN, count=16)]
    entries = [entry["by"] for entry in Journal(store.records, RUN).entries()]
    assert len(entries) == sum(written) >= 50
    assert [entries.count(str(number)) for number in range(16)] == written


def test_a_gap_is_not_read_over(store: FolderStore) -> None:
    journal = Journal(store.records, RUN)
    for number in range(3):
        journal.append({"n": number})
    store.records.delete(keys.journal(RUN, 1))
    with pytest.raises(JournalDamaged, match="entry 1 "):
        list(Journal(store.records, RUN).entries())


def test_a_last_entry_lost_to_a_power_loss_is_written_again(store: FolderStore) -> None:
    journal = Journal(store.records, RUN)
    journal.append({"n": 0})
    journal.append({"n": 1})
    Path(store.root, keys.journal(RUN, 1)).write_bytes(b"")
    again = Journal(store.records, RUN)
    assert list(again.entries()) == [{"n": 0}]
    assert again.append({"n": 2}) == 1
    assert list(again.entries()) == [{"n": 0}, {"n": 2}]


def test_sync_covers_what_was_appended_since(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(store.records, RUN)
    journal.append({"n": 0})
    journal.append({"n": 1})
    synced: list[list[str]] = []
    monkeypatch.setattr(store.records, "sync", lambda keys: synced.append(list(keys)))
    journal.sync()
    journal.append({"n": 2})
    journal.sync()
    assert synced == [[keys.journal(RUN, 0), keys.journal(RUN, 1)], [keys.journal(RUN, 2)]]


def test_a_newer_entry_is_refused(store: FolderStore) -> None:
    store.records.create(keys.journal(RUN, 0), b'{"schema":2}')
    with pytest.raises(FormatTooNew, match="journal entry 0"):
        list(Journal(store.records, RUN).entries())


def test_a_frozen_journal_of_version_1_is_read() -> None:
    records = FolderStore(Path(__file__).parent / "fixtures" / "store-v1").records
    assert list(Journal(records, RUN).entries()) == [
        {"kind": "took", "epoch": 0},
        {"kind": "submit", "task": 1, "attempt": 0},
    ]
