"""Messages between the launcher and a template: JSON with file descriptors over a unix stream socket.

A message is its length in four bytes (big endian), then JSON. Descriptors travel beside the first byte by
``SCM_RIGHTS``; a stream socket may deliver them with earlier bytes, so that each message says how many are its
own and takes them in the order of arrival.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject

_BUFFER = 256 * 1024
"""Bytes a side may send ahead: far above what is in flight, so that a send never waits. macOS gives 8 KiB."""
_READ = 64 * 1024
_MOST_DESCRIPTORS = 64


class Closed(Exception):
    """The other side has closed the channel or died."""


class Channel:
    """One end of the channel; owns ``sock``. Used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._bytes = bytearray()
        self._descriptors: list[int] = []
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)

    def fileno(self) -> int:
        """The socket's descriptor, for selectors."""
        return self._socket.fileno()

    def send(self, message: JSONObject, descriptors: Sequence[int] = ()) -> None:
        """Sends ``message`` with copies of ``descriptors``. Raises ``Closed``."""
        body = json.dumps({**message, "fds": len(descriptors)} if descriptors else message).encode()
        data = len(body).to_bytes(4, "big") + body
        try:
            if descriptors:
                sent = socket.send_fds(self._socket, [data], descriptors)
                data = data[sent:]
            if data:
                self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def receive(self) -> list[tuple[JSONObject, list[int]]]:
        """The messages completed by one read, which waits for bytes. Raises ``Closed`` at the end."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ, _MOST_DESCRIPTORS)
        except ConnectionResetError as error:
            raise Closed from error
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        if not data:
            raise Closed
        self._bytes += data
        return self._complete()

    def receive_one(self) -> tuple[JSONObject, list[int]]:
        """The next message where exactly one is expected, waiting for all of it. Raises ``Closed``."""
        while True:
            messages = self.receive()
            if messages:
                return messages[0]

    def close(self) -> None:
        """Closes this end and every descriptor that no message has taken."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._socket.close()

    def _complete(self) -> list[tuple[JSONObject, list[int]]]:
        found: list[tuple[JSONObject, list[int]]] = []
        while len(self._bytes) >= 4:
            end = 4 + int.from_bytes(self._bytes[:4], "big")
            if len(self._bytes) < end:
                break
            message: JSONObject = json.loads(bytes(self._bytes[4:end]))
            del self._bytes[:end]
            count = message.pop("fds", 0)
            found.append((message, self._descriptors[:count]))
            del self._descriptors[:count]
        return found


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, neither inherited by other programs."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
