"""A real container engine behind a port, some of whose calls fail as told."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_BLOCK = 1 << 16


class EngineProxy:
    """Leads to the engine on the unix socket ``path``, one request a connection.

    ``failing`` maps patterns of ``METHOD /path`` to how often such calls fail; the others, and those that follow,
    go through. ``failed`` lists the calls that did.
    """

    def __init__(self, path: str, failing: dict[str, int]) -> None:
        self.path = path
        self.failed: list[str] = []
        self._failing = {re.compile(pattern): times for pattern, times in failing.items()}
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """What goes into ``DOCKER_HOST``."""
        return f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def fails(self, call: str) -> bool:
        """Whether this call is one that fails."""
        with self._lock:
            for pattern, times in self._failing.items():
                if times and pattern.fullmatch(call):
                    self._failing[pattern] = times - 1
                    self.failed.append(call)
                    return True
        return False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: EngineProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Client)


class _Client(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        client: socket.socket = self.request
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(_BLOCK)
            if not data:
                return
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        first, *headers = head.split(b"\r\n")
        method, target, _ = first.decode().split(" ")
        path = re.sub(r"^/v[\d.]+", "", target.partition("?")[0])
        if self.server.proxy.fails(f"{method} {path}"):
            body = json.dumps({"message": "the engine fails, as it was told"}).encode()
            answer = b"HTTP/1.1 500 Told\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            client.sendall(answer + body)
            return
        kept = [one for one in headers if not one.lower().startswith(b"connection:")]
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.server.proxy.path)
            engine.sendall(b"\r\n".join([first, *kept, b"Connection: close", b"", b""]) + rest)
            back = threading.Thread(target=_pipe, args=(engine, client), daemon=True)
            back.start()
            _pipe(client, engine)
            back.join()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    """Everything that ``source`` says goes to ``target``, until either has ended."""
    try:
        while data := source.recv(_BLOCK):
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue
