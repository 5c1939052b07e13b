"""The Docker backend: one container for each attempt, which outlives the launcher.

Calls to the engine take long, so that threads make them; what they learn comes back through a mailbox. That a
container has ended is heard from the engine's events, and looked up every few seconds in case one was missed.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base.engineerrors import EngineError, EngineUnreachable, NameTaken
from flowkiln._base.errors import FlowkilnError, NoSpace, ReadOnly
from flowkiln.executor import container
from flowkiln.executor.errors import AttemptHeld, ForeignImage
from flowkiln.executor.fate import not_started
from flowkiln.executor.launching import DockerSettings, Job, Launching
from flowkiln.executor.lookout import GONE, Lookout, key_of
from flowkiln.executor.mailbox import Mailbox, Workers
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.settling import Settling
from flowkiln.executor.tail import Tail
from flowkiln.executor.vocabulary import Absent, Began, CancelConfirmed, Observed, Sealed, Verdict, attempt_handle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.engines import Engine
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.folder import FolderStore
    from flowkiln.store.logs import LogLine

    OnLine = Callable[[int, int, LogLine], None]

__all__ = ["DockerBackend", "DockerSettings"]

_FOLLOWED = 20
"""Containers whose lines are shown as they come; those of others follow at their end."""
_LOOK = 5.0
"""Seconds between looks at all containers of the run."""
_PRESS = 1.0
"""Seconds between two signals to a container that is to end: a supervisor that only starts hears none."""
_SPARE = 5.0
_CLOSING = 20.0
_SETTLERS = 4


def _nobody_watches(_task: int, _attempt: int, _line: LogLine) -> None:
    """Used where lines are only recorded."""


class DockerBackend:
    """Runs attempts in containers; implements ``backend.DurableBackend``.

    Takes attempts of steps with an ``image``, at most ``plan.max_workers`` at once: the driver submits no more.
    ``on_line`` gets each line as soon as it is known, in the thread that polls.
    """

    def __init__(
        self,
        plan: RunPlan,
        run: str,
        store: FolderStore,
        engine: Engine,
        settings: DockerSettings,
        *,
        on_line: OnLine = _nobody_watches,
    ) -> None:
        self._steps = {step.name: step for step in plan.steps}
        self._run = run
        self._store = store
        self._engine = engine
        self._settings = settings
        self._on_line = on_line
        self._labels: dict[str, str | None] = {**container.run_labels(store.root, run)}
        self._launching = Launching(plan, run, store, engine, settings)
        self._settling = Settling(run, store, engine, self._launching)
        self.mailbox = Mailbox()
        self._lock = threading.RLock()
        self._jobs: dict[tuple[int, int], Job] = {}
        self._launchers = Workers(min(settings.at_once, max(1, plan.max_workers)), self.mailbox.fail)
        self._settlers = Workers(_SETTLERS, self.mailbox.fail)
        self._control = Workers(1, self.mailbox.fail)
        self._closed = threading.Event()
        self._lookout = Lookout(engine, self._labels, self._has_ended, lambda: self._control.do(self._look))
        self._next_look = time.monotonic() + _LOOK

    # -- the Backend protocol ----------------------------------------------------------------------------------

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Takes attempts on; their containers start in this order."""
        self._lookout.listen()
        for assignment in assignments:
            job = self._launching.job(self._steps[assignment.step], assignment.task, assignment.attempt)
            job.assignment = assignment
            with self._lock:
                self._jobs[job.key] = job
            self._launchers.do(partial(self._launch, job))

    def poll(self, timeout: float) -> list[Event]:
        """What happened, waiting up to ``timeout`` seconds for the first event.

        Raises ``AttemptHeld`` for an attempt that another launcher has begun, and the store's errors.
        """
        now = time.monotonic()
        self._press(now)
        if now >= self._next_look:
            self._next_look = now + _LOOK
            self._control.do(self._look)
        return self.mailbox.take(timeout, self._on_line)

    def cancel(self, task: int, attempt: int) -> None:
        """Begins to end an attempt with all of its container; ``CancelConfirmed`` says that it has ended."""
        with self._lock:
            job = self._jobs.get((task, attempt))
            if job is not None and job.cancelled is None:
                job.cancelled = time.monotonic()
        if job is None:
            self._control.do(partial(self._cancel_unknown, task, attempt))

    def close(self) -> None:
        """Frees what this backend holds. Containers that run go on: ``find`` finds them again."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.mailbox.close()
        self._lookout.close(_SPARE)
        limit = time.monotonic() + _CLOSING
        for workers in (self._control, self._launchers, self._settlers):
            workers.close(max(1.0, limit - time.monotonic()))
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            if job.tail is not None:
                job.tail.stop(0.0)
            if job.cancelled is not None:
                self._quietly(partial(self._launching.clear, job))
        if self._settings.inherits:
            self._quietly(self._sweep)
        self._engine.close()

    def find(self, batch: int, members: Sequence[tuple[int, int]]) -> None:  # noqa: ARG002  members tell all
        """Looks for attempts; ``poll`` gives Observed or Absent for each, or Sealed where one has ended."""
        self._lookout.listen()
        self._control.do(partial(self._find, list(members)))

    # -- starting ----------------------------------------------------------------------------------------------

    def _launch(self, job: Job) -> None:
        """Makes and starts a container; every way out leads to an event."""
        if self._closed.is_set():
            return
        job.phase = "starting"
        if job.cancelled is not None:
            self._drop(job)
            return
        try:
            self._patiently(partial(self._create, job))
            if job.phase != "starting":
                return  # another container had the attempt already
            if self._closed.is_set() or job.cancelled is not None:
                self._quietly(partial(self._launching.clear, job))
                self._drop(job)
                return
            held = self._launching.begin(job)
            if held is not None:
                self._yield_to(job, held)
                return
            self.mailbox.put(Began(*job.key))
            self._patiently(partial(self._engine.start, job.container))
        except (EngineError, ForeignImage, NoSpace, ReadOnly, OSError) as error:
            if not self._closed.is_set():  # else whoever comes next finds out what became of it
                self._not_started(job, error)
            return
        self._runs(job)

    def _create(self, job: Job) -> None:
        try:
            self._launching.create(job)
        except NameTaken:
            found = self._engine.inspect(job.name)
            if found is not None and not self._labels.items() <= (found["Config"].get("Labels") or {}).items():
                raise  # somebody else's
            if found is not None and found["State"]["Status"] != "created":
                self._adopt(job, found)
                return
            # Made for this attempt by a lost call or a launcher that is gone, and never started.
            self._engine.remove(job.name)
            self._launching.create(job)

    def _patiently(self, call: Callable[[], None]) -> None:
        """Makes a call that may be repeated until the engine answers, for a while."""
        limit, pause = time.monotonic() + self._settings.patience, 0.5
        while True:
            try:
                call()
            except EngineUnreachable:
                if time.monotonic() + pause > limit or self._closed.wait(pause):
                    raise
                pause = min(2 * pause, 8.0)
            else:
                return

    def _runs(self, job: Job) -> None:
        """Watches a container that was started."""
        with self._lock:
            followed = sum(one.tail is not None and one.tail.following for one in self._jobs.values())
            job.tail = Tail(self._engine, job.container, job.task, job.attempt, self.mailbox)
            if followed < _FOLLOWED and not self._closed.is_set():
                job.tail.follow()
            job.phase = "running"
            ended = job.ended
        if ended:
            self._has_ended(job.key, job.container)

    def _yield_to(self, job: Job, held: JSONObject | Outcome) -> None:
        """Gives an attempt up that has ended, or that another container or process began."""
        if isinstance(held, Outcome):
            self._over(job, held)
            self._quietly(partial(self._launching.clear, job))
            return
        ours, job.container = job.container, str(held.get("container", ""))
        self._engine.remove(ours)
        if held.get("kind") != "docker":
            message = f"attempt {job.attempt} of task {job.task} was begun by another launcher"
            hint = f"It runs on {held.get('host')} as process {held.get('pid')}."
            raise AttemptHeld(message, step=job.step.name, hint=hint, data={"holder": held})
        found = self._engine.inspect(job.container)
        if found is None:
            self._launching.require_here(*job.key)
            self._settle(job)
        else:
            self._adopt(job, found)

    def _not_started(self, job: Job, error: FlowkilnError | OSError) -> None:
        self._over(job, self._settling.fail(job, not_started(job.step, error)))
        self._quietly(partial(self._launching.clear, job))

    def _drop(self, job: Job) -> None:
        """Forgets an attempt that was cancelled before it began."""
        with self._lock:
            self._jobs.pop(job.key, None)
        self.mailbox.put(CancelConfirmed(*job.key))

    # -- the end -----------------------------------------------------------------------------------------------

    def _has_ended(self, key: tuple[int, int], container: str) -> None:
        """Settles the attempt of that very container once, as soon as its start is known to be over."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.container != container or job.phase == "settling":
                return
            if job.phase != "running":
                job.ended = True
                return
            job.phase = "settling"
        self._settlers.do(partial(self._settle, job))

    def _settle(self, job: Job) -> None:
        job.phase = "settling"
        job.settling = job.settling or time.monotonic()
        try:
            outcome = self._settling.outcome(job)
        except EngineError as error:
            if self._closed.wait(_PRESS):
                return
            if time.monotonic() < job.settling + self._settings.patience:
                self._settlers.do(partial(self._settle, job))
                return
            outcome = self._settling.give_up(job, error)
        if outcome is None:  # what told of its end was mistaken
            job.phase, job.settling = "running", 0.0
            return
        if job.tail is not None:
            job.tail.stop(2.0)
            job.tail.complete(outcome.logs, self._store.blobs)
        self._over(job, outcome)
        self._quietly(partial(self._launching.clear, job))

    def _over(self, job: Job, outcome: Outcome) -> None:
        """Tells how an attempt ended, and forgets it."""
        with self._lock:
            self._jobs.pop(job.key, None)
        self.mailbox.put(Sealed(*job.key, Verdict.of(outcome)))
        if job.cancelled is not None:
            self.mailbox.put(CancelConfirmed(*job.key))

    @staticmethod
    def _quietly(call: Callable[[], None]) -> None:
        """Clears away: what remains is found by its label."""
        try:
            call()
        except FlowkilnError:
            return

    # -- cancelling --------------------------------------------------------------------------------------------

    def _press(self, now: float) -> None:
        """Signals what is to end: SIGINT until its supervisor has ended it, SIGKILL after that."""
        with self._lock:
            doomed = [
                job
                for job in self._jobs.values()
                if job.cancelled is not None and job.phase == "running" and now >= job.pressed + _PRESS
            ]
            for job in doomed:
                job.pressed = now
        for job in doomed:
            assert job.cancelled is not None
            late = now > job.cancelled + 2 * self._settings.grace + _SPARE
            name = "SIGKILL" if late else "SIGINT"
            self._control.do(partial(self._signal, job, name))

    def _signal(self, job: Job, name: str) -> None:
        try:
            if not self._engine.signal(job.container, name):
                self._has_ended(job.key, job.container)
        except EngineError:
            return  # it is sent again

    def _cancel_unknown(self, task: int, attempt: int) -> None:
        """Ends an attempt of a former launcher."""
        try:
            found = self._engine.inspect(container.container_name(self._run, task, attempt))
        except EngineError:
            return  # asked for again
        if found is None:
            self._launching.require_here(task, attempt)
            self.mailbox.put(CancelConfirmed(task, attempt))
            return
        try:
            job = self._inherited(task, attempt, found)
        except EngineError:
            return  # likewise
        if job is None:
            self.mailbox.put(CancelConfirmed(task, attempt))
        else:
            job.cancelled = time.monotonic()

    # -- looking -----------------------------------------------------------------------------------------------

    def _look(self) -> None:
        with self._lock:
            running = {job.key: job.container for job in self._jobs.values() if job.phase == "running"}
        if running:
            self._lookout.look(running)

    def _sweep(self) -> None:
        """Removes containers whose attempts were sealed before anybody here was asked for them."""
        for one in self._engine.containers(labels=self._labels):
            key, labels = key_of(one.get("Labels") or {}), one.get("Labels") or {}
            step = self._steps.get(str(labels.get(container.LABEL + "step")))
            if key is not None and step is not None:
                job = self._launching.job(step, *key)
                job.container = str(one["Id"])
                if self._settling.sealed(job) is not None:
                    self._launching.clear(job)

    def _find(self, members: list[tuple[int, int]]) -> None:
        try:
            listed = self._engine.containers(labels=self._labels)
        except EngineError:
            for member in members:
                self.mailbox.put(Absent(attempt_handle(*member), 0, complete=False))
            return
        by_key = {key_of(one.get("Labels") or {}): str(one["Id"]) for one in listed}
        for member in members:
            with self._lock:
                known = member in self._jobs
            if known:
                self.mailbox.put(Observed(attempt_handle(*member), 0, "running"))
                continue
            try:
                found = self._engine.inspect(by_key[member]) if member in by_key else None
                job = None if found is None else self._inherited(*member, found)
            except EngineError:
                self.mailbox.put(Absent(attempt_handle(*member), 0, complete=False))
                continue
            if job is None:
                self._launching.require_here(*member)
                self.mailbox.put(Absent(attempt_handle(*member), 0, complete=True))

    def _inherited(self, task: int, attempt: int, found: JSONObject) -> Job | None:
        """A job for a container of a former launcher; None when it was never started and nobody has begun it."""
        step = self._steps.get(str((found["Config"].get("Labels") or {}).get(container.LABEL + "step")))
        if step is None:
            return None
        job = self._launching.job(step, task, attempt)
        job.container = str(found["Id"])
        with self._lock:
            if job.key in self._jobs:
                return self._jobs[job.key]
            self._jobs[job.key] = job
        if found["State"]["Status"] == "created":
            if self._launching.holder(job).get("container") != job.container:
                with self._lock:
                    self._jobs.pop(job.key, None)
                self._quietly(partial(self._launching.clear, job))
                return None
            try:
                self._engine.start(job.container)
            except EngineError:
                with self._lock:
                    self._jobs.pop(job.key, None)
                raise
        self._adopt(job, found)
        return job

    def _adopt(self, job: Job, found: JSONObject) -> None:
        """Goes on with a container that a former launcher, or a call whose answer was lost, has started."""
        job.container = str(found["Id"])
        mounts = found.get("Mounts") or ()
        job.copied = not any(one.get("Destination") == container.STORE for one in mounts)
        self.mailbox.put(Observed(attempt_handle(*job.key), 0, "running"))
        self._runs(job)
        if found["State"]["Status"] in GONE:
            self._has_ended(job.key, job.container)
