"""HTTP for registries: pools, proxies from the environment, request bodies that stream, redirects in one place.

https everywhere, except on loopback addresses, where what the server speaks is found out once.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from flowkiln import __name__ as product
from flowkiln._base import redact
from flowkiln.images.registryerrors import (
    RegistryError,
    RegistryFailed,
    RegistrySilent,
    RegistryUnreachable,
    RegistryUntrusted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from urllib3.response import BaseHTTPResponse

BLOCK = 1 << 20
"""Bytes that are read and written at once."""
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_CONNECTIONS = 16
_SHORT = 1 << 18
"""An unread rest of an answer up to this size is read, so that its connection can be used again."""
_BAD_ANSWER = re.compile(r"[\x00-\x1f\x7f]+")
_WHOSE = re.compile(r"^HTTPS?Connection(?:Pool)?\([^)]*\): ")
"""How urllib3 begins what it says: the host is in our message already."""


class Answer:
    """An answer whose body is not read yet. Read it with ``read`` or ``blocks``, or ``close`` it."""

    def __init__(self, url: str, response: BaseHTTPResponse, stall: float) -> None:
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._stall = stall
        self._start: bytes | None = None

    def start(self) -> bytes:
        """The first bytes of the body, enough for an error; asked again the same. Then the answer is closed."""
        if self._start is None:
            self._start = self.read(_SHORT)
        return self._start

    def read(self, limit: int) -> bytes:
        """The body up to ``limit`` bytes; the connection is given back. Raises the errors of the network."""
        parts, have = [], 0
        for block in self.blocks():
            parts.append(block)
            have += len(block)
            if have >= limit:
                break
        self.close()
        return b"".join(parts)[:limit]

    def blocks(self) -> Iterator[bytes]:
        """The body as it comes, in blocks of at most ``BLOCK`` bytes. Raises when it ends too early."""
        try:
            while block := self._response.read(BLOCK):
                yield block
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._response.close()
            raise translated(self.url, error, self._stall) from error
        self._response.release_conn()

    def close(self) -> None:
        """Gives the connection back, or closes it where much of the body is unread."""
        left = self._response.length_remaining
        if left is not None and left <= _SHORT:
            self._response.drain_conn()
            self._response.release_conn()
        else:
            self._response.close()


class Http:
    """Sends requests; threads may share it. ``stall`` is the longest silence in seconds, nothing limits the whole.

    ``context`` gives the TLS settings when they are first needed. With ``plain_loopback`` a server on a loopback
    address is asked once whether it speaks http.
    """

    def __init__(
        self, context: Callable[[], ssl.SSLContext], *, stall: float = 30.0, plain_loopback: bool = True
    ) -> None:
        self._context_of = context
        self._stall = stall
        self._plain_loopback = plain_loopback
        self._proxies = getproxies()
        self._lock = threading.RLock()
        self._context: ssl.SSLContext | None = None
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._bases: dict[str, str] = {}

    def base(self, host: str) -> str:
        """``https://HOST``, or ``http://HOST`` for a loopback address that speaks it. Raises when it is down."""
        if not (self._plain_loopback and is_loopback(host)):
            return f"https://{host}"
        with self._lock:
            if host not in self._bases:
                self._bases[host] = f"http://{host}" if self._speaks_plain(host) else f"https://{host}"
            return self._bases[host]

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        patience: int = 1,
    ) -> Answer:
        """The answer to one request, whatever its status; no redirect is followed.

        A ``body`` that comes in blocks needs a Content-Length in ``headers``. Once it is sent, the answer may take
        ``patience`` times the silence that is allowed elsewhere. Raises RegistryUnreachable,
        RegistrySilent and RegistryUntrusted.
        """
        sent = dict(headers or {})
        try:
            response = self._pool(url).request(
                method,
                url,
                headers=sent,
                body=body,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=self._stall, read=self._stall * patience),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise translated(url, error, self._stall) from error
        return Answer(url, response, self._stall)

    def follow(self, method: str, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer after redirects. A login is never sent to another host, nor from https to http."""
        sent = dict(headers or {})
        for _ in range(_MOST_REDIRECTS):
            answer = self.send(method, url, headers=sent)
            target = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or target is None:
                return answer
            answer.close()
            there = urljoin(url, target)
            if urlsplit(there).scheme not in ("http", "https"):
                break
            if _origin(there) != _origin(url):
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
            url = there
        message = f"{redact.text(url)}: redirected too often, or to something that is not http"
        raise RegistryFailed(message)

    def close(self) -> None:
        """Closes every connection that is not in use."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()

    # -- connections -------------------------------------------------------------------------------------------

    def _speaks_plain(self, host: str) -> bool:
        """Whether the server answers http. A TLS server answers 400, or with bytes that are no answer at all."""
        try:
            answer = self.send("GET", f"http://{host}/v2/")
        except RegistryUnreachable as error:
            if error.data.get("connected") or not _has_port(host):
                return False
            raise
        answer.close()
        return answer.status != 400

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all") or ""
        if not proxy or is_loopback(parts.netloc) or proxy_bypass(parts.netloc):
            proxy = ""
        place = (parts.scheme, proxy)
        with self._lock:
            if place not in self._pools:
                self._pools[place] = self._make_pool(proxy, tls=parts.scheme == "https")
            return self._pools[place]

    def _make_pool(self, proxy: str, *, tls: bool) -> urllib3.PoolManager:
        headers = {"User-Agent": product, "Accept-Encoding": "identity"}
        if self._context is None and (tls or proxy.startswith("https:")):
            self._context = self._context_of()
        context = self._context
        if not proxy:
            return urllib3.PoolManager(headers=headers, maxsize=_CONNECTIONS, ssl_context=context, blocksize=BLOCK)
        address, login = _without_login(proxy if "://" in proxy else f"http://{proxy}")
        return urllib3.ProxyManager(
            address,
            headers=headers,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
            maxsize=_CONNECTIONS,
            ssl_context=context,
            proxy_ssl_context=context,
            blocksize=BLOCK,
        )


def is_loopback(host: str) -> bool:
    """Whether ``host`` (with or without a port) is this machine: localhost, 127.0.0.0/8 or ::1."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def translated(url: str, error: Exception, stall: float) -> RegistryError:
    """What went wrong on the network, as one of our errors, without secrets.

    ``data["connected"]`` says whether there was a connection at all.
    """
    host = urlsplit(url).netloc.rpartition("@")[2]
    cause: BaseException | None = error
    connected = True
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryUntrusted(f"{host}: {cause.verify_message}")
        if isinstance(cause, ssl.SSLError):
            return RegistryUntrusted(
                f"{host}: no TLS connection: {cause.reason or cause}",
                hint="The server speaks another TLS version or none at all; plain http is used on loopback only.",
            )
        if isinstance(cause, urllib3.exceptions.ProxyError):
            connected = False
            break
        if isinstance(cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.NameResolutionError)):
            connected = False
            break
        if isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
            message = f"{host}: no connection within {stall:g} s"
            return RegistryUnreachable(message, retryable=True, data={"connected": False})
        if isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)):
            message = f"{host}: not a byte for {stall:g} s"
            return RegistrySilent(message, retryable=True, data={"connected": True})
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    said = _BAD_ANSWER.sub(" ", _WHOSE.sub("", redact.text(str(cause or error))))[:300]
    return RegistryUnreachable(f"{host}: {said}", retryable=True, data={"connected": connected})


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _has_port(host: str) -> bool:
    return urlsplit(f"//{host}").port is not None


def _without_login(url: str) -> tuple[str, str]:
    """A proxy's URL without user and password, and these."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), unquote(login)
