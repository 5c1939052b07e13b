"""HTTP to a container engine: over a unix socket, TCP, TLS or ssh, on connections that are kept for the next call.

A time limit holds for connecting and for the first byte of an answer, never for what follows: a container may be
silent for hours. That the other machine died is learnt from TCP's own keep-alive.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowkiln._base.engineconnection import Connection
from flowkiln._base.engineerrors import EngineDenied, EngineNotFound, EngineUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.engineconnection import Body, Writer

BLOCK = 1 << 16
_KEPT = 8
"""Idle connections that are kept."""
_REPEATABLE = ("GET", "HEAD", "DELETE", "PUT")
_BROKEN = (http.client.HTTPException, OSError, ValueError)
_Item = TypeVar("_Item")


class Answer:
    """What the engine answered. Read it to the end, or close it: an answer that was read keeps its connection."""

    def __init__(
        self, wire: Wire, connection: Connection, own: socket.socket | None, response: http.client.HTTPResponse
    ) -> None:
        self._wire = wire
        self._connection = connection
        self._response = response
        self._socket = own
        self._cut = False
        self.status = response.status

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


class _Lost(Exception):
    """There is no answer. ``at_once``: the connection was closed, perhaps before the engine saw the request."""

    def __init__(self, what: str, *, at_once: bool = False) -> None:
        super().__init__(what)
        self.at_once = at_once


def _writer(body: Iterable[bytes] | Writer) -> Writer:
    """The body as a function that writes it."""
    if callable(body):
        return body

    def write(sink: Callable[[bytes], object]) -> None:
        for block in body:
            sink(block)

    return write


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
        limit = self.timeout if patience is None else patience
        while True:
            connection = self._take()
            try:
                if body is None or isinstance(body, bytes):
                    return self._exchange(connection, (method, target, body, told), limit)
                connection.limit(None)  # an engine may be long at work on what it was sent already
                connection.push(method, target, _writer(body), {**told, "Transfer-Encoding": "chunked"})
                return self._exchange(connection, None, limit)
            except _Lost as lost:
                said = connection.said()
                connection.end()
                whole = body is None or isinstance(body, bytes)
                if not (lost.at_once and connection.used and whole and method in _REPEATABLE):
                    raise self.broken(lost.__cause__ or lost, said or str(lost)) from lost.__cause__
            except BaseException:
                connection.end()
                raise

    def _exchange(
        self, connection: Connection, request: tuple[str, str, bytes | None, Mapping[str, str]] | None, limit: float
    ) -> Answer:
        """The answer to a request, or to one that was sent already. Raises ``_Lost``."""
        try:
            if request is not None:
                connection.limit(self.timeout)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(*request)
            connection.limit(None if limit == math.inf else limit)
            own = connection.sock  # http.client forgets it when the answer is the connection's last
            response = connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            raise _Lost("closed the connection", at_once=True) from error
        except TimeoutError as error:
            raise _Lost(f"did not answer within {limit:g} s") from error
        except (http.client.HTTPException, OSError) as error:
            raise _Lost(f"did not answer as an engine does: {error}") from error
        if own is not None:
            own.settimeout(None)
        connection.used = True
        return Answer(self, connection, own, response)

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
