"""The process backend: attempts as processes of this machine, forked from warm templates.

One loop over a selector reads output, keeps deadlines and learns of ends; there are no threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import selectors
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor.activation import ActivationError
from flowkiln.executor.channel import Closed
from flowkiln.executor.forked import Forked
from flowkiln.executor.ledger import Ledger
from flowkiln.executor.memory import MemoryKills
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.executor.pool import Pool, Surroundings
from flowkiln.executor.supervisor import require_sound_store
from flowkiln.executor.vocabulary import Began, CancelConfirmed, Sealed, Verdict
from flowkiln.store.logs import LogLine, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.plan import Prefix, RunPlan, StepPlan
    from flowkiln.executor.templates import Template
    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.folder import FolderStore

    Verify = Callable[[Prefix, str], None]
    OnLine = Callable[[int, int, LogLine], None]

_UNANSWERED = 64
"""Orders that a template has not yet answered: few enough to fit its channel, so that a send never waits."""
_PIPEFUL = 4
"""Reads that empty a pipe, unless somebody still writes to it."""
_EXPOSED_EVERY = 2.0
"""Seconds between two moments at which the store shows the lines so far of attempts that are not short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What the process backend needs besides the plan.

    ``code_dir`` is the unpacked code package, ``cache`` the user's cache folder. ``info`` goes to every step's
    process as it is. ``host`` is the launcher's environment; ``passed`` names variables of it that locked
    environments see too. ``grace`` is the time in seconds between the stages of ending an attempt, ``drain`` how
    long output is still read after its end.
    """

    code_dir: Path
    cache: Path
    info: JSONObject = field(default_factory=dict)
    host: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    passed: tuple[str, ...] = ()
    grace: float = 5.0
    drain: float = 2.0


def _nothing_to_prove(_prefix: Prefix, _level: str) -> None:
    """Used where no environment is locked."""


def _nobody_watches(_task: int, _attempt: int, _line: LogLine) -> None:
    """Used where lines are only recorded."""


class ProcessBackend:
    """Runs attempts as processes of this machine; implements ``backend.Backend``.

    ``verify`` raises a ``FlowkilnError`` when a prefix is not what was locked; it is called before each template
    starts. ``on_line`` gets each line as soon as it was read. At most ``plan.max_workers`` attempts run at once.
    """

    def __init__(
        self,
        plan: RunPlan,
        run: str,
        store: FolderStore,
        settings: ProcessSettings,
        *,
        verify: Verify = _nothing_to_prove,
        on_line: OnLine = _nobody_watches,
    ) -> None:
        self._plan = plan
        self._run = run
        self._store = store
        self._settings = settings
        self._on_line = on_line
        self._steps = {step.name: step for step in plan.steps}
        self._ledger = Ledger(store.records, run)
        self._memory = MemoryKills()
        self._selector = selectors.DefaultSelector()
        info = {**settings.info, "store": str(store.root), "run": run, "flow": plan.flow}
        info |= {"code_dir": str(settings.code_dir), "user_folder": plan.user_folder}
        around = Surroundings(
            code_dir=settings.code_dir,
            cache=settings.cache,
            host=settings.host,
            passed=settings.passed,
            info=info,
        )
        self._pool = Pool(plan, around, verify, self._selector)
        self._queue: deque[Assignment] = deque()
        self._attempts: dict[int, Forked] = {}
        self._waiting: dict[Template, deque[Forked]] = {}
        self._events: list[Event] = []
        self._numbers = itertools.count()
        self._warmed: set[str] = set()
        self._exposing = time.monotonic() + _EXPOSED_EVERY
        self._woken = False

    # -- the Backend protocol ----------------------------------------------------------------------------------

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Queues attempts; they start in this order as workers become free."""
        self._queue.extend(assignments)
        self._start_queued()

    def poll(self, timeout: float) -> list[Event]:
        """What happened, waiting up to ``timeout`` seconds for the first event.

        Raises ``AttemptHeld`` for an attempt that another launcher has begun, and the store's errors.
        """
        limit = time.monotonic() + timeout
        left = timeout
        self._woken = False
        while (
            not self._events and not self._woken and left >= 0
        ):  # what is known is told before lines that come after it
            self._turn(left)
            self._start_queued()
            left = limit - time.monotonic()
        events, self._events = self._events, []
        return events

    def cancel(self, task: int, attempt: int) -> None:
        """Begins to end an attempt with its process group; ``CancelConfirmed`` says that it has ended."""
        wanted = (task, attempt)
        for running in self._attempts.values():
            if running.identity != wanted:
                continue
            waiting = self._waiting.get(running.template, deque())
            if running not in waiting:
                running.cancel(time.monotonic())
                return
            waiting.remove(running)
            self._forget(running)
            break
        else:
            self._queue = deque(item for item in self._queue if (item.task, item.attempt) != wanted)
        self._events.append(CancelConfirmed(task, attempt))

    def close(self) -> None:
        """Ends all templates, and with grace whatever attempts still run; their outcomes stay unwritten."""
        self._queue.clear()
        self._waiting.clear()
        for attempt in self._attempts.values():
            for descriptor in attempt.descriptors():
                self._selector.unregister(descriptor)
            attempt.abandon()
        self._pool.close()
        for attempt in self._attempts.values():
            if attempt.template.killed:
                attempt.kill()
        self._attempts.clear()
        self._selector.close()

    def wake_by(self, descriptor: int) -> None:
        """Lets ``poll`` return early whenever there is something to read from ``descriptor``, and reads it."""
        self._selector.register(descriptor, selectors.EVENT_READ, descriptor)

    def prewarm(self, step: str) -> None:
        """Starts the template of ``step`` so that it warms up meanwhile; its attempts will tell what went wrong.

        Steps that run in containers have none.
        """
        if self._steps[step].image is not None:
            return
        with contextlib.suppress(FlowkilnError, ActivationError, OSError):
            self._template(step)

    # -- starting ----------------------------------------------------------------------------------------------

    def _start_queued(self) -> None:
        while self._queue and len(self._attempts) < self._plan.max_workers:
            self._start(self._queue.popleft())

    def _start(self, assignment: Assignment) -> None:
        step = self._steps[assignment.step]
        try:
            template = self._template(step.name)
        except FlowkilnError as error:
            failure = Failure(
                failure_class="environment",
                cause="mismatch",
                text=error.message,
                code=error.code,
                hint=error.hint,
            )
            self._seal(assignment, Outcome(status="failed", failure=failure))
            return
        except ActivationError as error:
            failure = Failure(failure_class="environment", cause="not-started", text=str(error))
            self._seal(assignment, Outcome(status="failed", failure=failure))
            return
        except OSError as error:
            text = f"{step.prefix.python} could not be started: {error}"
            failure = Failure(failure_class="environment", cause="not-started", text=text)
            self._seal(assignment, Outcome(status="failed", failure=failure))
            return
        grace, drain = self._settings.grace, self._settings.drain
        attempt = Forked(next(self._numbers), assignment, step, template, grace=grace, drain=drain)
        self._attempts[attempt.number] = attempt
        template.running += 1
        self._waiting[template].append(attempt)
        self._feed(template)

    def _template(self, step: str) -> Template:
        template = self._pool.of(self._steps[step])
        self._waiting.setdefault(template, deque())
        return template

    def _feed(self, template: Template) -> None:
        """Sends orders to a template that is ready, as many as fit its channel."""
        waiting = self._waiting[template]
        while waiting and template.ready is not None and template.unanswered < _UNANSWERED:
            self._send(waiting.popleft())

    def _send(self, attempt: Forked) -> None:
        """Records that the attempt begins, and orders it."""
        assignment, template = attempt.assignment, attempt.template
        before = self._ledger.begin(assignment)
        if before is not None:
            self._forget(attempt)
            self._events.append(Sealed(assignment.task, assignment.attempt, Verdict.of(before)))
            return
        self._events.append(Began(assignment.task, assignment.attempt))
        spool = template.work / f"{attempt.number}.json"
        pipes = attempt.open(spool, self._log_of(assignment))
        for descriptor in attempt.descriptors():
            self._selector.register(descriptor, selectors.EVENT_READ, attempt)
        order = {
            "id": attempt.number,
            "assignment": assignment.to_json(),
            "spool": str(spool),
            "timeout": attempt.step.timeout,
        }
        template.order(order, pipes)
        for descriptor in pipes:
            os.close(descriptor)
        self._warm_next(attempt.step)

    def _warm_next(self, step: StepPlan) -> None:
        """Starts the templates of the steps that follow while this one runs, where that takes no long proof."""
        if step.name not in self._warmed and self._plan.process_level == "stat":
            self._warmed.add(step.name)
            for target in step.targets:
                self.prewarm(target)

    def _log_of(self, assignment: Assignment) -> LogWriter:
        return LogWriter(Path(self._store.live_log(self._run, assignment.task, assignment.attempt)))

    # -- the loop ----------------------------------------------------------------------------------------------

    def _turn(self, timeout: float) -> None:
        """Waits once, up to ``timeout`` seconds, and handles all that is there to handle."""
        now = time.monotonic()
        due = min((attempt.due for attempt in self._attempts.values()), default=self._exposing)
        if self._attempts:
            due = min(due, self._exposing)
        for key, _ in self._selector.select(max(0.0, min(timeout, due - now))):
            if isinstance(key.data, Forked):
                if key.fd in key.data.descriptors():
                    self._read(key.data, key.fd)
            elif isinstance(key.data, int):
                os.read(key.fd, 4096)
                self._woken = True
            elif isinstance(key.data, tuple):
                template: Template = key.data[0]
                if template.listening and not template.read_output():
                    self._pool.output_ended(template)
            else:
                self._listen(key.data)
        now = time.monotonic()
        self._keep_deadlines(now)
        if now >= self._exposing:
            self._exposing = now + _EXPOSED_EVERY
            for attempt in self._attempts.values():
                attempt.expose_log(now - _EXPOSED_EVERY)

    def _read(self, attempt: Forked, descriptor: int) -> int:
        count = attempt.read(descriptor, self._on_line)
        if count == 0:
            self._selector.unregister(descriptor)
            if attempt.ended and not attempt.descriptors():
                self._finish(attempt)
        return count

    def _keep_deadlines(self, now: float) -> None:
        for attempt in [each for each in self._attempts.values() if each.due <= now]:
            if attempt.ended:
                self._cut_off(attempt)
                self._finish(attempt)
                continue
            number = attempt.signal_due(now)
            if number is not None:
                attempt.template.signal(attempt.number, number)
                if number == signal.SIGKILL:
                    attempt.template.end_if_stopped()

    def _cut_off(self, attempt: Forked) -> None:
        for descriptor in attempt.descriptors():
            self._selector.unregister(descriptor)
        attempt.cut_off(self._on_line)

    def _listen(self, template: Template) -> None:
        try:
            messages = template.channel.receive()
        except Closed:
            self._template_ended(template)
            return
        for message, _ in messages:
            if "ready" in message:
                template.ready = message
            else:
                self._told(message)
        self._feed(template)

    def _told(self, message: JSONObject) -> None:
        now = time.monotonic()
        if "started" in message:
            attempt = self._attempts[message["started"]]
            attempt.template.unanswered -= 1
            attempt.started(message["pid"])
            if message["began"]:
                attempt.begins(now)
        elif "began" in message:
            self._attempts[message["began"]].begins(now)
        elif "refused" in message:
            attempt = self._attempts[message["refused"]]
            attempt.template.unanswered -= 1
            text = f"the process could not be started: {message['text']}"
            failure = Failure(failure_class="infrastructure", cause="not-started", text=text)
            self._cut_off(attempt)
            self._finish(attempt, Outcome(status="failed", failure=failure))
        else:
            attempt = self._attempts[message["ended"]]
            attempt.usage = {name: message[name] for name in ("max_rss", "user_us", "system_us")}
            attempt.has_ended(now, message["status"])
            self._drain(attempt)

    def _drain(self, attempt: Forked) -> None:
        """Reads what an ended attempt has left in its pipes: mostly all, and then it is finished at once."""
        if not attempt.descriptors():
            self._finish(attempt)
            return
        for descriptor in attempt.descriptors():
            for _ in range(_PIPEFUL):
                if self._read(attempt, descriptor) <= 0:
                    break

    def _template_ended(self, template: Template) -> None:
        """The process that forks has died: so must its attempts, and those that waited for it fail."""
        code = self._pool.drop(template)
        if not template.running:
            template.remove()
        now = time.monotonic()
        for attempt in self._waiting.pop(template):
            if template.ready is None:
                self._finish(attempt, Outcome(status="failed", failure=template.failure_to_start(code)))
            else:
                self._forget(attempt)
                self._queue.append(attempt.assignment)
        for attempt in [each for each in self._attempts.values() if each.template is template]:
            if not attempt.ended:
                attempt.kill()
                attempt.has_ended(now, None)
                self._drain(attempt)

    # -- sealing -----------------------------------------------------------------------------------------------

    def _finish(self, attempt: Forked, outcome: Outcome | None = None) -> None:
        """Seals an attempt that has ended: ``outcome``, else what it came to. Raises the store's errors."""
        outcome = outcome or attempt.outcome(self._memory)
        attempt.remove_spool()
        require_sound_store(outcome, attempt.step.name)
        execution = {**self._ledger.execution(), "child": attempt.pid}
        self._forget(attempt)
        outcome = dataclasses.replace(
            outcome,
            logs=attempt.logs(self._store.blobs),
            environment=attempt.proof(self._plan.process_level),
            usage=attempt.usage,
            execution=execution,
        )
        self._seal(attempt.assignment, outcome)
        if attempt.reason == "cancelled":
            self._events.append(CancelConfirmed(*attempt.identity))

    def _seal(self, assignment: Assignment, outcome: Outcome) -> None:
        sealed = self._ledger.seal(assignment, outcome)
        self._events.append(Sealed(assignment.task, assignment.attempt, Verdict.of(sealed)))

    def _forget(self, attempt: Forked) -> None:
        del self._attempts[attempt.number]
        attempt.template.running -= 1
        if attempt.template.ended and not attempt.template.running:
            attempt.template.remove()
