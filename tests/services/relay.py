"""A network that breaks: leads to a local port, and cuts connections after some bytes towards it."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Relay:
    """Relays to ``port`` of 127.0.0.1. Each number of ``cuts`` ends the first connection that has sent so much."""

    def __init__(self, port: int, *, cuts: list[int]) -> None:
        self.target = port
        self.cuts = list(cuts)
        self.lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="relay", daemon=True)

    @property
    def host(self) -> str:
        """Where it listens, as ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def allowed(self, sent: int, more: int) -> int | None:
        """How many of ``more`` bytes go through before the cut; None when there is none."""
        with self.lock:
            if not self.cuts or sent + more < self.cuts[0]:
                return None
            return self.cuts.pop(0) - sent


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        super().__init__(("127.0.0.1", 0), _Client)


class _Client(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        relay, here = self.server.relay, self.request
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", relay.target)) as there:
            sent = 0
            while True:
                for source in select.select([here, there], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is there:
                        here.sendall(data)
                        continue
                    allowed = relay.allowed(sent, len(data))
                    there.sendall(data[:allowed])
                    if allowed is not None:
                        return
                    sent += len(data)
