"""One running attempt as its supervisor sees it: output, deadlines, end, and the outcome that follows."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor.classify import Flags, classify, signal_name
from flowkiln.executor.lines import Lines
from flowkiln.executor.memory import REMEDY
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.store.errors import BlobDamaged, BlobMissing, RecordDamaged, StoreError
from flowkiln.store.logs import LogLine, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.memory import MemoryKills
    from flowkiln.executor.plan import StepPlan
    from flowkiln.store.interfaces import Blobs

    OnLine = Callable[[int, int, LogLine], None]

_DAMAGE: dict[str | None, type[StoreError]] = {
    kind.code: kind for kind in (RecordDamaged, BlobMissing, BlobDamaged)
}

Reason = Literal["timeout", "cancelled", "interrupted", "lost"]
Stream = Literal["stdout", "stderr"]

NOTHING = -1
_READ = 64 * 1024
_NEVER = math.inf


class Attempt:
    """An attempt between its submission and its outcome. Times are seconds of ``time.monotonic``.

    ``due`` is the next time at which something must happen; ``next_signal`` says what.
    """

    def __init__(
        self,
        number: int,
        assignment: Assignment,
        step: StepPlan,
        *,
        grace: float,
        drain: float,
    ) -> None:
        self.number = number
        self.assignment = assignment
        self.step = step
        self.pid: int | None = None
        self.due = _NEVER
        self.reason: Reason | None = None
        self.status: int | None = None
        self.ended = False
        self.incomplete = False
        self.began = False
        self.usage: JSONObject = {}
        self.log = LogWriter(Path())
        self._log_trouble = ""
        self._spool: Path | None = None
        self._grace = grace
        self._drain = drain
        self._since = _NEVER
        self._signals: list[int] = []
        self._streams: dict[int, tuple[Stream, Lines]] = {}

    @property
    def identity(self) -> tuple[int, int]:
        """The task and the attempt's number within it."""
        return self.assignment.task, self.assignment.attempt

    # -- output ------------------------------------------------------------------------------------------------

    def open(self, spool: Path, log: LogWriter) -> tuple[int, int]:
        """The write ends of new pipes for standard output and error; the caller closes them."""
        out, error = os.pipe(), os.pipe()
        self.connect(spool, log, out[0], error[0])
        return out[1], error[1]

    def connect(self, spool: Path, log: LogWriter, stdout: int, stderr: int) -> None:
        """Takes the read ends of the process's output, its log, and where it will leave its result."""
        self._spool, self.log = spool, log
        streams: tuple[tuple[int, Stream], ...] = ((stdout, "stdout"), (stderr, "stderr"))
        for reading, stream in streams:
            os.set_blocking(reading, False)
            self._streams[reading] = (stream, Lines())

    def descriptors(self) -> list[int]:
        """The read ends that are open."""
        return list(self._streams)

    def read(self, descriptor: int, on_line: OnLine) -> int:
        """How many bytes were there to read, up to 64 KiB; ``NOTHING`` for none now.

        0 says that there will be no more: the descriptor is closed then.
        """
        stream, lines = self._streams[descriptor]
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return NOTHING
        now = time.time()
        texts = lines.feed(data, now) if data else lines.finish()
        self._record(stream, texts, int(now * 1e6), on_line)
        if not data:
            del self._streams[descriptor]
            os.close(descriptor)
        return len(data)

    def cut_off(self, on_line: OnLine) -> None:
        """Stops reading although somebody still holds the other end: the log is incomplete."""
        self.incomplete = bool(self._streams)
        for descriptor, (stream, lines) in self._streams.items():
            self._record(stream, lines.finish(), time.time_ns() // 1000, on_line)
            os.close(descriptor)
        self._streams.clear()

    def expose_log(self, before: float) -> None:
        """Lets others read the lines so far if the attempt started ``before`` that time."""
        if self._since <= before and not self._log_trouble:
            with self._noting_log_trouble():
                self.log.expose()

    def logs(self, blobs: Blobs) -> JSONObject:
        """The document of the attempt's log; its spill file is gone afterwards."""
        if not self._log_trouble:
            with self._noting_log_trouble():
                return self.log.finish(blobs, incomplete=self.incomplete)
        instead = LogWriter(Path())
        text = f"flowkiln could not keep the log of this attempt: {self._log_trouble}"
        instead.append(LogLine(time.time_ns() // 1000, "stderr", text))
        return instead.finish(blobs, incomplete=True)

    @contextmanager
    def _noting_log_trouble(self) -> Iterator[None]:
        """Lets an attempt go on without its log: trouble with logs never fails a task."""
        try:
            yield
        except (OSError, FlowkilnError) as error:
            self._log_trouble = str(error)
            with suppress(OSError):
                self.log.discard()

    def remove_spool(self) -> None:
        """Removes what the process left for its supervisor."""
        if self._spool is not None:
            self._spool.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Frees what the attempt holds here, without an outcome."""
        for descriptor in self._streams:
            os.close(descriptor)
        self._streams.clear()
        with suppress(OSError):
            self.log.discard()

    def _record(self, stream: Stream, texts: list[str], at_us: int, on_line: OnLine) -> None:
        for text in texts:
            line = LogLine(at_us, stream, text)
            on_line(self.assignment.task, self.assignment.attempt, line)
            if not self._log_trouble:
                with self._noting_log_trouble():
                    self.log.append(line)

    # -- deadlines ---------------------------------------------------------------------------------------------

    def started(self, pid: int) -> None:
        """The process is there; the step's time does not run yet."""
        self.pid = pid

    def begins(self, now: float) -> None:
        """The step's time runs. Its own alarm comes first; signals follow if that did not end it."""
        self.began = True
        self._since = now
        if self.reason is None and self.step.timeout:
            self.due = now + self.step.timeout + self._grace
            self._signals = [signal.SIGTERM, signal.SIGKILL]

    def cancel(self, now: float, reason: Reason = "cancelled") -> None:
        """Lets the attempt be ended from now on: SIGTERM at once, SIGKILL after the grace time."""
        if self.reason is None and not self.ended:
            self.reason = reason
            self.due = now
            self._signals = [signal.SIGTERM, signal.SIGKILL]

    def signal_due(self, now: float) -> int | None:
        """The signal to send now to the process group, if any; the next one waits for the grace time.

        The last one is repeated: the template, which delivers signals, may be stopped.
        """
        if self.ended or now < self.due or not self._signals:
            return None
        if self.reason is None:
            self.reason = "timeout"
        number = self._signals.pop(0)
        self._signals = self._signals or [number]
        self.due = now + self._grace
        return number

    def kill(self) -> None:
        """Kills the process group of an attempt whose template has gone and so cannot."""
        if self.pid is not None and not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def has_ended(self, now: float, status: int | None) -> None:
        """The process is gone; ``status`` is as waitpid gives it, None when nobody could wait for it."""
        self.ended = True
        self.status = status
        self.due = now + self._drain
        if status is None and self.reason is None:
            self.reason = "lost"

    # -- the outcome -------------------------------------------------------------------------------------------

    def outcome(self, kills: MemoryKills) -> Outcome:
        """What the attempt came to; ``kills`` knows whether the kernel ended something for memory."""
        result = self._result()
        killed = self.status is None or os.WIFSIGNALED(self.status)
        ours = self.reason in {"timeout", "cancelled", "interrupted"}
        if result is not None and not (ours and (killed or not result.ok)):
            return result
        return Outcome(status="failed", failure=self._failure(kills))

    def _failure(self, kills: MemoryKills) -> Failure:
        if self.status is None:
            if self.reason == "cancelled":
                return Failure(failure_class="cancelled", cause="cancelled", text="cancelled")
            if self.reason == "timeout":
                return Failure(failure_class="timeout", cause="timeout", text=self._timeout_text())
            text = "the process that this attempt was forked from has ended, and the attempt with it"
            return Failure(failure_class="infrastructure", cause="lost", text=text)
        unwritten = self._unwritten() if self.reason is None else None
        if unwritten is not None:
            return unwritten
        killed = os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL
        memory_text = kills.explain(self.usage.get("max_rss", 0)) if killed and self.reason is None else None
        flags = Flags(
            began=self.began,
            cancelled=self.reason == "cancelled",
            timed_out=self.reason == "timeout",
            interrupted=self.reason == "interrupted",
            out_of_memory=memory_text is not None,
        )
        ending = classify(self.status, flags)
        text = memory_text or ending.text
        if self.reason == "timeout":
            text = self._timeout_text()
        return Failure(
            failure_class=ending.failure_class,
            cause=ending.cause,
            text=text,
            exit_code=ending.exit_code,
            signal=ending.signal,
            hint=REMEDY if memory_text is not None else None,
        )

    def _unwritten(self) -> Failure | None:
        """The failure of a process that finished and could not write its outcome; see ``child``."""
        if self._spool is None or not self._spool.is_symlink():
            return None
        folder = self._spool.parent
        text = f"the outcome of the step could not be written to {folder}: {self._spool.readlink()}"
        hint = f"Make room in {folder.parent}, or set TMPDIR to another folder."
        return Failure(failure_class="infrastructure", cause="lost", text=text, hint=hint)

    def _timeout_text(self) -> str:
        last = signal_name(os.WTERMSIG(self.status)) if self.status and os.WIFSIGNALED(self.status) else "a signal"
        return f"the step ran longer than its time limit of {self.step.timeout:g} seconds and was ended by {last}"

    def _result(self) -> Outcome | None:
        """What the process itself reported, None when it did not come to that."""
        if self._spool is None:
            return None
        try:
            document = json.loads(self._spool.read_bytes())
        except (OSError, ValueError):
            return None
        return Outcome.from_json(document)


def require_sound_store(outcome: Outcome, step: str) -> None:
    """Raises the store's error where an attempt met damage outside of the user's code: none would fare better."""
    failure = outcome.failure
    if failure is not None and failure.failure_class == "infrastructure" and failure.code in _DAMAGE:
        raise _DAMAGE[failure.code](failure.text, step=step, hint=failure.hint)
