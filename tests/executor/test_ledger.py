"""Exactly one begin and one outcome per attempt, whoever writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln._base.json import compact
from flowkiln.executor.errors import AttemptHeld
from flowkiln.executor.holder import this_process
from flowkiln.executor.ledger import Ledger
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.executor.vocabulary import Began, Sealed
from flowkiln.store import keys
from flowkiln.store.folder import FolderStore

from .bench import RUN, Bench

Make = Callable[..., Bench]
GONE = {"kind": "process", **this_process(), "boot": "earlier"}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def begun_by(store: FolderStore, holder: dict[str, object]) -> None:
    record = compact({"schema": 1, "execution": holder, "at": 1})
    assert store.records.create(keys.begin(RUN, 1, 0), record)


def test_the_first_begin_names_this_launcher(store: FolderStore) -> None:
    ledger = Ledger(store.records, RUN)
    assert ledger.begin(Bench.assignment(1)) is None
    stored = store.records.read(keys.begin(RUN, 1, 0))
    assert stored is not None
    assert json.loads(stored)["execution"] == {"kind": "process", **this_process()}


def test_a_second_outcome_obeys_the_first(store: FolderStore) -> None:
    ledger = Ledger(store.records, RUN)
    first = ledger.seal(Bench.assignment(1), Outcome(status="ok"))
    failure = Failure(failure_class="user", cause="exception", text="late")
    assert ledger.seal(Bench.assignment(1), Outcome(status="failed", failure=failure)) == first
    assert first.started > 0


def test_what_a_killed_launcher_began_is_sealed_as_interrupted(store: FolderStore) -> None:
    begun_by(store, GONE)
    found = Ledger(store.records, RUN).begin(Bench.assignment(1))
    assert found is not None
    assert found.failure is not None
    assert (found.failure.failure_class, found.failure.cause) == ("infrastructure", "interrupted")
    assert Ledger(store.records, RUN).begin(Bench.assignment(1)) == found


def test_what_another_launcher_may_still_run_is_left_alone(store: FolderStore) -> None:
    begun_by(store, {"kind": "process", "host": "elsewhere", "pid": 12})
    with pytest.raises(AttemptHeld, match="begun by another launcher") as caught:
        Ledger(store.records, RUN).begin(Bench.assignment(1))
    assert caught.value.exit_code == 18
    assert store.records.read(keys.outcome(RUN, 1, 0)) is None


def test_a_resubmitted_attempt_runs_no_user_code_twice(bench: Make) -> None:
    run = bench("print('ran'); return 1")
    run.run_one()
    run.events.clear()
    run.backend.submit([run.assignment(1)])
    run.poll_until(Sealed)
    assert [event for event in run.events if isinstance(event, Began)] == []
    assert len(run.lines) == 1


def test_the_backend_seals_what_a_killed_launcher_began(bench: Make) -> None:
    run = bench("print('ran'); return 1")
    begun_by(run.store, GONE)
    run.submit()
    (sealed,) = run.poll_until(Sealed)
    assert sealed.outcome.cause == "interrupted"
    assert run.lines == []
    assert run.run_one().ok


def test_an_outcome_written_meanwhile_wins(bench: Make) -> None:
    run = bench("print('on'); time.sleep(0.3); return 1")
    run.submit()
    run.poll_until_line("on")
    other = Ledger(run.store.records, RUN).seal(Bench.assignment(1), Outcome(status="ok", artifacts={"o": {}}))
    run.poll_until(Sealed)
    assert run.outcome(1) == other
