from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flowkiln.executor.driver import Driver
from flowkiln.executor.outcome import Failure
from flowkiln.executor.records import open_run
from flowkiln.store.folder import FolderStore
from tests.executor.inmemory import Memory
from tests.executor.plans import Foreach, Line, Split, flow

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln.executor.progress import RunEvent

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
