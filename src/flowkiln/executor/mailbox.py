"""What threads hand to the one that polls: events, lines, errors, in order; and the threads that do the work."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.executor.vocabulary import Event
    from flowkiln.store.logs import LogLine

    OnLine = Callable[[int, int, LogLine], None]
    Item = Event | tuple[int, int, LogLine] | BaseException

_MOST_LINES = 4096
"""Lines that wait to be shown; whoever reads more of them from a container waits meanwhile."""


class Mailbox:
    """Handed over in order. ``put`` may be called by any thread, ``take`` by one."""

    def __init__(self) -> None:
        self._items: deque[tuple[str, Any]] = deque()
        self._changed = threading.Condition()
        self._lines = 0
        self._closed = False
        self._bell: int | None = None

    def ring(self, descriptor: int | None) -> None:
        """Has a byte written to ``descriptor``, which must not block, whenever something comes in; None ends it."""
        self._bell = descriptor

    def put(self, event: Event) -> None:
        """Hands over an event."""
        self._add("event", event)

    def fail(self, error: BaseException) -> None:
        """Lets ``take`` raise ``error``."""
        self._add("error", error)

    def line(self, task: int, attempt: int, line: LogLine) -> None:
        """Hands over a line; waits while too many are there."""
        with self._changed:
            while self._lines >= _MOST_LINES and not self._closed:
                self._changed.wait()
            self._lines += 1
        self._add("line", (task, attempt, line))

    def close(self) -> None:
        """Lets nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, timeout: float, on_line: OnLine) -> list[Event]:
        """The events that come next, waiting up to ``timeout`` seconds; lines before them go to ``on_line``."""
        limit = time.monotonic() + timeout
        events: list[Event] = []
        while True:
            with self._changed:
                while not self._items:
                    left = limit - time.monotonic()
                    if events or left <= 0:
                        return events
                    self._changed.wait(left)
                kind, item = self._items[0]
                if kind == "line" and events:
                    return events  # a line that comes after them is told after them
                self._items.popleft()
                if kind == "line":
                    self._lines -= 1
                    self._changed.notify_all()
            if kind == "line":
                on_line(*item)
            elif kind == "error":
                raise item
            else:
                events.append(item)

    def _add(self, kind: str, item: object) -> None:
        with self._changed:
            self._items.append((kind, item))
            self._changed.notify_all()
        bell = self._bell
        if bell is not None:
            try:
                os.write(bell, b"\0")
            except OSError:  # it rings already, or nobody listens any more
                return


class Workers:
    """A few threads that do what they are given, in order of arrival; started when first needed.

    ``failed`` is told what escapes from a piece of work.
    """

    def __init__(self, most: int, failed: Callable[[BaseException], None]) -> None:
        self._most = most
        self._failed = failed
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def do(self, work: Callable[[], None]) -> None:
        """Has ``work`` done by a thread."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._loop, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._work.put(work)

    def close(self, patience: float) -> None:
        """Waits up to ``patience`` seconds until all work is done, and ends the threads."""
        limit = time.monotonic() + patience
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join(max(0.0, limit - time.monotonic()))
        self._threads.clear()

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  told where it can be raised
                self._failed(error)
            with self._lock:
                self._idle += 1
