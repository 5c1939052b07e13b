"""Going on with a run whose driver has gone, and ending a run from anywhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.executor import lease
from flowkiln.executor.driver import Driver
from flowkiln.executor.ending import RunEnd, end_of
from flowkiln.executor.errors import RunEnded, RunHasDriver
from flowkiln.executor.plan import RunPlan
from flowkiln.store import keys, packs, runs
from flowkiln.store.errors import BlobDamaged, BlobMissing, JournalDamaged, RecordDamaged
from flowkiln.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flowkiln.executor.backend import Assignment, Backend
    from flowkiln.executor.driver import Store
    from flowkiln.executor.lease import Sign
    from flowkiln.executor.progress import Observer
    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.errors import StoreError
    from flowkiln.store.interfaces import Records

_DAMAGE = (RecordDamaged, JournalDamaged, BlobMissing, BlobDamaged)
POLL = 0.2
"""Seconds between looks whether a live driver has closed the run."""


def sign_of(records: Records, run: str, *, damaged: bool = False) -> Sign | None:
    """The last sign of the run's driver, None for a run that never had one.

    Raises ``RecordDamaged`` and ``JournalDamaged`` unless ``damaged`` accepts a journal of which the rest is lost.
    """
    took = []
    try:
        for entry in Journal(records, run).entries():
            if "took" in entry:
                took.append(entry)  # noqa: PERF401  those before the damage count
    except _DAMAGE:
        if not damaged:
            raise
    return lease.last_sign(records, run, took[-1]) if took else None


def attach(
    flow: str,
    run: str,
    store: Store,
    make_backend: Callable[[RunPlan], Backend],
    observers: Iterable[Observer] = (),
) -> Driver:
    """A driver that goes on with the run where its records stand; call ``run`` on it.

    No attempt that was sealed runs again. Raises ``RunNotFound``, ``RunEnded`` and, while another driver is or
    may be alive, ``RunHasDriver``.
    """
    plan = require_free(flow, run, store)
    return Driver(plan, run, store, make_backend(plan), observers)


def require_free(flow: str, run: str, store: Store) -> RunPlan:
    """The plan of a run that nobody drives.

    Raises ``RunNotFound``, ``RunEnded`` and, while a driver is or may be alive, ``RunHasDriver``.
    """
    found = runs.read_run(store.records, flow, run)
    if found.ended is not None:
        message = f"run {flow}/{run} has ended: {found.status}"
        raise RunEnded(message, hint=f"`flowkiln run show {flow}/{run}` tells more.")
    sign = sign_of(store.records, run)
    if sign is not None and sign.alive:
        where = f"process {sign.who.get('pid')} on {sign.who.get('host')}"
        message = f"run {flow}/{run} is driven by {where}"
        hint = f"`flowkiln run cancel {flow}/{run}` ends it."
        raise RunHasDriver(message, hint=hint, data={"holder": sign.who})
    return RunPlan.from_json(found.opened["plan"])


def cancel(
    flow: str,
    run: str,
    store: Store,
    observers: Iterable[Observer] = (),
    *,
    make_backend: Callable[[RunPlan], Backend | None] = lambda _plan: None,
    wait: float = 60.0,
) -> RunEnd | None:
    """Ends the run, and returns how it ended; None if its driver did not confirm within ``wait`` seconds.

    A live driver is asked. A run without one is taken over, sealed and closed; one whose records are damaged is
    closed as they are, without a list of its tasks. ``make_backend`` may give None where no attempt outlives its
    driver. Raises ``RunNotFound`` and ``RunEnded``.
    """
    records = store.records
    if runs.read_run(records, flow, run).ended is not None:
        message = f"run {flow}/{run} has ended already"
        raise RunEnded(message, hint=f"`flowkiln run show {flow}/{run}` tells how.")
    records.create(keys.cancel(run), json.compact({"schema": 1, "at_us": time.time_ns() // 1000}))
    limit = time.monotonic() + wait
    while True:
        ended = runs.read_run(records, flow, run).ended
        if ended is not None:
            return end_of(ended)
        sign = sign_of(records, run, damaged=True)
        if sign is None or not sign.alive:
            break
        if time.monotonic() >= limit:
            return None
        time.sleep(POLL)
    try:
        driver = attach(flow, run, store, lambda plan: make_backend(plan) or _Nowhere(), observers)
        driver.cancel()
        return driver.run()
    except _DAMAGE as error:
        return _close_damaged(flow, run, store, error)


def _close_damaged(flow: str, run: str, store: Store, error: StoreError) -> RunEnd:
    """Closes a run of which nobody can tell any more what it has done, and returns how it ended."""
    document = RunEnd(run=run, flow=flow, status="cancelled").to_json()
    document |= {"tasks": packs.write([], store.blobs).to_json(), "damage": error.message}
    runs.close_run(store.records, flow, run, document)
    ended = runs.read_run(store.records, flow, run).ended
    assert ended is not None
    return end_of(ended)


class _Nowhere:
    """The backend of a run that only ends: nothing is submitted, and nothing is left of a former driver."""

    def submit(self, assignments: Sequence[Assignment]) -> None:
        message = f"a run that is ending submitted task {assignments[0].task}"
        raise AssertionError(message)

    def poll(self, timeout: float) -> list[Event]:  # noqa: ARG002  there is nothing to wait for
        return []

    def cancel(self, task: int, attempt: int) -> None:
        """Nothing runs here."""

    def close(self) -> None:
        """Nothing to close."""
