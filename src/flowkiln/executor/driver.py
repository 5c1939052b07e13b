"""The driver of a run: performs the state machine's instructions and feeds it what happens.

A driver always replays the run first, so driving a new run and attaching to an old one are the same work.
"""

from __future__ import annotations

import contextlib
import heapq
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor import records
from flowkiln.executor.backend import DurableBackend
from flowkiln.executor.ending import RunEnd, end_of, end_record
from flowkiln.executor.errors import RunAbandoned
from flowkiln.executor.history import History
from flowkiln.executor.inputs import pack_inputs
from flowkiln.executor.lease import Heartbeat
from flowkiln.executor.machine import Machine
from flowkiln.executor.progress import RunEvent
from flowkiln.executor.retries import Policy
from flowkiln.executor.vocabulary import (
    Absent,
    Append,
    Cancel,
    CancelAsked,
    Close,
    DriverTook,
    Find,
    ObservationLost,
    Probe,
    Report,
    RunOpened,
    Seal,
    SetTimer,
    Submit,
    SubmitAccepted,
    SubmitRefused,
    TimerFired,
    attempt_handle,
)
from flowkiln.store import keys, runs
from flowkiln.store.errors import Displaced
from flowkiln.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import FrameType

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Backend
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.progress import EventKind, Observer
    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.interfaces import Blobs, Records
    from flowkiln.store.logs import LogLine

TICK = 0.2
"""The longest wait in one turn: how late an interrupt is noticed."""
LOOK = 1.0
"""Seconds between looks for a cancellation and for another driver."""
SILENCE = 60.0
"""Seconds without any event after which open attempts are read again."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Store(Protocol):
    """Where the run is kept."""

    @property
    def records(self) -> Records:
        """Documents by key."""

    @property
    def blobs(self) -> Blobs:
        """Bytes by content."""

    def live_log(self, run: str, task: int, attempt: int) -> str:
        """The path of the lines so far of an attempt."""


class Driver:
    """Drives one run to its end. ``observers`` are told of everything, in order.

    ``clock`` gives seconds that never fall, ``wall`` nanoseconds since the epoch.
    """

    def __init__(
        self,
        plan: RunPlan,
        run: str,
        store: Store,
        backend: Backend,
        observers: Iterable[Observer] = (),
        *,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._plan = plan
        self._run = run
        self._store = store
        self._backend = backend
        self._observers = list(observers)
        self._clock = clock
        self._wall = wall
        self._policy = policy or Policy(durable=isinstance(backend, DurableBackend))
        self._journal = Journal(store.records, run)
        history = History.of(self._journal.entries())
        self._epoch = history.epoch + 1
        self._machine = Machine(plan, run, policy=self._policy, seed=int(run), history=history)
        self._heartbeat = Heartbeat(store.records, run, self._epoch, clock())
        self._timers: list[tuple[float, int, TimerFired]] = []
        self._timer_number = 0
        self._interrupts = 0
        self._asked: CancelAsked | None = None
        self._next_entry = 0
        self._next_look = clock() + LOOK
        self._heard = clock()
        self._replaying = True
        self._end: RunEnd | None = None
        self._performers: dict[type, Callable[[Any], Sequence[Event]]] = {
            Append: self._append,
            Submit: self._submit,
            Find: self._find,
            Probe: self._probe,
            Seal: self._seal,
            Cancel: self._cancel,
            SetTimer: self._set_timer,
            Report: self._report,
            Close: self._close,
        }

    def cancel(self) -> None:
        """Has the run ended as cancelled at the next turn; before ``run`` it starts nothing."""
        self._asked = CancelAsked("cancelled")

    def log(self, task: int, attempt: int, line: LogLine) -> None:
        """Tells the observers of a line that an attempt has written."""
        self._emit("log", task, attempt, {"stream": line.stream, "text": line.text}, at_us=line.at_us)

    def run(self) -> RunEnd:
        """Drives the run and returns how it ended; the backend is closed afterwards.

        Raises ``Displaced`` when another driver takes over, ``RunAbandoned`` at a second interrupt (the backend
        is then left to the end of this process), and the errors of store and backend.
        """
        with self._interruptible():
            try:
                self._take()
                while self._end is None:
                    self._turn()
            except RunAbandoned:
                raise
            except BaseException:
                self._backend.close()
                raise
            self._backend.close()
        return self._end

    # -- the loop ----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        steps = [step.name for step in self._plan.steps]
        self._emit("run-started", data={"steps": steps, "attached": self._epoch > 0, "epoch": self._epoch})
        records.open_parameters(self._store.records, self._plan.flow, self._run)
        if self._store.records.exists(keys.cancel(self._run)):
            self.cancel()
        if self._asked is not None:
            self._feed(self._asked)
            self._asked = None
        self._feed(RunOpened())
        self._replaying = False
        self._feed(DriverTook(self._epoch))

    def _turn(self) -> None:
        now = self._clock()
        wait = TICK if not self._timers else min(TICK, max(0.0, self._timers[0][0] - now))
        for event in self._backend.poll(wait):
            self._heard = now
            self._feed(event)
        now = self._clock()
        while self._timers and self._timers[0][0] <= now and self._end is None:
            self._feed(heapq.heappop(self._timers)[2])
        if self._machine.in_flight and now - self._heard > SILENCE:
            self._heard = now
            self._feed(ObservationLost())
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._cancelling(asked)
        if now >= self._next_look and self._end is None:
            self._next_look = now + LOOK
            self._look(now)

    def _look(self, now: float) -> None:
        """Sees whether the run was cancelled from elsewhere or taken over by another driver."""
        self._heartbeat.beat(now, at_us=self._wall() // 1000)
        if self._store.records.exists(keys.journal(self._run, self._next_entry)):
            message = f"another process has taken over run {self._plan.flow}/{self._run}"
            raise Displaced(message, hint="`flowkiln run show` tells how the run goes on.", data={"run": self._run})
        if self._store.records.exists(keys.cancel(self._run)):
            self._cancelling(CancelAsked("cancelled"))

    def _cancelling(self, event: CancelAsked) -> None:
        if self._end is not None or self._machine.ending:
            return
        number = self._machine.in_flight
        word = "Interrupted" if event.how == "interrupted" else "Cancelled"
        more = "; once more to leave at once" if event.how == "interrupted" else ""
        self._emit("note", data={"text": f"{word}: ending {number} running task{'s' * (number != 1)}{more}."})
        self._feed(event)

    def _feed(self, event: Event) -> None:
        pending = deque([event])
        while pending:
            for instruction in self._machine.handle(pending.popleft(), self._clock()):
                pending.extend(self._performers[type(instruction)](instruction))

    # -- instructions ------------------------------------------------------------------------------------------

    def _append(self, instruction: Append) -> Sequence[Event]:
        entry = dict(instruction.entry)
        if "took" in entry:
            entry["took"] = records.signature(self._wall())
        self._next_entry = self._journal.append(entry) + 1
        return ()

    def _submit(self, instruction: Submit) -> Sequence[Event]:
        for assignment in instruction.assignments:
            if assignment.inputs is not None:
                pack_inputs(self._store, self._run, assignment.task, self._machine.inputs(assignment.task))
        try:
            self._backend.submit(instruction.assignments)
        except FlowkilnError as error:
            if not error.retryable:
                raise
            return [SubmitRefused(instruction.batch, error.message)]
        return [SubmitAccepted(instruction.batch, f"batch {instruction.batch}")]

    def _find(self, instruction: Find) -> Sequence[Event]:
        if isinstance(self._backend, DurableBackend):
            self._backend.find(instruction.batch, instruction.members)
            return ()
        # Attempts of other backends end with their driver, and a former driver has gone.
        return [Absent(attempt_handle(*member), 0, complete=True) for member in instruction.members]

    def _probe(self, instruction: Probe) -> Sequence[Event]:
        found = records.attempt(self._store.records, self._run, instruction.task, instruction.attempt)
        if found is not None:
            return [found]
        if self._replaying:
            return [Absent(attempt_handle(instruction.task, instruction.attempt), 0, complete=True)]
        return ()

    def _seal(self, instruction: Seal) -> Sequence[Event]:
        return [records.seal(self._store, self._run, instruction, self._wall() // 1000)]

    def _cancel(self, instruction: Cancel) -> Sequence[Event]:
        self._backend.cancel(instruction.task, instruction.attempt)
        return ()

    def _set_timer(self, instruction: SetTimer) -> Sequence[Event]:
        self._timer_number += 1
        fired = TimerFired(instruction.kind, instruction.task, instruction.attempt)
        heapq.heappush(self._timers, (instruction.at, self._timer_number, fired))
        return ()

    def _report(self, instruction: Report) -> Sequence[Event]:
        self._emit(instruction.kind, instruction.task, instruction.attempt, instruction.data)
        return ()

    def _close(self, instruction: Close) -> Sequence[Event]:
        failure = records.failed_task(self._store.records, self._run, self._plan, self._machine)
        counts = self._machine.counts()
        flow = self._plan.flow
        end = RunEnd(run=self._run, flow=flow, status=instruction.status, failure=failure, counts=counts)
        document = end_record(end, self._machine, self._store.blobs) | {"entries": self._next_entry}
        self._journal.sync()
        if not runs.close_run(self._store.records, flow, self._run, document, clock=self._wall):
            ended = runs.read_run(self._store.records, flow, self._run).ended
            assert ended is not None
            end = end_of(ended)
        self._end = end
        self._emit("run-ended", data=end.to_json())
        return ()

    # -- observers and signals ---------------------------------------------------------------------------------

    def _emit(
        self,
        kind: EventKind,
        task: int | None = None,
        attempt: int | None = None,
        data: JSONObject | None = None,
        *,
        at_us: int | None = None,
    ) -> None:
        if not self._observers:
            return
        where = self._machine.where(task) if task is not None else None
        event = RunEvent(
            kind=kind,
            at_us=self._wall() // 1000 if at_us is None else at_us,
            flow=self._plan.flow,
            run=self._run,
            step=None if where is None else where[0],
            task=task,
            attempt=attempt,
            indices=() if where is None else where[1],
            data=data or {},
        )
        for observer in list(self._observers):
            try:
                observer.emit(event)
            except Exception:  # noqa: BLE001  whatever befalls a spectator, the run goes on
                self._observers.remove(observer)
                text = f"{type(observer).__name__} failed and is told nothing more"
                self._emit("note", data={"text": text})

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A signal that is ignored stays so: that is what nohup and background jobs of scripts ask for.
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._interrupted) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        self._interrupts += 1
        if self._interrupts > 1:
            name = f"{self._plan.flow}/{self._run}"
            message = f"left run {name} before everything it had started was known to have ended"
            raise RunAbandoned(message, hint=f"`flowkiln run cancel {name}` finishes it.")
        self._asked = CancelAsked("interrupted")
