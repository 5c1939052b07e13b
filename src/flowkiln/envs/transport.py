"""HTTP for downloads: pools, proxies and certificates from the environment, redirects that drop credentials."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from flowkiln import __name__ as product
from flowkiln._base import redact
from flowkiln.envs import authorities
from flowkiln.envs.installerrors import CertificateRefused, DownloadFailed, DownloadStalled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3.response import BaseHTTPResponse

Credentials = tuple[str, str]
"""User name and password."""
_CERTIFICATE = re.compile(r"[0-9a-f]{8}\.\d+|.+\.(pem|crt|cer)")
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to reach servers. ``stall`` is the longest silence in seconds; there is no limit on the whole.

    ``ca`` is a file or folder of certificates; without it what ``envs.authorities`` decides holds, for uv as well.
    ``credentials`` is asked for every host anew, ``renew`` when a server refuses what it said: for another login.
    ``source`` tells where the file of a lock's URL is fetched: at a mirror, or with a token in its path.
    """

    stall: float = 30.0
    ca: str | None = None
    credentials: Callable[[str], Credentials | None] | None = None
    renew: Callable[[str, Credentials | None], Credentials | None] | None = None
    source: Callable[[str], str] | None = None


class Transport:
    """Sends GET requests. Threads may share it. Close it with ``close``."""

    def __init__(self, network: Network, *, connections: int = 8) -> None:
        self._network = network
        self._connections = connections
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._proxies = getproxies()
        self._context: ssl.SSLContext | None = None

    def get(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """The answer to a GET of ``url``, redirects followed, body unread. The caller releases it.

        Raises DownloadFailed, DownloadStalled and CertificateRefused; any status is an answer.
        """
        url = self._network.source(url) if self._network.source is not None else url
        for _ in range(_MOST_REDIRECTS):
            answer = self._send(url, headers)
            target = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or target is None:
                return answer
            answer.drain_conn()
            answer.release_conn()
            url = urljoin(url, target)
        message = f"{redact.text(url)}: more than {_MOST_REDIRECTS} redirects"
        raise DownloadFailed(message)

    def page(self, url: str, headers: Mapping[str, str], limit: int) -> tuple[int, str]:
        """Status and the first ``limit`` bytes of the text at ``url``. Raises the errors of downloads."""
        answer = self.get(url, headers)
        try:
            return answer.status, answer.read(limit).decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise translated(url, error, self._network.stall) from error
        finally:
            answer.release_conn()

    def close(self) -> None:
        """Closes every connection that is not in use."""
        for pool in self._pools.values():
            pool.clear()

    def _send(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        bare, own = _split(url)
        if urlsplit(bare).scheme not in ("http", "https"):
            message = f"{redact.text(url)}: only http, https and file URLs can be downloaded"
            raise DownloadFailed(message)
        # Looked up for each host: a redirect to another host carries no credentials of the first.
        credentials = own or (self._network.credentials(bare) if self._network.credentials else None)
        answer = self._send_as(credentials, bare, headers)
        if answer.status != HTTPStatus.UNAUTHORIZED or self._network.renew is None:
            return answer
        renewed = self._network.renew(bare, credentials)
        if renewed is None:
            return answer
        answer.drain_conn()
        answer.release_conn()
        return self._send_as(renewed, bare, headers)

    def _send_as(self, credentials: Credentials | None, bare: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        sent = dict(headers)
        if credentials is not None:
            sent.update(urllib3.make_headers(basic_auth=":".join(credentials)))
        try:
            return self._pool(bare).request(
                "GET",
                bare,
                headers=sent,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=self._network.stall, read=self._network.stall),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise translated(bare, error, self._network.stall) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url, self._proxies)
        if proxy not in self._pools:
            self._pools[proxy] = self._make_pool(proxy)
        return self._pools[proxy]

    def _make_pool(self, proxy: str) -> urllib3.PoolManager:
        headers = {"User-Agent": product, "Accept-Encoding": "identity"}
        if self._context is None:
            self._context = certificates(self._network.ca, os.environ)
        context, size = self._context, self._connections
        if not proxy:
            return urllib3.PoolManager(headers=headers, maxsize=size, ssl_context=context)
        address, credentials = _split(proxy if "://" in proxy else f"http://{proxy}")
        login = urllib3.make_headers(proxy_basic_auth=":".join(credentials)) if credentials else None
        return urllib3.ProxyManager(
            address,
            headers=headers,
            proxy_headers=login,
            maxsize=size,
            ssl_context=context,
            proxy_ssl_context=context,
        )


def certificates(ca: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """The TLS settings with the authorities of ``ca``, else of the environment's variables, else the system's.

    Raises CertificateRefused when the file named cannot be read.
    """
    # OpenSSL itself reads SSL_CERT_FILE and SSL_CERT_DIR, but passes silently over a file that is not there.
    context = ssl.create_default_context()
    named = ca or authorities.named(environ)
    if not named:
        return context
    try:
        for path in _certificate_files(Path(named)):
            context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        message = f"the certificates in {named} cannot be read: {error}"
        raise CertificateRefused(
            message, hint="Name a PEM file in SSL_CERT_FILE or in the setting `certificates`."
        ) from error
    return context


def _certificate_files(named: Path) -> list[Path]:
    """The file itself, or a folder's certificates: read at once, as OpenSSL looks into one more folder at most."""
    if not named.is_dir():
        return [named]
    return sorted(path for path in named.iterdir() if _CERTIFICATE.fullmatch(path.name))


def proxy(url: str) -> str | None:
    """The proxy that requests of ``url`` go through, as this process's variables say; it may hold credentials."""
    return _proxy(url, getproxies()) or None


def _proxy(url: str, proxies: Mapping[str, str]) -> str:
    parts = urlsplit(url)
    found = proxies.get(parts.scheme) or proxies.get("all")
    return "" if found is None or proxy_bypass(parts.netloc) else found


def translated(url: str, error: Exception, stall: float) -> DownloadFailed | DownloadStalled | CertificateRefused:
    """What went wrong on the network, as one of our errors with the URL redacted."""
    shown = redact.text(url)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            message = f"{shown}: {cause.verify_message}"
            return CertificateRefused(message, hint="Name your authority's PEM file in SSL_CERT_FILE.")
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            break
        if isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)):
            return DownloadStalled(f"{shown}: no byte for {stall:g} s", retryable=True)
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    return DownloadFailed(f"{shown}: {redact.text(str(error))}", retryable=True)


def _split(url: str) -> tuple[str, Credentials | None]:
    """``url`` without user and password, and these."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    if not login:
        return url, None
    user, _, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password))
