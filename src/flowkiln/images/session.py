"""Requests to one registry: logged in, repeated where that is safe, and refused with the right error."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from flowkiln._base import parallel
from flowkiln.images import refusals
from flowkiln.images.reference import HUB
from flowkiln.images.registryerrors import RegistryError, RegistryForbidden
from flowkiln.images.tokens import Scopes, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flowkiln.images.http import Answer, Http
    from flowkiln.images.login import Logins

_HUB_API = "registry-1.docker.io"
_LONGEST_WAIT = 30.0
_LONGEST_ASKED = 300.0
"""Seconds that are waited at most when a registry says how long."""
_UNCONNECTED = 2
"""How often a registry that cannot even be connected to is tried again."""

_COMMITTING = 10
"""How much longer a registry may be silent after an upload: it may have to copy what it was sent."""


def pause(seconds: float) -> None:
    """Waits; raises ``KeyboardInterrupt`` when the work that this thread is part of was given up."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if parallel.stopped():
            raise KeyboardInterrupt
        time.sleep(min(left, 0.2))


def pulling(*repositories: str) -> Scopes:
    """The scopes for reading."""
    return frozenset(f"repository:{one}:pull" for one in repositories)


def pushing(repository: str) -> Scopes:
    """The scope for reading and writing."""
    return frozenset({f"repository:{repository}:pull,push"})


def deleting(repository: str) -> Scopes:
    """The scope for removing."""
    return frozenset({f"repository:{repository}:pull,delete"})


class Session:
    """Sends requests to the registry ``host``; threads may share it."""

    def __init__(
        self,
        host: str,
        http: Http,
        logins: Logins,
        *,
        retries: int = 5,
        backoff: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        self.host = host
        self.retries = retries
        self._http = http
        self._backoff = backoff
        self._sleep = sleep
        self._tokens = Tokens(host, http, logins, clock=clock)

    def url(self, path: str) -> str:
        """The address of a path such as ``/v2/NAME/tags/list``. Raises when a loopback registry is down."""
        return self._http.base(_HUB_API if self.host == HUB else self.host) + path

    def send(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """The answer to a request that may be repeated; never one that says to try again later, nor a 401.

        Raises the registry errors for what stays wrong.
        """
        return self.repeated(lambda: self.once(method, url, scopes, headers=headers, body=body))

    def once(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """The answer to one request; only what was refused for want of a login is sent again with one."""
        for _ in range(3):
            answer, used = self.stream(method, url, scopes, headers=headers, body=body)
            if answer.status != 401:
                return answer
            if not self._tokens.refused(answer, used, scopes):
                raise self._tokens.denied(answer)
            answer.start()
        raise self.denied(answer, scopes)

    def stream(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> tuple[Answer, str | None]:
        """The answer to exactly one request, whatever it is, and the login header that it was sent with."""
        sent = dict(headers or {})
        # A place for uploads may be on another host, which is not told the login.
        used = self._tokens.header(scopes) if urlsplit(url).netloc == urlsplit(self.url("")).netloc else None
        if used is not None:
            sent["Authorization"] = used
        if body is None and method in ("GET", "HEAD"):
            return self._http.follow(method, url, headers=sent), used
        patience = 1 if body is None else _COMMITTING
        return self._http.send(method, url, headers=sent, body=body, patience=patience), used

    def renew(self, answer: Answer, used: str | None, scopes: Scopes) -> None:
        """Gets a new login after a 401 to ``stream``. Raises RegistryDenied when there is none to be had."""
        if not self._tokens.refused(answer, used, scopes):
            raise self._tokens.denied(answer)
        answer.start()

    def denied(self, answer: Answer, scopes: Scopes) -> RegistryError:
        """The error of a 401 that a new login did not help against."""
        if self._tokens.logged_in and "insufficient_scope" in (answer.headers.get("WWW-Authenticate") or ""):
            wanted = ", ".join(sorted(scopes))
            return RegistryForbidden(f"{self.host} does not grant {wanted} to your login{refusals.said(answer)}")
        return self._tokens.denied(answer)

    def repeated(self, call: Callable[[], Answer]) -> Answer:
        """The answer of ``call`` once it is not one of those that pass; called again after growing waits."""
        for attempt in range(self.retries + 1):
            try:
                answer = call()
            except RegistryError as error:
                most = self.retries if error.data.get("connected", True) else min(self.retries, _UNCONNECTED)
                if not error.retryable or attempt >= most:
                    raise
                self.wait(attempt, error.data.get("retry_after"))
                continue
            if answer.status not in refusals.TEMPORARY or attempt == self.retries:
                return answer
            asked = refusals.retry_after(answer)
            if asked is not None and asked > _LONGEST_ASKED:
                return answer
            answer.close()
            self.wait(attempt, asked)
        raise AssertionError  # the loop returns or raises

    def wait(self, attempt: int, asked: float | None = None) -> None:
        """Waits before the next attempt: as long as ``asked``, else longer each time, never equally long."""
        grown = min(_LONGEST_WAIT, self._backoff * 2**attempt)
        self._sleep(max(asked or 0.0, grown * random.uniform(0.5, 1.0)))  # noqa: S311 - spreads requests

    def refusal(self, repository: str, doing: str, answer: Answer) -> RegistryError:
        """The error that an answer is."""
        return refusals.refusal(self.host, repository, doing, answer)

    def location(self, answer: Answer) -> str | None:
        """Where an upload goes on, absolute and with its query; None when the answer does not say."""
        found = answer.headers.get("Location")
        if not found:
            return None
        there, here = urlsplit(urljoin(answer.url, found)), urlsplit(answer.url)
        if there.netloc == here.netloc:
            # a registry behind something that ends TLS may not know that it is asked by https
            there = there._replace(scheme=here.scheme)
        return there.geturl()
