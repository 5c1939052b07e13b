"""A corporate network: a proxy that alone knows the way, and a certificate authority that nobody else knows."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import socketserver
import ssl
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import trustme

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, *hosts: str) -> None:
        self._authority = trustme.CA()
        self._certificate = self._authority.issue_cert(*hosts)

    def server(self) -> ssl.SSLContext:
        """What a server of those hosts uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate.configure_cert(context)
        return context

    def write(self, path: Path) -> Path:
        """Writes the authority's certificate: what ``SSL_CERT_FILE`` points to."""
        self._authority.cert_pem.write_to_path(str(path))
        return path


class Proxy:
    """An HTTP proxy in a thread of its own that leads every host name to one local port."""

    def __init__(self, port: int, *, user: str | None = None, password: str = "") -> None:
        self.target = port
        self.expected = None if user is None else base64.b64encode(f"{user}:{password}".encode()).decode()
        self.seen: list[str] = []
        """Method and target of every request, in order; refused ones begin with ``407``."""
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """What goes into ``HTTPS_PROXY``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.cut()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Client)

    def cut(self) -> None:
        """Ends what goes on, so that the threads end."""
        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class _Client(socketserver.StreamRequestHandler):
    server: _Server
    rbufsize = 0
    wbufsize = 0

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.answer()

    def answer(self) -> None:
        proxy = self.server.proxy
        head = self.head()
        if not head:
            return
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if proxy.expected is not None and f"basic {proxy.expected}".lower() not in head.decode().lower():
            proxy.seen.append(f"407 {method} {target}")
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n")
            self.wfile.write(b'Proxy-Authenticate: Basic realm="proxy"\r\nConnection: close\r\n\r\n')
            return
        proxy.seen.append(f"{method} {target}")
        with socket.create_connection(("127.0.0.1", proxy.target)) as there:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = urlsplit(target)._replace(scheme="", netloc="").geturl()
                there.sendall(head.replace(target.encode(), path.encode(), 1))
            self.exchange(there)

    def head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.rfile.read(1)
            if not byte:
                return b""
            head += byte
        return head

    def exchange(self, there: socket.socket) -> None:
        here = self.connection
        self.server.open |= {here, there}
        try:
            while True:
                for source in select.select([here, there], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (there if source is here else here).sendall(data)
        finally:
            self.server.open -= {here, there}
