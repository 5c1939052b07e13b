"""Watching a step's process inside its container: output, deadlines, end, and the outcome's seal."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base.errors import FlowkilnError
from flowkiln._base.json import compact
from flowkiln.executor.backend import Assignment
from flowkiln.executor.inside import FAILED, LEASE, SEALED, STORE, Leave
from flowkiln.executor.memory import MemoryKills
from flowkiln.executor.plan import StepPlan
from flowkiln.executor.supervisor import Attempt, require_sound_store
from flowkiln.store import keys
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogWriter

if TYPE_CHECKING:
    from typing import Any

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.inside import Child, Signals
    from flowkiln.executor.outcome import Outcome
    from flowkiln.executor.supervisor import Reason, Stream
    from flowkiln.store.logs import LogLine

_EXPOSED_EVERY = 2.0
"""Seconds between two moments at which the store shows the lines so far, as for processes."""
_PIPEFUL = 4
_LAST_WORDS = 1.0
"""Seconds that the container's engine gets to take the last lines; what it did not take stands in the record."""


class Guard:
    """Sees one child through to its outcome."""

    def __init__(self, task: JSONObject, signals: Signals) -> None:
        self._task = task
        self._signals = signals
        self._assignment = Assignment.from_json(task["assignment"])
        self._store = FolderStore(task["store"])
        step = StepPlan.from_json(task["step"])
        self._attempt = Attempt(0, self._assignment, step, grace=task["grace"], drain=task["drain"])
        self._kills = MemoryKills()
        self._echo = Echo()
        self._next_look = time.monotonic() + _EXPOSED_EVERY

    def watch(self, child: Child) -> int:
        """The exit code of this process, once the child has ended and its outcome is sealed. Raises ``Leave``."""
        attempt, where = self._attempt, self._assignment
        log = LogWriter(Path(self._store.live_log(where.run, where.task, where.attempt)))
        attempt.started(child.pid)
        attempt.connect(Path(self._task["spool"]), log, child.stdout, child.stderr)
        while not (attempt.ended and not attempt.descriptors()):
            self._turn(child)
        self._echo.flush(_LAST_WORDS)
        outcome = attempt.outcome(self._kills)
        try:
            require_sound_store(outcome, attempt.step.name)
        except FlowkilnError as error:
            raise Leave(STORE, error.message) from error  # the spool file stays: the launcher reads it
        attempt.remove_spool()
        outcome = dataclasses.replace(outcome, logs=attempt.logs(self._store.blobs), usage=attempt.usage)
        return SEALED if self.seal(outcome).ok else FAILED

    def seal(self, outcome: Outcome) -> Outcome:
        """The outcome as it now stands in the store. Raises ``Leave`` when the attempt had another one."""
        where, now = self._assignment, time.time_ns() // 1000
        outcome = dataclasses.replace(
            outcome,
            started=outcome.started or now,
            ended=outcome.ended or now,
            environment=self._environment(),
            execution=self._execution(),
        )
        data = compact(outcome.to_json())
        key = keys.outcome(where.run, where.task, where.attempt)
        try:
            if self._store.records.create(key, data) or self._store.records.read(key) == data:
                return outcome
        except FlowkilnError as error:
            raise Leave(STORE, f"the outcome could not be sealed: {error.message}") from error
        raise Leave(LEASE, "another outcome of this attempt was sealed first")

    # -- one turn ----------------------------------------------------------------------------------------------

    def _turn(self, child: Child) -> None:
        attempt, now = self._attempt, time.monotonic()
        if self._signals.asked is not None:
            reason: Reason = "cancelled" if self._signals.asked == "cancelled" else "interrupted"
            attempt.cancel(now, reason)
        poll = select.poll()
        listening = [self._signals.descriptor, *attempt.descriptors()]
        if child.channel.fileno() >= 0:
            listening.append(child.channel.fileno())
        for descriptor in listening:
            poll.register(descriptor, select.POLLIN)
        for descriptor in self._echo.pending():
            poll.register(descriptor, select.POLLOUT)
        due = min(attempt.due, self._next_look)
        for descriptor, _ in poll.poll(max(0.0, due - now) * 1000 + 1):
            self._hear(child, descriptor)
        self._keep_time(child)

    def _hear(self, child: Child, descriptor: int) -> None:
        attempt = self._attempt
        if descriptor == self._signals.descriptor:
            os.read(descriptor, 4096)
            self._bury(child)
        elif descriptor in attempt.descriptors():
            attempt.read(descriptor, self._echo.line)
        elif descriptor in (1, 2):
            self._echo.flush()
        else:
            self._hear_beginning(child)

    def _hear_beginning(self, child: Child) -> None:
        """Takes the one thing that the child says of itself: that it begins."""
        if child.channel.fileno() < 0:
            return
        try:
            said = child.channel.recv(4096, socket.MSG_DONTWAIT)
        except OSError:
            said = b""
        if said:
            self._attempt.begins(time.monotonic())
        child.channel.close()

    def _keep_time(self, child: Child) -> None:
        attempt, now = self._attempt, time.monotonic()
        if now >= attempt.due:
            if attempt.ended:
                attempt.cut_off(self._echo.line)
                return
            number = attempt.signal_due(now)
            if number is not None:
                child.signal(number)
        if now >= self._next_look:
            self._next_look = now + _EXPOSED_EVERY
            attempt.expose_log(now - _EXPOSED_EVERY)

    def _bury(self, child: Child) -> None:
        """Takes the status of a child that has ended, and what it left in its pipes: mostly all."""
        attempt = self._attempt
        ended = None if attempt.ended else child.wait(doomed=attempt.reason is not None)
        if ended is None:
            return
        status, usage = ended
        self._hear_beginning(child)
        attempt.usage = _usage(usage)
        attempt.has_ended(time.monotonic(), status)
        for descriptor in attempt.descriptors():
            for _ in range(_PIPEFUL):
                if attempt.read(descriptor, self._echo.line) <= 0:
                    break

    # -- what the outcome tells --------------------------------------------------------------------------------

    def _environment(self) -> JSONObject:
        document: JSONObject = {**self._task["proof"]["record"]}
        document["python"] = ".".join(map(str, sys.version_info[:3]))
        return document

    def _execution(self) -> JSONObject:
        where = self._assignment
        begun = self._store.records.read(keys.begin(where.run, where.task, where.attempt))
        execution: JSONObject = json.loads(begun)["execution"] if begun else {}
        return {**execution, "child": self._attempt.pid}


class Echo:
    """Passes lines on to this process's own output, for whoever follows the container. Never waits for the engine.

    What a stuck engine does not take is dropped from there on: the record has every line.
    """

    _MOST = 1 << 20

    def __init__(self) -> None:
        self._rest = {1: bytearray(), 2: bytearray()}
        self._given_up: set[int] = set()
        for descriptor in self._rest:
            os.set_blocking(descriptor, False)

    def line(self, task: int, attempt: int, line: LogLine) -> None:  # noqa: ARG002  as listeners of lines are called
        """Passes one line on."""
        descriptor = _NUMBERS[line.stream]
        rest = self._rest[descriptor]
        if descriptor in self._given_up:
            return
        if len(rest) > self._MOST:
            self._given_up.add(descriptor)
            return
        rest += line.text.encode(errors="backslashreplace") + b"\n"
        self._write(descriptor)

    def pending(self) -> list[int]:
        """The descriptors that have not taken everything yet."""
        return [descriptor for descriptor, rest in self._rest.items() if rest]

    def flush(self, patience: float = 0.0) -> None:
        """Writes what the descriptors take, waiting up to ``patience`` seconds for all of it."""
        limit = time.monotonic() + patience
        while True:
            for descriptor in self.pending():
                self._write(descriptor)
            left = limit - time.monotonic()
            if not self.pending() or left <= 0:
                return
            select.select([], self.pending(), [], left)

    def _write(self, descriptor: int) -> None:
        rest = self._rest[descriptor]
        try:
            while rest:
                del rest[: os.write(descriptor, rest)]
        except BlockingIOError:
            return
        except OSError:  # nobody is there any more
            self._given_up.add(descriptor)
            rest.clear()


_NUMBERS: dict[Stream, int] = {"stdout": 1, "stderr": 2}


def _usage(usage: Any) -> JSONObject:
    return {
        "max_rss": usage.ru_maxrss * 1024,
        "user_us": int(usage.ru_utime * 1e6),
        "system_us": int(usage.ru_stime * 1e6),
    }
