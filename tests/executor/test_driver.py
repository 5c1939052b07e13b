from __future__ import annotations

import itertools
import json
import os
import signal
from typing import TYPE_CHECKING, ClassVar

import pytest

from flowkiln.executor.driver import Driver
from flowkiln.executor.ending import end_of
from flowkiln.executor.errors import RunAbandoned
from flowkiln.executor.outcome import Failure
from flowkiln.executor.records import open_run
from flowkiln.executor.vocabulary import Absent, Observed, attempt_handle
from flowkiln.store import keys, packs, runs
from flowkiln.store.errors import StoreUnusable
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogLine
from tests.executor.inmemory import Memory
from tests.executor.plans import Foreach, Line, Split, flow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.progress import RunEvent
    from flowkiln.executor.vocabulary import Event

BOOM = Failure(failure_class="user", cause="exception", text="boom")


class Seen:
    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_a_run_goes_from_start_to_end(store: FolderStore) -> None:
    made = flow([Split([[Line()], [Foreach(3, [Line(), Line()])]]), Line()])
    run = open_run(store.records, made.plan, {}, {})
    seen, backend = Seen(), Memory(made, store)
    end = Driver(made.plan, run, store, backend, [seen]).run()
    assert (end.status, end.exit_code, end.failure) == ("ok", 0, None)
    assert {step: counts["ok"] for step, counts in end.counts.items()} == made.tasks
    kinds = [event.kind for event in seen.events]
    assert (kinds[0], kinds[-1]) == ("run-started", "run-ended")
    assert kinds.count("task-started") == kinds.count("task-ended") == sum(made.tasks.values())
    assert backend.closed


def test_a_join_gets_one_packed_manifest_in_order(store: FolderStore) -> None:
    made = flow([Split([[Line()], [Line(), Line()]]), Foreach(3, [Line()])])
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store)
    Driver(made.plan, run, store, backend).run()
    joins = {one.step: one for one in backend.performed if one.inputs is not None}
    data = store.records.read(joins["s05"].inputs or "")
    assert data is not None
    split = json.loads(data)
    assert split["steps"] == [["s02", 0, 1], ["s04", 1, 1]]
    data = store.records.read(joins["s08"].inputs or "")
    assert data is not None
    fan = json.loads(data)
    assert fan["steps"] == [["s07", 0, 3]]
    bodies = sorted(one.task for one in backend.performed if one.step == "s07")
    assert fan["tasks"] == bodies
    stored = list(packs.iterate(packs.Pack.from_json(fan["pack"]), store.blobs))
    assert stored == [store.records.read(keys.outcome(run, task, 0)) for task in bodies]


def test_small_tasks_cost_two_records_each(store: FolderStore) -> None:
    made = flow([Foreach(50, [Line()])])
    run = open_run(store.records, made.plan, {}, {})
    Driver(made.plan, run, store, Memory(made, store)).run()
    assert len(store.records.names(keys.journal_folder(run))) <= 3


@pytest.mark.parametrize(
    ("failure", "code", "error"),
    [
        (BOOM, 1, "RUN001"),
        (Failure(failure_class="timeout", cause="timeout", text="10 s"), 1, "RUN001"),
        (Failure(failure_class="environment", cause="mismatch", text="changed"), 17, "RUN003"),
        (Failure(failure_class="infrastructure", cause="lost", text="gone"), 5, "RUN004"),
        (Failure(failure_class="infrastructure", cause="lost", text="store", code="STO001"), 19, "STO001"),
        (Failure(failure_class="environment", cause="not-started", text="no GPU", code="ENG009"), 5, "ENG009"),
        (Failure(failure_class="environment", cause="mismatch", text="foreign", code="RUN041"), 17, "RUN041"),
        (Failure(failure_class="user", cause="artifact", text="no pickle", code="STO005", hint="Do."), 1, "STO005"),
        (Failure(failure_class="cancelled", cause="cancelled", text="by hand"), 130, "RUN005"),
    ],
    ids=lambda value: getattr(value, "failure_class", str(value)),
)
def test_exit_codes_follow_the_failure_class(store: FolderStore, failure: Failure, code: int, error: str) -> None:
    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store, lambda one: failure if one.step == "s01" else None)
    end = Driver(made.plan, run, store, backend).run()
    assert (end.status, end.exit_code) == ("failed", code)
    shown = end.error()
    assert shown is not None
    assert (shown.code, shown.step, shown.data["task"]) == (error, "s01", 2)
    *first, logs, opened = (shown.hint or "").splitlines()
    assert first == ([failure.hint] if failure.hint else [])
    assert logs.startswith(f"`flowkiln run logs F/{run}/s01/2`")
    assert opened.startswith(f"`flowkiln env shell F/{run}/s01/2`")
    ended = runs.read_run(store.records, "F", run).ended
    assert ended is not None
    assert end_of(ended) == end


def test_a_foreach_over_nothing_is_a_clear_error(store: FolderStore) -> None:
    made = flow([Foreach(2, [Line()])])
    made.widths["s01"] = 0
    run = open_run(store.records, made.plan, {}, {})
    end = Driver(made.plan, run, store, Memory(made, store)).run()
    error = end.error()
    assert error is not None
    assert (error.code, error.step) == ("RUN002", "s01")
    assert "items" in error.message


def test_the_end_record_packs_every_task(store: FolderStore) -> None:
    made = flow([Foreach(3, [Line()])])
    run = open_run(store.records, made.plan, {}, {})
    Driver(made.plan, run, store, Memory(made, store)).run()
    ended = runs.read_run(store.records, "F", run).ended
    assert ended is not None
    rows = [json.loads(item) for item in packs.iterate(packs.Pack.from_json(ended["tasks"]), store.blobs)]
    assert [row[0] for row in rows] == list(range(1, sum(made.tasks.values()) + 1))
    assert rows[0] == [1, "start", [], 0, "ok"]


def test_j05_the_first_interrupt_ends_what_runs_and_closes_the_run(store: FolderStore) -> None:
    made = flow([Foreach(4, [Line()])], workers=2)
    run = open_run(store.records, made.plan, {}, {})
    seen, backend = Seen(), Memory(made, store, hold="s02")
    backend.when_idle = lambda: os.kill(os.getpid(), signal.SIGINT) if len(backend.running) == 2 else None
    end = Driver(made.plan, run, store, backend, [seen]).run()
    assert (end.status, end.exit_code) == ("interrupted", 130)
    assert not backend.running
    assert [event.data["text"] for event in seen.events if event.kind == "note"] == [
        "Interrupted: ending 2 running tasks; once more to leave at once."
    ]
    assert end.counts["s02"] == {"ready": 2, "cancelled": 2}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_j05_the_second_interrupt_leaves_at_once_and_names_the_command(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store, hold="start")
    backend.stubborn = True
    backend.when_idle = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(RunAbandoned) as caught:
        Driver(made.plan, run, store, backend).run()
    assert f"flowkiln run cancel F/{run}" in (caught.value.hint or "")
    assert caught.value.exit_code == 130
    assert not backend.closed


def test_a_cancel_record_ends_the_run(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store, hold="start")
    times = itertools.count(0.0, 0.4)
    backend.when_idle = lambda: store.records.create(keys.cancel(run), b"{}") and None
    end = Driver(made.plan, run, store, backend, clock=lambda: next(times)).run()
    assert end.status == "cancelled"


def test_a_long_run_has_a_heartbeat_and_a_short_one_has_none(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    Driver(made.plan, run, store, Memory(made, store)).run()
    assert not store.records.exists(keys.heartbeat(run))
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store, hold="start")
    times = itertools.count(0.0, 5.0)

    def let_go() -> None:
        if store.records.exists(keys.heartbeat(run)):
            for one in list(backend.running.values()):
                del backend.running[one.task, one.attempt]
                backend.finish(one, None)

    backend.when_idle = let_go
    assert Driver(made.plan, run, store, backend, clock=lambda: next(times)).run().status == "ok"


def test_an_error_of_the_backend_closes_it(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})

    def fails(assignment: Assignment) -> Failure | None:
        message = "the store is gone"
        raise StoreUnusable(message)

    backend = Memory(made, store, fails)
    with pytest.raises(StoreUnusable):
        Driver(made.plan, run, store, backend).run()
    assert backend.closed


def test_lines_of_attempts_reach_the_observers_with_their_place(store: FolderStore) -> None:
    made = flow([Foreach(2, [Line()])])
    run = open_run(store.records, made.plan, {}, {})
    seen = Seen()

    def prints(assignment: Assignment) -> Failure | None:
        driver.log(assignment.task, 0, LogLine(at_us=7, stream="stdout", text="hi"))
        return None

    driver = Driver(made.plan, run, store, Memory(made, store, prints), [seen])
    driver.run()
    logs = [(event.step, event.indices, event.at_us) for event in seen.events if event.kind == "log"]
    assert ("s02", (1,), 7) in logs


def test_an_observer_that_fails_does_not_end_the_run(store: FolderStore) -> None:
    class Bad:
        def emit(self, event: RunEvent) -> None:
            raise OSError(28, "No space left on device")

    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    seen = Seen()
    assert Driver(made.plan, run, store, Memory(made, store), [Bad(), seen]).run().status == "ok"
    notes = [event.data["text"] for event in seen.events if event.kind == "note"]
    assert notes == ["Bad failed and is told nothing more"]


def test_an_ignored_hangup_stays_ignored(store: FolderStore) -> None:
    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    backend = Memory(made, store, hold="start")

    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        for one in list(backend.running.values()):
            del backend.running[one.task, one.attempt]
            backend.finish(one, None)

    backend.when_idle = hang_up
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert Driver(made.plan, run, store, backend).run().status == "ok"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_refused_submission_is_repeated(store: FolderStore) -> None:
    class Throttled(Memory):
        refusals = 2

        def submit(self, assignments: Sequence[Assignment]) -> None:
            if self.refusals:
                self.refusals -= 1
                message = "too many requests"
                raise StoreUnusable(message, retryable=True)
            super().submit(assignments)

    made = flow([])
    run = open_run(store.records, made.plan, {}, {})
    times = itertools.count(0.0, 0.5)
    assert Driver(made.plan, run, store, Throttled(made, store), clock=lambda: next(times)).run().status == "ok"


class Durable(Memory):
    """A backend that goes on without its driver: ``cloud`` is what it still runs."""

    cloud: ClassVar[dict[tuple[int, int], Assignment]] = {}

    def submit(self, assignments: Sequence[Assignment]) -> None:
        self.cloud.update({(one.task, one.attempt): one for one in assignments})

    def poll(self, timeout: float) -> list[Event]:
        for key, one in list(self.cloud.items()):
            del self.cloud[key]
            self.start(one)
        return super().poll(timeout)

    def find(self, batch: int, members: Sequence[tuple[int, int]]) -> None:
        for member in members:
            handle = attempt_handle(*member)
            known = member in self.cloud
            self.events.append(Observed(handle, 0, "waiting") if known else Absent(handle, 0, complete=True))


def test_submissions_that_outlive_the_driver_are_found_and_not_repeated(store: FolderStore) -> None:
    class Gone(Exception):
        pass

    class Dying(Durable):
        def poll(self, timeout: float) -> list[Event]:
            raise Gone

    made = flow([Line()])
    run = open_run(store.records, made.plan, {}, {})
    with pytest.raises(Gone):
        Driver(made.plan, run, store, Dying(made, store)).run()
    assert list(Durable.cloud) == [(1, 0)]
    backend = Durable(made, store)
    assert Driver(made.plan, run, store, backend).run().status == "ok"
    assert [(one.task, one.attempt) for one in backend.performed] == [(1, 0), (2, 0), (3, 0)]
