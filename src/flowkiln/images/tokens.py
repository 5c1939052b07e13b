"""What proves to a registry who asks: Basic logins, and tokens by scope, renewed before they end.

Nothing is assumed of a registry: the first refusal says how it wants to be asked.
"""

from __future__ import annotations

import base64
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from flowkiln import __name__ as product
from flowkiln._base import redact
from flowkiln.images import refusals
from flowkiln.images.http import is_loopback
from flowkiln.images.registryerrors import RegistryDenied, RegistryError, RegistryFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowkiln.images.http import Answer, Http
    from flowkiln.images.login import Login, Logins

Scopes = frozenset[str]
"""Such as ``repository:team/flows:pull,push``."""
_MARGIN = 10.0
"""Seconds before its end at which a token counts as ended; a quarter of its life where that is short."""
_DEFAULT_LIFE = 60.0
_UNKNOWN_LOGIN = (400, 401, 403)
"""How a token service says that it does not take a login."""
_PARAMETER = re.compile(
    r"""(?:(?P<scheme>[a-zA-Z-]+)(?:\s+|\s*(?=,|$)))?"""
    r"""(?:(?P<name>[a-zA-Z_]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]+)))?"""
)
"""A parameter of a challenge, before the first one its scheme; quoted text is passed over as a whole."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a registry wants to be asked: the scheme in small letters, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    until: float


class Tokens:
    """The ``Authorization`` headers for one registry; threads may share it."""

    def __init__(self, host: str, http: Http, logins: Logins, *, clock: Callable[[], float]) -> None:
        self._host = host
        self._http = http
        self._logins = logins
        self._clock = clock
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._login: Login | None = None

    def header(self, scopes: Scopes) -> str | None:
        """The header for a request that needs ``scopes``, or None while the registry has not asked for one.

        Raises the registry errors of the token service.
        """
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return None if self._login is None else _basic(self._login)
            token = self._tokens.get(scopes)
            if token is None or self._clock() >= token.until:
                token = self._tokens[scopes] = self._fetch(scopes)
            return f"Bearer {token.text}"

    def refused(self, answer: Answer, used: str | None, scopes: Scopes) -> bool:
        """Takes notice of a 401; whether asking again makes sense, now with another header than ``used``.

        The login is read anew: what a helper gave an hour ago may have ended.
        """
        with self._lock:
            challenge = parse(answer.headers.get("WWW-Authenticate"))
            if challenge is None:
                return False
            known = self._challenge
            if known is not None and (used != self._current(scopes) or (used is None and known.scheme == "bearer")):
                return True  # another thread was refused before, and has seen to it
            self._challenge = challenge
            self._tokens.pop(scopes, None)
            before, self._login = self._login, self._logins.find(self._host)
            if challenge.scheme == "basic":
                return self._login is not None and (used is None or self._login != before)
            return True

    def denied(self, answer: Answer) -> RegistryDenied:
        """The error of a 401 that stays one: which login was used, and what to do."""
        told = f"{self._host} refuses access (401{refusals.said(answer)})"
        if self._login is not None:
            message = f"{told}; the login of {self._login.user or 'a token'} from {self._login.source} was used"
            return RegistryDenied(message, hint=f"Log in again with `docker login {self._host}`.")
        note = self._logins.note(self._host)
        hint = f"Log in with `docker login {self._host}`; flowkiln uses the logins of docker and podman."
        return RegistryDenied(f"{told}; no login for it was found" + (f": {note}" if note else ""), hint=hint)

    @property
    def logged_in(self) -> bool:
        """Whether a login was found."""
        return self._login is not None

    def _current(self, scopes: Scopes) -> str | None:
        if self._challenge is not None and self._challenge.scheme == "basic":
            return None if self._login is None else _basic(self._login)
        token = self._tokens.get(scopes)
        return None if token is None else f"Bearer {token.text}"

    # -- the token service -------------------------------------------------------------------------------------

    def _fetch(self, scopes: Scopes) -> _Token:
        realm, service = self._service()
        started = self._clock()
        answer = self._request(realm, service, scopes)
        if answer.status in _UNKNOWN_LOGIN:
            # what a helper gave an hour ago may have ended; only another login is worth another question
            answer.start()
            before, self._login = self._login, self._logins.find(self._host)
            if self._login is not None and self._login != before:
                answer = self._request(realm, service, scopes)
        if answer.status != 200:
            raise self._no_token(answer)
        document = refusals.document(answer)
        text = document.get("token") or document.get("access_token")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            message = f"the token service of {self._host} gave no token{refusals.said(answer)}"
            raise RegistryFailed(message)
        life = document.get("expires_in")
        seconds = float(life) if isinstance(life, (int, float)) and life > 0 else _DEFAULT_LIFE
        return _Token(text, started + seconds - min(_MARGIN, seconds / 4))

    def _service(self) -> tuple[str, str | None]:
        """The token service's address and what it calls the registry. Raises for one that gets no login of ours."""
        assert self._challenge is not None
        realm = self._challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            message = f"{self._host} sends to a token service without an address: {redact.text(realm)!r}"
            raise RegistryFailed(message)
        if self._login is not None and parts.scheme == "http" and not is_loopback(parts.netloc):
            message = f"{self._host} wants its login sent to {parts.netloc} without TLS"
            raise RegistryDenied(message, hint="flowkiln does not do that; tell whoever runs the registry.")
        return realm, self._challenge.parameters.get("service")

    def _request(self, realm: str, service: str | None, scopes: Scopes) -> Answer:
        login = self._login
        named = [("service", service)] if service else []
        if login is not None and login.identity:
            form = [
                ("grant_type", "refresh_token"),
                ("client_id", product),
                ("refresh_token", login.secret),
                ("scope", " ".join(sorted(scopes))),
            ]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._http.send("POST", realm, headers=headers, body=urlencode([*named, *form]).encode())
        query = [*named, *(("scope", scope) for scope in sorted(scopes))]
        headers = {}
        if login is not None:
            headers["Authorization"] = _basic(login)
        mark = "&" if urlsplit(realm).query else "?"
        return self._http.send("GET", f"{realm}{mark}{urlencode(query)}", headers=headers)

    def _no_token(self, answer: Answer) -> RegistryError:
        if answer.status in _UNKNOWN_LOGIN:
            return self.denied(answer)
        return refusals.refusal(self._host, "", "get a token", answer)


def parse(text: str | None) -> Challenge | None:
    """The challenge of a ``WWW-Authenticate`` header that can be met: Bearer before Basic."""
    found: dict[str, dict[str, str]] = {}
    scheme = ""
    for part in _PARAMETER.finditer(text or ""):
        if part["scheme"]:
            scheme = part["scheme"].lower()
            found.setdefault(scheme, {})
        if part["name"]:
            quoted = part["quoted"]
            value = part["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found.setdefault(scheme, {}).setdefault(part["name"].lower(), value)
    return next((Challenge(kind, found[kind]) for kind in ("bearer", "basic") if kind in found), None)


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()
