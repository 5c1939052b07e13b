"""One connection to a container engine: a unix socket, TCP, TLS, or the input and output of an ``ssh``."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowkiln._base.endpoints import TLS, Endpoint

Writer = Callable[[Callable[[bytes], object]], None]
"""Gives its bytes to the function that it is called with, as they come."""
Body = bytes | Iterable[bytes] | Writer


class _HungUp(Exception):
    """The engine takes no more of a request. No ``OSError``, so that whoever writes the body lets it through."""


@contextlib.contextmanager
def _hanging_up() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _HungUp from error


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
        """Sends a request whose body is what ``body`` writes, as far as the engine takes it.

        What ``body`` raises is raised: it is no failure of the engine, whatever its kind.
        """
        try:
            with _hanging_up():
                self.putrequest(method, target)
                for name, value in headers.items():
                    self.putheader(name, value)
                self.endheaders()
            body(self._chunk)
            with _hanging_up():
                self.send(b"0\r\n\r\n")
        except _HungUp:
            return  # an engine may answer before it has read everything: its answer says why

    def _chunk(self, data: bytes) -> None:
        if data:
            with _hanging_up():
                self.send(b"%x\r\n" % len(data))
                self.send(data)
                self.send(b"\r\n")

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
