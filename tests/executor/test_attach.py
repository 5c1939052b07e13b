"""Cases J05 and J06: launchers that are killed, runs that are cancelled from elsewhere."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.executor import holder
from flowkiln.executor.attach import attach, cancel, sign_of
from flowkiln.executor.driver import Driver
from flowkiln.executor.errors import RunEnded, RunHasDriver
from flowkiln.executor.outcome import Failure
from flowkiln.executor.records import open_run
from flowkiln.store import keys, packs, runs
from flowkiln.store.errors import Displaced, JournalDamaged, RecordDamaged
from flowkiln.store.folder import FolderStore
from flowkiln.store.journal import Journal
from tests.executor.inmemory import Memory
from tests.executor.plans import Flow, Foreach, Line, Split, flow

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.executor.backend import Assignment

THIRTY = flow([Foreach(4, [Line(), Foreach(2, [Line()]), Line()]), Split([[Line()], [Line()]])], workers=3)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def flaky(assignment: Assignment) -> Failure | None:
    """One task fails once, whoever runs it."""
    if assignment.step == "s02" and assignment.indices == (1,) and assignment.retry_count == 0:
        return Failure(failure_class="user", cause="exception", text="once")
    return None


def in_a_process_that_dies(work: Callable[[], object]) -> int:
    """The wait status of a child that does ``work``."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_after(store: FolderStore, made: Flow, run: str, creations: int) -> int:
    """Drives the run in a process that kills itself at its n-th new record."""

    def work() -> None:
        left = creations
        create = store.records.create

        def counted(key: str, data: bytes) -> bool:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return create(key, data)

        store.records.create = counted  # type: ignore[method-assign]
        Driver(made.plan, run, store, Memory(made, store, flaky)).run()

    return in_a_process_that_dies(work)


def outcomes(store: FolderStore, run: str) -> dict[tuple[int, int], dict[str, Any]]:
    found = {}
    for task in store.records.names(f"r/{run}/t"):
        for attempt in store.records.names(f"r/{run}/t/{task}"):
            data = store.records.read(keys.outcome(run, int(task), int(attempt)))
            assert data is not None, "an attempt began and was never sealed"
            found[int(task), int(attempt)] = json.loads(data)
    return found


def results(store: FolderStore, run: str) -> dict[str, object]:
    """What an undisturbed run and an attached one must agree on."""
    ended = runs.read_run(store.records, "F", run).ended
    assert ended is not None
    rows = [json.loads(item) for item in packs.iterate(packs.Pack.from_json(ended["tasks"]), store.blobs)]
    return {"status": ended["status"], "counts": ended["counts"], "tasks": {(row[1], *row[2]) for row in rows}}


def with_retry(made: Flow) -> Flow:
    steps: dict[str, dict[str, object]] = {"s02": {"retries": 1}}
    return flow(
        [Foreach(4, [Line(), Foreach(2, [Line()]), Line()]), Split([[Line()], [Line()]])], steps=steps, workers=3
    )


@pytest.mark.parametrize("seed", range(20))
def test_j06_a_launcher_killed_at_any_point_is_taken_over_with_the_same_result(
    store: FolderStore, seed: int
) -> None:
    made = with_retry(THIRTY)
    calm = open_run(store.records, made.plan, {}, {})
    Driver(made.plan, calm, store, Memory(made, store, flaky)).run()
    run = open_run(store.records, made.plan, {}, {})
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        status = killed_after(store, made, run, rng.randint(0, 40))
        assert os.WIFSIGNALED(status) or runs.read_run(store.records, "F", run).ended is not None
    before = {key for key, value in sealed(store, run).items() if value}
    if runs.read_run(store.records, "F", run).ended is None:
        backend = Memory(made, store, flaky)
        driver = attach("F", run, store, lambda _: backend)
        assert driver.run().status == "ok"
        again = {(one.task, one.attempt) for one in backend.performed}
        assert not again & before, "a sealed attempt ran again"
    found = outcomes(store, run)
    last: dict[int, int] = {}
    for task, attempt in found:
        last[task] = max(last.get(task, 0), attempt)
    for (task, attempt), outcome in found.items():
        assert (outcome["status"] == "ok") == (attempt == last[task])
    assert results(store, run) == results(store, calm)


def sealed(store: FolderStore, run: str) -> dict[tuple[int, int], bool]:
    return {
        (int(task), int(attempt)): store.records.exists(keys.outcome(run, int(task), int(attempt)))
        for task in store.records.names(f"r/{run}/t")
        for attempt in store.records.names(f"r/{run}/t/{task}")
    }


def test_an_interruption_by_a_killed_launcher_costs_no_retry(store: FolderStore) -> None:
    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    for _ in range(6):

        def die(assignment: Assignment) -> Failure | None:
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        in_a_process_that_dies(lambda: Driver(made.plan, run, store, Memory(made, store, die)).run())
    backend = Memory(made, store)
    assert attach("F", run, store, lambda _: backend).run().status == "ok"
    one = backend.performed[0]
    assert (one.task, one.attempt, one.retry_count) == (1, 6, 0)


def test_a_run_with_a_live_driver_cannot_be_attached_to(store: FolderStore) -> None:
    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    Journal(store.records, run).append({"epoch": 0, "took": {"who": holder.this_process(), "at_us": 5}})
    with pytest.raises(RunHasDriver, match=str(os.getpid())):
        attach("F", run, store, lambda _: Memory(made, store))


def test_a_run_that_has_ended_can_be_neither_attached_to_nor_cancelled(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    Driver(made.plan, run, store, Memory(made, store)).run()
    with pytest.raises(RunEnded):
        attach("F", run, store, lambda _: Memory(made, store))
    with pytest.raises(RunEnded):
        cancel("F", run, store)


def test_j05_cancelling_a_run_without_driver_seals_and_closes_it(store: FolderStore) -> None:
    made = with_retry(THIRTY)
    run = open_run(store.records, made.plan, {}, {})

    def die(assignment: Assignment) -> Failure | None:
        if assignment.step == "s04":
            os.kill(os.getpid(), signal.SIGKILL)
        return flaky(assignment)

    in_a_process_that_dies(lambda: Driver(made.plan, run, store, Memory(made, store, die)).run())
    sign = sign_of(store.records, run)
    assert sign is not None
    assert sign.alive is False
    end = cancel("F", run, store)
    assert end is not None
    assert (end.status, end.exit_code) == ("cancelled", 130)
    found = outcomes(store, run)
    given_up = [one["failure"]["failure_class"] for one in found.values() if "takeover" in one["execution"]]
    assert given_up == ["cancelled"]
    assert runs.read_run(store.records, "F", run).status == "cancelled"


@pytest.mark.parametrize("where", ["journal/00000001", "journal/00000000", "t/1/0/outcome", "gap"])
def test_a_run_whose_records_are_damaged_can_be_cancelled_though_not_attached_to(
    store: FolderStore, where: str
) -> None:
    made = with_retry(THIRTY)
    run = open_run(store.records, made.plan, {}, {})

    def die(assignment: Assignment) -> Failure | None:
        if assignment.step == "s04":
            os.kill(os.getpid(), signal.SIGKILL)
        return flaky(assignment)

    in_a_process_that_dies(lambda: Driver(made.plan, run, store, Memory(made, store, die)).run())
    damaged = Path(store.root, "r", run, "journal/00000001" if where == "gap" else where)
    if where == "gap":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises((RecordDamaged, JournalDamaged)):
        attach("F", run, store, lambda _plan: Memory(made, store, flaky)).run()
    assert runs.read_run(store.records, "F", run).status == "running"
    end = cancel("F", run, store)
    assert end is not None
    assert (end.status, end.exit_code) == ("cancelled", 130)
    ended = runs.read_run(store.records, "F", run).ended
    assert ended is not None
    assert ended["status"] == "cancelled"
    assert ended["damage"]


def test_a_run_that_was_opened_and_never_driven_can_be_cancelled(store: FolderStore) -> None:
    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    end = cancel("F", run, store)
    assert end is not None
    assert end.status == "cancelled"


def test_a_displaced_driver_stops(store: FolderStore) -> None:
    made = flow([Line(), Foreach(2, [Line()])])
    run = open_run(store.records, made.plan, {}, {})

    def take_over(assignment: Assignment) -> Failure | None:
        if assignment.step == "s01":
            other = Journal(store.records, run)
            other.append({"epoch": 1, "took": {"who": {"host": "elsewhere", "pid": 1}, "at_us": 1}})
        return None

    backend = Memory(made, store, take_over)
    with pytest.raises(Displaced):
        Driver(made.plan, run, store, backend).run()
    assert backend.closed
    assert "s03" not in {one.step for one in backend.performed}


def test_a_run_whose_opening_was_cut_short_still_gets_its_parameters(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {"alpha": {"type": "float"}}, {"user": "ada"})
    store.records.delete(keys.outcome(run, 0, 0))
    assert attach("F", run, store, lambda _: Memory(made, store)).run().status == "ok"
    data = store.records.read(keys.outcome(run, 0, 0))
    assert data is not None
    assert json.loads(data)["artifacts"] == {"alpha": {"type": "float"}}
    assert runs.read_run(store.records, "F", run).opened["user"] == "ada"
