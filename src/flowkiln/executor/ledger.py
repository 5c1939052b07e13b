"""The two records of each attempt, made once: ``begin`` before user code runs, ``outcome`` at its end."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING

from flowkiln._base.json import compact
from flowkiln.executor import holder
from flowkiln.executor.errors import AttemptHeld
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.store import keys

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.store.interfaces import Records

_BEGIN_SCHEMA = 1


class Ledger:
    """Writes the records of one run's attempts for this launcher. Raises the store's errors."""

    def __init__(self, records: Records, run: str) -> None:
        self._records = records
        self._run = run
        self._holder = holder.this_process()

    def begin(self, assignment: Assignment) -> Outcome | None:
        """Creates the begin record and returns None; else the outcome that ended the attempt before this.

        An attempt that a launcher began which is provably gone is sealed as interrupted here. Raises
        ``AttemptHeld`` when its launcher may still be alive.
        """
        record = {"schema": _BEGIN_SCHEMA, "execution": self.execution(), "at": time.time_ns() // 1000}
        if self._records.create(keys.begin(self._run, assignment.task, assignment.attempt), compact(record)):
            return None
        return self._sealed(assignment) or self._interrupted(assignment)

    def seal(self, assignment: Assignment, outcome: Outcome) -> Outcome:
        """The attempt's one outcome: this one, unless another was there first."""
        now = time.time_ns() // 1000
        outcome = dataclasses.replace(outcome, started=outcome.started or now, ended=outcome.ended or now)
        key = keys.outcome(self._run, assignment.task, assignment.attempt)
        if self._records.create(key, compact(outcome.to_json())):
            return outcome
        return self._sealed(assignment) or outcome

    def execution(self) -> JSONObject:
        """What executes attempts, as both records name it."""
        return {"kind": "process", **self._holder}

    def _sealed(self, assignment: Assignment) -> Outcome | None:
        stored = self._records.read(keys.outcome(self._run, assignment.task, assignment.attempt))
        return None if stored is None else Outcome.from_json(json.loads(stored))

    def _interrupted(self, assignment: Assignment) -> Outcome:
        stored = self._records.read(keys.begin(self._run, assignment.task, assignment.attempt))
        held_by: JSONObject = json.loads(stored)["execution"] if stored else {}
        if not holder.is_gone(held_by):
            message = f"attempt {assignment.attempt} of task {assignment.task} was begun by another launcher"
            hint = f"It runs on {held_by.get('host')} as process {held_by.get('pid')}."
            raise AttemptHeld(message, step=assignment.step, hint=hint, data={"holder": held_by})
        text = "the launcher that ran this attempt ended before the attempt did"
        failure = Failure(failure_class="infrastructure", cause="interrupted", text=text)
        return self.seal(assignment, Outcome(status="failed", failure=failure, execution=held_by))
