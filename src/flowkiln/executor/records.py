"""The driver's reads and writes of a run's records: parameters, begin, outcome, signatures."""

from __future__ import annotations

import json as json_
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln._base.errors import FlowkilnError
from flowkiln.executor import holder
from flowkiln.executor.ending import FailedTask
from flowkiln.executor.outcome import OUTCOME_SCHEMA, Failure, Outcome, Transition
from flowkiln.executor.vocabulary import Began, Sealed, Verdict
from flowkiln.store import formats, keys, logs, runs

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.driver import Store
    from flowkiln.executor.machine import Machine
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.vocabulary import Seal
    from flowkiln.store.interfaces import Records

PARAMETERS = 0
"""The task whose outcome holds the parameters; its step is ``_parameters``."""


def open_run(records: Records, plan: RunPlan, parameters: dict[str, JSONObject], document: JSONObject) -> str:
    """Opens a run of ``plan`` and returns its id. ``parameters`` maps names to artifacts in JSON form.

    ``document`` holds what else the run's record tells (user, host, command line). The parameters become the
    artifacts of task 0, from which the start step inherits.
    """
    stored = {**document, "plan": plan.to_json(), "parameters": parameters, "tags": list(plan.tags)}
    run = runs.open_run(records, plan.flow, stored)
    open_parameters(records, plan.flow, run)
    return run


def open_parameters(records: Records, flow: str, run: str) -> None:
    """Makes sure that task 0 of the run is sealed."""
    key = keys.outcome(run, PARAMETERS, 0)
    if records.exists(key):
        return
    opened = runs.read_run(records, flow, run).opened
    at_us = opened["opened_us"]
    transition = Transition(targets=(opened["plan"]["steps"][0]["name"],))
    outcome = Outcome(
        status="ok",
        artifacts=opened.get("parameters", {}),
        transition=transition,
        started=at_us,
        ended=at_us,
        execution=_execution(),
    )
    records.create(key, json.compact(outcome.to_json()))


def signature(wall_ns: int) -> JSONObject:
    """Who takes a run over, and when, as the journal keeps it."""
    return {"who": holder.this_process(), "at_us": wall_ns // 1000}


def outcome(records: Records, run: str, task: int, attempt: int) -> Outcome | None:
    """The sealed outcome of an attempt. Raises ``RecordDamaged`` and ``FormatTooNew``."""
    data = records.read(keys.outcome(run, task, attempt))
    if data is None:
        return None
    what = f"the outcome of task {task}, attempt {attempt}, of run {run}"
    return Outcome.from_json(formats.document_of(data, OUTCOME_SCHEMA, what))


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def document(data: bytes) -> JSONObject:
    """The JSON object of a stored record."""
    found: JSONObject = json_.loads(data)
    return found


def attempt(records: Records, run: str, task: int, number: int) -> Sealed | Began | None:
    """What the records say of an attempt: sealed, begun, or nothing."""
    found = outcome(records, run, task, number)
    if found is not None:
        return Sealed(task, number, Verdict.of(found))
    return Began(task, number) if records.exists(keys.begin(run, task, number)) else None


def seal(store: Store, run: str, order: Seal, at_us: int) -> Sealed:
    """Creates the outcome that ``order`` tells unless the attempt has one, and returns the one that holds.

    What a launcher that was killed had shown of the attempt's lines becomes its log.
    """
    records, spill = store.records, Path(store.live_log(run, order.task, order.attempt))
    failure = Failure(failure_class=order.failure_class, cause=order.cause, text=order.text)
    execution = _execution() | ({"takeover": True} if order.takeover else {})
    made = Outcome(
        status="failed",
        failure=failure,
        started=at_us,
        ended=at_us,
        logs=_salvaged(spill, store),
        execution=execution,
    )
    key = keys.outcome(run, order.task, order.attempt)
    if not records.create(key, json.compact(made.to_json())):
        held = outcome(records, run, order.task, order.attempt)
        made = made if held is None else held
    if order.takeover:
        with suppress(OSError):  # it is swept later
            spill.unlink(missing_ok=True)
    return Sealed(order.task, order.attempt, Verdict.of(made))


def _salvaged(spill: Path, store: Store) -> JSONObject:
    with suppress(OSError, FlowkilnError):  # trouble with logs never keeps a run from going on
        return logs.salvage(spill, store.blobs)
    return {}


def failed_task(records: Records, run: str, plan: RunPlan, machine: Machine) -> FailedTask | None:
    """The failure that ended the run, with all that its outcome tells."""
    first = machine.failure
    if first is None:
        return None
    step, indices = machine.where(first.task) or ("", ())
    verdict = first.verdict
    assert verdict.failure_class is not None
    assert verdict.cause is not None
    failure = Failure(failure_class=verdict.failure_class, cause=verdict.cause, text=verdict.text)
    found = outcome(records, run, first.task, first.attempt)
    if found is not None and not found.ok and found.failure is not None:
        failure = found.failure
    return FailedTask(
        step=step,
        task=first.task,
        attempt=first.attempt,
        indices=indices,
        failure=failure,
        contained=any(one.name == step and one.image is not None for one in plan.steps),
    )


def _execution() -> JSONObject:
    return {"kind": "driver", **holder.this_process()}
