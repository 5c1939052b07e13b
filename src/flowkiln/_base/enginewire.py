"""HTTP to a container engine: over a unix socket, TCP, TLS or ssh, on connections that are kept for the next call.

A time limit holds for connecting and for the first byte of an answer, never for what follows: a container may be
silent for hours. That the other machine died is learnt from TCP's own keep-alive.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import select
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from flowkiln._base.engineerrors import EngineDenied, EngineNotFound, EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from flowkiln._base.endpoints import TLS, Endpoint

BLOCK = 1 << 16
_KEPT = 8
"""Idle connections that are kept."""
_REPEATABLE = ("GET", "HEAD", "DELETE", "PUT")
_BROKEN = (http.client.HTTPException, OSError, ValueError)
_Item = TypeVar("_Item")
Writer = Callable[[Callable[[bytes], object]], None]
"""Gives its bytes to the function that it is called with, as they come."""
Body = bytes | Iterable[bytes] | Writer


class Connection(http.client.HTTPConnection):
    """One connection to the engine; ``used`` says that it has carried an answer."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        parts = urlsplit(endpoint.url)
        super().__init__(
            parts.hostname or "docker", parts.port if endpoint.scheme == "tcp" else None, timeout=timeout
        )
        self.endpoint = endpoint
        self.used = False
        self._program: _Program | None = None

    def connect(self) -> None:
        """Opens the socket. Raises ``OSError``."""
        assert self.timeout is not None
        if self.endpoint.scheme == "ssh":
            self._program = _Program(self.endpoint.url)
            self.sock = self._program.socket
            self.sock.settimeout(self.timeout)
        else:
            self.sock = _opened(self.endpoint, self.timeout)

    def push(self, method: str, target: str, body: Writer, headers: Mapping[str, str]) -> None:
        """Sends a request whose body is what ``body`` writes, chunk by chunk."""
        self.putrequest(method, target)
        for name, value in headers.items():
            self.putheader(name, value)
        self.endheaders()

        def sink(data: bytes) -> None:
            if data:
                self.send(b"%x\r\n" % len(data))
                self.send(data)
                self.send(b"\r\n")

        body(sink)
        self.send(b"0\r\n\r\n")

    def limit(self, seconds: float | None) -> None:
        """Bounds each wait for the socket from now on."""
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def stale(self) -> bool:
        """Whether the engine has ended this idle connection."""
        if self.sock is None:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def said(self) -> str:
        """What ssh wrote to its error output; empty without ssh."""
        return self._program.said() if self._program else ""

    def end(self) -> None:
        """Ends the connection and the ssh behind it, which ``close`` leaves: http.client calls that one as well."""
        self.close()
        if self._program is not None:
            self._program.close()
            self._program = None


def _opened(endpoint: Endpoint, timeout: float) -> socket.socket:
    if endpoint.scheme == "unix":
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            plain.settimeout(timeout)
            plain.connect(endpoint.path)
        except BaseException:
            plain.close()
            raise
        return plain
    parts = urlsplit(endpoint.url)
    plain = socket.create_connection((parts.hostname or "", parts.port or 0), timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # macOS lacks the first in older versions
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if endpoint.tls is None:
        return plain
    try:
        return _context(endpoint.tls).wrap_socket(plain, server_hostname=parts.hostname)
    except BaseException:
        plain.close()
        raise


def _context(tls: TLS) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


class _Program:
    """``ssh HOST docker system dial-stdio``: the engine's socket on another machine, as a socket here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        command = ["ssh", "-o", "ConnectTimeout=30", "-T"]
        command += ["-l", parts.username] if parts.username else []
        command += ["-p", str(parts.port)] if parts.port else []
        command += ["--", parts.hostname or "", "docker"]
        command += ["--host", f"unix://{parts.path}"] if parts.path else []
        command += ["system", "dial-stdio"]
        self.socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the program
        try:
            # a session of its own: Ctrl-C must not cut the connection over which containers are then stopped
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._errors, start_new_session=True
            )
        except BaseException:
            self.socket.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    def said(self) -> str:
        """The end of what it wrote to its error output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-500:]

    def close(self) -> None:
        """Ends the program."""
        self.socket.close()
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class Answer:
    """What the engine answered. Read it to the end, or close it: an answer that was read keeps its connection."""

    def __init__(self, wire: Wire, connection: Connection, response: http.client.HTTPResponse) -> None:
        self._wire = wire
        self._connection = connection
        self._response = response
        self._socket = connection.sock
        self._cut = False
        self.status = response.status

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self._response.headers.get(name) or ""

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; :meth:`cut` ends it early. Raises ``EngineUnreachable`` when it broke off."""
        whole = False
        left = self._response.length  # None where the answer comes in chunks, which end it themselves
        try:
            while block := self._response.read1(BLOCK):
                left = None if left is None else left - len(block)
                yield block
            if left:
                raise http.client.IncompleteRead(b"", left)
            whole = not self._cut and not self._response.will_close
        except _BROKEN as error:
            if not self._cut:
                raise self._wire.broken(error, "broke off in the middle of an answer") from error
        finally:
            if whole:
                self._response.close()  # its buffer only: the connection lives on
                self._wire.keep(self._connection)
            else:
                self.close()

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The body as JSON, None when empty. Raises ``EngineUnreachable`` when it is something else."""
        body = self.read()
        try:
            return json.loads(body) if body.strip() else None
        except ValueError as error:
            raise self._wire.broken(error, "answered something that is no JSON") from error

    def alone(self) -> None:
        """Keeps the connection for no other request, so that :meth:`cut` can hit none."""
        self._response.will_close = True

    def cut(self) -> None:
        """Ends the answer, also under a thread that is waiting for more of it."""
        self._cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # past TLS: its goodbye could wait

    def close(self) -> None:
        """Gives the answer up, and its connection."""
        self._response.close()
        self._connection.end()


class Stream(Generic[_Item]):
    """What an engine tells as it happens: iterate over it; ``close`` ends it, from any thread."""

    def __init__(self, answer: Answer, decode: Callable[[Iterator[bytes]], Iterator[_Item]]) -> None:
        answer.alone()
        self._answer = answer
        self._items = decode(answer.chunks())
        self._lock = threading.Lock()
        self._begun = False

    def __iter__(self) -> Iterator[_Item]:
        with self._lock:
            self._begun = True
        try:
            yield from self._items
        finally:
            self._answer.close()

    def close(self) -> None:
        """Ends the stream: a thread that iterates over it comes to its end."""
        with self._lock:
            self._answer.cut()
            if not self._begun:  # else the thread that reads closes, not this one under its hands
                self._answer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Wire:
    """Requests to one engine, from any number of threads."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    def ask(
        self,
        method: str,
        target: str,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
    ) -> Answer:
        """The engine's answer, whatever its status.

        Raises ``EngineUnreachable``, ``EngineDenied`` and ``EngineNotFound`` where there is none.
        ``patience`` bounds the wait for the first byte, infinity is allowed; None is the usual limit. A kept
        connection that turns out to be dead is replaced where repeating the request does no harm.
        """
        told = dict(headers or {})
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            told["Transfer-Encoding"] = "chunked"
        limit = self.timeout if patience is None else patience
        bound = None if limit == math.inf else limit
        while True:
            connection = self._take()
            try:
                return self._exchange(connection, (method, target, body, told), bound)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                again = connection.used and method in _REPEATABLE and not chunked
                said = connection.said()
                connection.end()
                if not again:
                    raise self.broken(error, said or "closed the connection") from error
            except TimeoutError as error:
                connection.end()
                raise self.broken(error, f"did not answer within {limit:g} s") from error
            except http.client.HTTPException as error:
                connection.end()
                raise self.broken(error, f"answered something that is no HTTP: {error}") from error
            except BaseException:
                connection.end()
                raise

    def _exchange(
        self,
        connection: Connection,
        request: tuple[str, str, Body | None, Mapping[str, str]],
        limit: float | None,
    ) -> Answer:
        method, target, body, headers = request
        connection.limit(None if "Transfer-Encoding" in headers else self.timeout)
        # an engine may answer before it has read everything and hang up: its answer says why
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if callable(body):
                connection.push(method, target, body, headers)
            else:
                connection.request(method, target, body, headers, encode_chunked="Transfer-Encoding" in headers)
        connection.limit(limit)
        response = connection.getresponse()
        connection.limit(None)
        connection.used = True
        return Answer(self, connection, response)

    def _take(self) -> Connection:
        """A kept connection, or a new one that is open."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if not connection.stale():
                return connection
            connection.end()
        connection = Connection(self.endpoint, self.timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.end()
            raise self._unopened(error) from error
        return connection

    def keep(self, connection: Connection) -> None:
        """Keeps a connection whose answer was read for the next request."""
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.end()

    def close(self) -> None:
        """Ends the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.end()

    def broken(self, error: BaseException, what: str) -> EngineUnreachable:
        """The error for an exchange that did not come to its end."""
        message = f"the container engine at {self.endpoint} {what}"
        return EngineUnreachable(message, data={"endpoint": self.endpoint.url, "cause": str(error)}, retryable=True)

    def _unopened(self, error: OSError) -> EngineNotFound | EngineDenied | EngineUnreachable:
        """The error for a connection that could not be opened."""
        where = f"{self.endpoint}"
        data = {"endpoint": self.endpoint.url}
        if isinstance(error, PermissionError) and self.endpoint.scheme == "unix":
            return EngineDenied(f"this user may not use the container engine at {where}", data=data)
        if isinstance(error, FileNotFoundError) and self.endpoint.scheme == "ssh":
            return EngineUnreachable(
                f"ssh is needed for the container engine at {where}", hint="Install ssh.", data=data
            )
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) and self.endpoint.scheme == "unix":
            return EngineNotFound(f"there is no container engine at {where}", data=data)
        if isinstance(error, ssl.SSLError):
            hint = "DOCKER_CERT_PATH names the folder with ca.pem, cert.pem and key.pem."
            return EngineUnreachable(f"no secure connection to {where}: {error}", hint=hint, data=data)
        reason = error.strerror or str(error)
        return EngineUnreachable(
            f"cannot connect to the container engine at {where}: {reason}", data=data, retryable=True
        )
