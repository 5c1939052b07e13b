"""The lines of a container while it runs, and from its record those that were not seen by then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from flowkiln._base.errors import FlowkilnError
from flowkiln.store import logs
from flowkiln.store.logs import LogLine

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.engines import Engine, Output, Stream
    from flowkiln.executor.mailbox import Mailbox
    from flowkiln.store.interfaces import Blobs

_AGAIN = 1.0
"""Seconds before a stream that broke off is asked for anew."""
_LONGEST = 1 << 20


class Tail:
    """Follows one container; every line is told once, live or by ``complete``.

    The supervisor writes each recorded line to the container's output, so that the n-th line of a stream is the
    n-th of its record. Trouble with the engine's stream only makes lines come later.
    """

    def __init__(self, engine: Engine, container: str, task: int, attempt: int, mailbox: Mailbox) -> None:
        self._engine = engine
        self._container = container
        self._task = task
        self._attempt = attempt
        self._mailbox = mailbox
        self._shown = {"stdout": 0, "stderr": 0}
        self._stream: Stream[Output] | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def following(self) -> bool:
        """Whether lines are read as they come."""
        return self._thread is not None and self._thread.is_alive()

    def follow(self) -> None:
        """Begins to tell lines as they come."""
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Ends following, after the engine has had ``patience`` seconds to come to the end of its stream."""
        if self._thread is None:
            return
        if patience:
            self._thread.join(patience)
        self._over.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if self._thread is not threading.current_thread():
            self._thread.join(patience + _AGAIN)

    def complete(self, document: JSONObject, blobs: Blobs) -> None:
        """Tells the lines of the record that were not told yet."""
        seen = {"stdout": 0, "stderr": 0}
        try:
            for line in logs.read(document, blobs):
                seen[line.stream] += 1
                if seen[line.stream] > self._shown[line.stream]:
                    self._mailbox.line(self._task, self._attempt, line)
        except FlowkilnError:
            return  # a record without its lines is told of by those who read it

    # -- the thread --------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._over.is_set():
            try:
                self._stream = self._engine.logs(self._container, follow=True)
                if not self._over.is_set():
                    self._read(self._stream)
            except FlowkilnError as error:
                if not error.retryable or self._over.wait(_AGAIN):
                    return
            else:
                return
            finally:
                stream, self._stream = self._stream, None
                if stream is not None:
                    stream.close()

    def _read(self, stream: Stream[Output]) -> None:
        passed = {"stdout": 0, "stderr": 0}  # a stream that broke off is read again from its start
        rests = {"stdout": b"", "stderr": b""}
        for name, data in stream:
            *whole, rests[name] = (rests[name] + data).split(b"\n")
            at_us = time.time_ns() // 1000
            for line in whole:
                passed[name] += 1
                if passed[name] > self._shown[name]:
                    self._shown[name] += 1
                    text = line.decode(errors="replace")
                    self._mailbox.line(self._task, self._attempt, LogLine(at_us, name, text))
