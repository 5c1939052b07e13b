"""The end of a container: its outcome from the store, from the container, or made from what the engine knows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base.errors import FlowkilnError
from flowkiln._base.json import compact
from flowkiln.executor import carry, container, fate, records
from flowkiln.executor.inside import STORE
from flowkiln.executor.lines import Lines
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.executor.supervisor import require_sound_store
from flowkiln.store import keys, logs
from flowkiln.store.logs import LogLine, LogWriter

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.engines import Engine
    from flowkiln.executor.launching import Job, Launching
    from flowkiln.store.folder import FolderStore

_WORDS = 400


class Settling:
    """Finds or makes the outcomes of one run's containers. Methods raise the engine's errors and the store's."""

    def __init__(self, run: str, store: FolderStore, engine: Engine, launching: Launching) -> None:
        self._run = run
        self._store = store
        self._engine = engine
        self._launching = launching

    def outcome(self, job: Job) -> Outcome | None:
        """The one outcome of a job whose container has ended or is gone, sealed now if it was not; else None.

        Raises the store's error where the step met damage of the store: nothing is sealed then.
        """
        found = self._engine.inspect(job.container) if job.copied else None
        if found is not None and found["State"].get("Running"):
            return None
        return self._found(job) or self._made(job)

    def give_up(self, job: Job, error: FlowkilnError) -> Outcome:
        """The outcome of a job whose engine does not tell how its container ended."""
        text = f"the container has ended, and its engine does not tell how: {error.message}"
        failure = Failure(failure_class="infrastructure", cause="lost", text=text, code=error.code, hint=error.hint)
        return self.fail(job, failure)

    def sealed(self, job: Job) -> Outcome | None:
        """The outcome that stands in the store."""
        return records.outcome(self._store.records, self._run, job.task, job.attempt)

    def fail(self, job: Job, failure: Failure) -> Outcome:
        """The outcome of a job that was not started, or the one that was there before."""
        return self._seal(job, Outcome(status="failed", failure=failure))

    def _found(self, job: Job) -> Outcome | None:
        found = self.sealed(job)
        if found is not None or not job.copied or not job.container:
            return found
        key = keys.outcome(self._run, job.task, job.attempt)
        data = carry.fetch_outcome(self._engine, job.container, self._store, key)
        if data is None:
            return None
        self._store.records.create(key, data)
        return self.sealed(job)

    def _made(self, job: Job) -> Outcome | None:
        found = self._engine.inspect(job.container or job.name)
        if found is not None and found["State"].get("Running"):
            return None
        if found is not None and found["State"].get("ExitCode") == STORE:
            self._require_sound_store(job)
        lines = [] if found is None else self._lines(job)
        words = [line.text for line in lines if line.stream == "stderr" and line.text.strip()]
        last = words[-1][-_WORDS:].removeprefix("flowkiln: ") if words else ""
        failure = fate.failure_of(found, job.name, last, cancelled=job.cancelled is not None)
        return self._seal(job, Outcome(status="failed", failure=failure, logs=self._logs(job, lines)))

    def _seal(self, job: Job, outcome: Outcome) -> Outcome:
        now = records.now_us()
        outcome = dataclasses.replace(
            outcome,
            started=outcome.started or now,
            ended=now,
            environment=self._launching.environment(job.step),
            execution=self._launching.holder(job) or self._launching.execution(job),
        )
        key = keys.outcome(self._run, job.task, job.attempt)
        if self._store.records.create(key, compact(outcome.to_json())):
            return outcome
        return self.sealed(job) or outcome

    def _require_sound_store(self, job: Job) -> None:
        """Raises the store's error that the step's process left word of."""
        if job.copied:
            data = carry.fetch(self._engine, job.container, f"{container.TASK}/outcome.json")
        else:
            path = job.folder / "outcome.json"
            data = path.read_bytes() if path.is_file() else None
        if data is not None:
            require_sound_store(Outcome.from_json(json.loads(data)), job.step.name)

    def _lines(self, job: Job) -> list[LogLine]:
        """All that the container wrote, as far as its engine tells."""
        splitters = {"stdout": Lines(), "stderr": Lines()}
        found: list[LogLine] = []
        try:
            for stream, data in self._engine.logs(job.container, follow=False):
                at_us = records.now_us()
                found += [LogLine(at_us, stream, text) for text in splitters[stream].feed(data, 0.0)]
        except FlowkilnError:
            pass  # trouble with logs never fails a task
        found += [LogLine(records.now_us(), "stdout", text) for text in splitters["stdout"].finish()]
        found += [LogLine(records.now_us(), "stderr", text) for text in splitters["stderr"].finish()]
        return found

    def _logs(self, job: Job, lines: list[LogLine]) -> JSONObject:
        """The log of an attempt whose supervisor could write none."""
        spill = Path(self._store.live_log(self._run, job.task, job.attempt))
        try:
            if not lines:
                return logs.salvage(spill, self._store.blobs)
            writer = LogWriter(spill.with_name(f"{spill.name}.rest"))
            for line in lines:
                writer.append(line)
            return writer.finish(self._store.blobs, incomplete=True)
        except (OSError, FlowkilnError):
            return {}
        finally:
            spill.unlink(missing_ok=True)
