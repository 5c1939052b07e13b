"""A scripted container engine, for the faults that a real one does not play on demand.

It answers ``/version`` and ``/info`` by itself; everything else as told by :meth:`FakeEngine.on`. Paths are those
without the version in front.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

VERSION: dict[str, Any] = {
    "Version": "26.1.5",
    "ApiVersion": "1.45",
    "MinAPIVersion": "1.24",
    "Os": "linux",
    "Arch": "amd64",
    "Components": [{"Name": "Engine"}],
}
INFO: dict[str, Any] = {"DriverStatus": [["Backing Filesystem", "extfs"]], "SecurityOptions": ["name=seccomp"]}


class Hold:
    """A piece of an answer: nothing is said until ``release``, or until the client hangs up."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Lets the answer go on."""
        self._released.set()

    def wait(self, connection: socket.socket) -> None:
        """Returns when released, or the client is gone."""
        self.reached.set()
        connection.settimeout(0.01)
        while not self._released.is_set():
            try:
                if not connection.recv(1, 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_PEEK):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        connection.settimeout(None)


class Cut:
    """A piece of an answer: the connection ends here."""


Piece = bytes | Hold | Cut


@dataclass(frozen=True)
class Reply:
    """An answer. Several pieces make it chunked.

    ``read`` tells whether the request's body is read first; without it the answer is the connection's last.
    """

    status: int = 200
    pieces: Sequence[Piece] = (b"",)
    read: bool = True
    before: Hold | None = None
    """What is waited for before anything is answered."""


def message(status: int, text: str) -> Reply:
    """How an engine says that something is wrong."""
    return Reply(status, (json.dumps({"message": text}).encode(),))


def document(value: object, status: int = 200) -> Reply:
    """An answer of JSON."""
    return Reply(status, (json.dumps(value).encode(),))


def stream(*messages: object) -> Reply:
    """JSON messages, each a piece of its own, as of a pull or a load."""
    return Reply(200, [json.dumps(one).encode() + b"\r\n" for one in messages])


def output(name: str, data: bytes) -> bytes:
    """A piece of a container's output as it stands in a stream of logs."""
    return bytes([2 if name == "stderr" else 1, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@dataclass
class Request:
    """What the engine was asked."""

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class _Script:
    version: dict[str, Any]
    info: dict[str, Any]
    answers: list[tuple[str, re.Pattern[str], list[Reply]]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    tls: ssl.SSLContext | None = None


class FakeEngine:
    """An engine on a unix socket at ``path``, or without one on a port of 127.0.0.1, with ``tls`` if given."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        version: dict[str, Any] | None = None,
        info: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.path = path
        self._script = _Script(version or VERSION, info or INFO, tls=tls)
        self._server: _PortServer | _UnixServer
        if path is None:
            self._server = _PortServer(("127.0.0.1", 0), _Handler)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._server = _UnixServer(str(path), _Handler)
        self._server.script = self._script
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """What goes into ``DOCKER_HOST``."""
        if self.path is not None:
            return f"unix://{self.path}"
        assert isinstance(self._server, _PortServer)
        return f"tcp://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[Request]:
        """What was asked, in order, without ``/version``."""
        return [one for one in self._script.requests if one.path != "/version"]

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return len(self._script.connections)

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Answers requests whose path matches the pattern: with each reply once, with the last one ever after."""
        self._script.answers.insert(0, (method, re.compile(path), list(replies)))

    def hang_up(self) -> None:
        """Ends every connection, as an engine does that is started again."""
        for one in self._script.connections:
            _shut(one)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self.hang_up()
        self._server.server_close()


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's rights, where the tests run as root: what others' files are to a user."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def _shut(connection: socket.socket) -> None:
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    script: _Script
    daemon_threads = True
    request_queue_size = 64


class _PortServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    script: _Script
    daemon_threads = True
    allow_reuse_address = True

    def get_request(self) -> tuple[socket.socket, object]:
        """The next connection; one that fails at TLS is dropped."""
        plain, address = super().get_request()
        if self.script.tls is None:
            return plain, address
        try:
            return self.script.tls.wrap_socket(plain, server_side=True), address
        except OSError:
            plain.close()
            raise


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        self.script: _Script = self.server.script
        self.script.connections.append(self.request)
        super().setup()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client hung up, or the test is over
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""

    def address_string(self) -> str:
        return "client"

    def _serve(self) -> None:
        target, _, query = self.path.partition("?")
        found = re.fullmatch(r"(?:/v([\d.]+))?(/.*)", target)
        assert found is not None
        request = Request(self.command, found[2], query, found[1] or "", dict(self.headers))
        self.script.requests.append(request)
        reply = self._reply(request)
        if reply.read:
            request.body = self._body()
        if reply.before is not None:
            reply.before.wait(self.connection)
        self._send(reply)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _reply(self, request: Request) -> Reply:
        for method, pattern, replies in self.script.answers:
            if method == request.method and pattern.fullmatch(request.path):
                return replies.pop(0) if len(replies) > 1 else replies[0]
        if request.path in {"/version", "/info"}:
            return document(self.script.version if request.path == "/version" else self.script.info)
        return message(404, f"page not found: {request.path}")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        whole = len(reply.pieces) == 1 and isinstance(reply.pieces[0], bytes)
        self.send_response(reply.status)
        if not reply.read:
            self.send_header("Connection", "close")
            self.close_connection = True
        if whole and isinstance(reply.pieces[0], bytes):
            self.send_header("Content-Length", str(len(reply.pieces[0])))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in reply.pieces:
            if isinstance(piece, Hold):
                piece.wait(self.connection)
            elif isinstance(piece, Cut):
                self.close_connection = True
                _shut(self.connection)
                return
            elif whole:
                self.wfile.write(piece)
            elif piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if not whole:
            self.wfile.write(b"0\r\n\r\n")
