"""Past and present runs of a store, as commands ask for them: by path, with tasks, outcomes, logs."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln.executor import records
from flowkiln.executor.board import TaskRow
from flowkiln.executor.history import History
from flowkiln.executor.machine import Machine
from flowkiln.executor.plan import RunPlan
from flowkiln.executor.vocabulary import Absent, Probe, RunOpened, attempt_handle
from flowkiln.store import keys, logs, packs, runs
from flowkiln.store.folder import FolderStore
from flowkiln.store.journal import Journal
from flowkiln.wiring.errors import UnknownRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock
    from flowkiln.envs.lockfolder import CarriedLocks
    from flowkiln.executor.outcome import Outcome
    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.logs import LogLine
    from flowkiln.store.runs import Run

STARTING = 60_000_000
"""Microseconds after its opening at which a run that nobody has driven yet is taken for left alone."""
_PATH = re.compile(r"(?:(?P<flow>[A-Za-z_]\w*)/)?(?P<run>\d+)(?:/(?P<step>\w+)(?:/(?P<task>\d+))?)?")


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: a run, a step of it, or a task."""

    run: Run
    step: str | None = None
    task: int | None = None


def open_store(settings: Settings) -> FolderStore:
    """The store of the settings."""
    return FolderStore(settings.store)


def find(store: FolderStore, text: str, *, flow: str | None = None) -> Place:
    """What ``text`` names: ``[Flow/]RUN[/STEP[/TASK]]``. Raises ``UnknownRun`` and the store's errors."""
    match = _PATH.fullmatch(text.strip("/"))
    if match is None:
        message = f"{text!r} names no run"
        raise UnknownRun(message, hint="Write Flow/RUN, Flow/RUN/STEP or Flow/RUN/STEP/TASK.")
    named = match["flow"] or flow or runs.flow_of(store.records, match["run"])
    found = runs.read_run(store.records, named, match["run"])
    task = match["task"]
    return Place(found, match["step"], None if task is None else int(task))


def plan_of(run: Run) -> RunPlan:
    """The plan that the run was opened with."""
    return RunPlan.from_json(run.opened["plan"])


def lock_of(store: FolderStore, run: Run, step: str) -> tuple[EnvLock, Path]:
    """The lock that ``step`` of the run had, whatever became of the files since, and the folder it stood in.

    Raises ``MissingLock`` when the run's record has none, and the store's errors.
    """
    carried = _carried(store, run, step)
    (lock,) = carried.read().values()
    return lock, carried.path


def base_of(store: FolderStore, run: Run, step: str) -> BasePin | None:
    """The base of the image that ``step`` of the run had, None where it ran in none. Raises as ``lock_of`` does."""
    return next(iter(_carried(store, run, step).read_bases()), None)


def _carried(store: FolderStore, run: Run, step: str) -> CarriedLocks:
    from flowkiln.envs.errors import MissingLock
    from flowkiln.envs.lockfolder import CarriedLocks

    recorded = run.opened.get("locks", {}).get(step)
    if recorded is None:
        message = f"the record of run {run.flow}/{run.run} has no lock for step {step!r}"
        raise MissingLock(message, hint=f"`flowkiln run show {run.flow}/{run.run}` shows what it has.")
    return CarriedLocks(Path(recorded["folder"]), json.loads(store.blobs.read(recorded["sha256"])))


def tasks(store: FolderStore, run: Run) -> list[TaskRow]:
    """The tasks of a run by id: from its end record, else what its journal and outcomes say so far."""
    if run.ended is not None and run.ended.get("tasks"):
        pack = packs.Pack.from_json(run.ended["tasks"])
        return [_row(json.loads(data)) for data in packs.iterate(pack, store.blobs)]
    return list(replayed(store, run).rows())


def replayed(store: FolderStore, run: Run) -> Machine:
    """The state of a run that its journal and its sealed outcomes make, without driving it."""
    history = History.of(Journal(store.records, run.run).entries())
    machine = Machine(plan_of(run), run.run, seed=int(run.run), history=history)
    pending: deque[Event] = deque([RunOpened()])
    while pending:
        for order in machine.handle(pending.popleft(), 0.0):
            if isinstance(order, Probe):
                found = records.attempt(store.records, run.run, order.task, order.attempt)
                pending.append(found or Absent(attempt_handle(order.task, order.attempt), 0, complete=True))
    return machine


def _row(values: list[Any]) -> TaskRow:
    task, step, indices, attempt, state = values
    return TaskRow(task, step, tuple(indices), attempt, state)


def chosen(store: FolderStore, place: Place) -> list[TaskRow]:
    """The tasks that ``place`` names. Raises ``UnknownRun`` when it names none."""
    found = [
        row for row in tasks(store, place.run) if place.step in (None, row.step) and place.task in (None, row.task)
    ]
    if not found:
        what = f"step {place.step!r}" if place.task is None else f"task {place.step}/{place.task}"
        message = f"run {place.run.flow}/{place.run.run} has no {what}"
        hint = f"`flowkiln run show {place.run.flow}/{place.run.run}` lists its tasks."
        raise UnknownRun(message, hint=hint)
    return found


def outcome(store: FolderStore, run: str, task: int, attempt: int) -> Outcome | None:
    """The sealed outcome of an attempt, None while there is none."""
    return records.outcome(store.records, run, task, attempt)


def has_begun(store: FolderStore, run: str, task: int, attempt: int) -> bool:
    """Whether an attempt was begun; it may have ended since."""
    return store.records.exists(keys.begin(run, task, attempt))


def live_lines(store: FolderStore, run: str, task: int, attempt: int) -> Iterator[LogLine]:
    """What an attempt that still runs has printed, up to some seconds ago."""
    yield from logs.read_spill(Path(store.live_log(run, task, attempt)))


def driver_gone(store: FolderStore, run: Run) -> int | None:
    """The last sign, in microseconds since the epoch, of the driver of a run that has not ended and has none.

    None for a run that has ended, or whose driver is or may be alive.
    """
    if run.ended is not None:
        return None
    from flowkiln.executor import attach

    sign = attach.sign_of(store.records, run.run)
    if sign is None:  # it may be starting
        opened: int = run.opened["opened_us"]
        return opened if time.time_ns() // 1000 - opened > STARTING else None
    return None if sign.alive else sign.seen_us


def log_lines(store: FolderStore, found: Outcome) -> Iterator[LogLine]:
    """What an attempt printed, by time."""
    yield from logs.read(found.logs, store.blobs)
