"""Learning that containers of a run have ended: from the engine's events, and by looking in case one was missed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flowkiln._base.engineerrors import EngineError
from flowkiln.executor.container import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.engines import Engine, Stream

    Key = tuple[int, int]

GONE = ("exited", "dead", "removing")
_AGAIN = 1.0
"""Seconds before events are asked for anew after their stream broke off."""


def key_of(labels: Mapping[str, str]) -> Key | None:
    """The task and attempt that a container's labels name."""
    task, attempt = labels.get(LABEL + "task"), labels.get(LABEL + "attempt")
    return (int(task), int(attempt)) if task is not None and attempt is not None else None


class Lookout:
    """Calls ``ended`` with attempt and container whenever a container with ``labels`` has ended: maybe twice.

    ``connected`` is called each time the engine begins to tell events: what happened before is not among them.
    """

    def __init__(
        self,
        engine: Engine,
        labels: Mapping[str, str | None],
        ended: Callable[[Key, str], None],
        connected: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._labels = labels
        self._ended = ended
        self._connected = connected
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._stream: Stream[JSONObject] | None = None

    def listen(self) -> None:
        """Begins to hear events, once."""
        if self._thread is None and not self._closed.is_set():
            self._thread = threading.Thread(target=self._loop, daemon=True)
            self._thread.start()

    def look(self, running: Mapping[Key, str]) -> None:
        """Compares containers that are thought to run with what the engine has."""
        try:
            listed = self._engine.containers(labels=self._labels)
        except EngineError:
            return  # unknown is not ended
        states = {str(one["Id"]): one.get("State") for one in listed}
        for key, container in running.items():
            if states.get(container) in (None, *GONE):
                self._ended(key, container)

    def close(self, patience: float) -> None:
        """Ends hearing, within ``patience`` seconds."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if self._thread is not None:
            self._thread.join(patience)

    def _loop(self) -> None:
        since: float | None = None
        while not self._closed.is_set():
            try:
                self._stream = self._engine.events(labels=self._labels, since=since)
                if self._closed.is_set():
                    self._stream.close()
                    return
                self._connected()
                for event in self._stream:
                    since = event.get("timeNano", 0) / 1e9 or since
                    self._heard(event)
            except EngineError:
                pass  # the engine restarts, or is overloaded
            self._closed.wait(_AGAIN)

    def _heard(self, event: JSONObject) -> None:
        actor = event.get("Actor") or {}
        key = key_of(actor.get("Attributes") or {})
        if key is not None and event.get("Action", event.get("status")) in ("die", "destroy"):
            self._ended(key, str(actor.get("ID")))
