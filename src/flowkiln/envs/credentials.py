"""Who may log in where: URLs, then commands of the settings, netrc, keyring. Nothing of it is ever written.

A command or the keyring is asked when a password is first needed and once more when a server refuses it: tokens
expire while a download is under way. What it said is held in memory, by host, for as long as the process lives.
"""

from __future__ import annotations

import json
import netrc
import os
import shlex
import shutil
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from flowkiln._base import command, redact
from flowkiln._base.errors import ToolMissing
from flowkiln.envs.errors import CredentialsFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Asking = Callable[[], "Login | None"]

TOKEN_USER = "__token__"  # noqa: S105  a name, as PyPI has it
"""The user of a token where no index URL names another one."""
_MARGIN = 30.0
"""Seconds before its end from which a password counts as expired."""
_LIMITS = command.Limits(total=120.0, stall=120.0)


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, and who gave them: ``url``, ``command``, ``netrc`` or ``keyring``.

    ``expires`` is in seconds since the epoch.
    """

    user: str
    password: str = field(repr=False)
    origin: str
    expires: float | None = None

    @property
    def pair(self) -> tuple[str, str]:
        """User name and password."""
        return self.user, self.password

    @property
    def stands(self) -> bool:
        """Whether it has not expired, as far as is known."""
        return self.expires is None or time.time() < self.expires - _MARGIN


@dataclass(frozen=True, slots=True)
class Giver:
    """Who gives a password, as in ``Login``, and the user; empty where that is unknown or may be a secret."""

    user: str
    origin: str

    def __str__(self) -> str:
        return f"{self.user or '***'} ({self.origin})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Askers:
    """Whom to ask for passwords: ``commands`` by host, the program ``keyring`` or not; in which environment."""

    commands: Mapping[str, str] = field(default_factory=dict)
    keyring: bool = False
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def command(self, url: str) -> str | None:
        """The command for the host of ``url``: by host and port, else by host."""
        return self.commands.get(host(url)) or self.commands.get(urlsplit(url).hostname or "")

    def told(self, url: str, user: str) -> Login | None:
        """What the host's command says, asked once; None where it has none. Raises ``CredentialsFailed``."""
        line = self.command(url)
        return self._held(url, "command", line).get(lambda: _of_command(self, url, line, user)) if line else None

    def kept(self, url: str, user: str, services: Sequence[str]) -> Login | None:
        """What the keyring holds, asked once. Without a user only what it was asked for after a refusal."""
        if not self.keyring:
            return None
        held = self._held(url, "keyring", user)
        return held.get(lambda: _of_keyring(self, services, user)) if user else held.login

    def renewed(
        self, url: str, user: str, services: Sequence[str], refused: tuple[str, str] | None
    ) -> Login | None:
        """Another login than ``refused``, which a server did not take; None when nobody has one.

        Whoever asks while another thread renews gets that one's answer. Raises ``CredentialsFailed``.
        """
        line = self.command(url)
        if line:
            found = self._held(url, "command", line).renew(refused, lambda: _of_command(self, url, line, user))
        elif self.keyring:
            held = self._held(url, "keyring", user)
            found = held.renew(refused, lambda: _of_keyring(self, services, user))
        else:
            return None
        return found if found is not None and found.pair != refused else None

    def _held(self, url: str, kind: str, asked: str) -> _Held:
        # Equal questions of one process have one answer: a command may want a finger on a key each time.
        own = (self.environ.get("HOME", ""), self.environ.get("PATH", ""))
        with _HOLDING:
            return _HELD.setdefault((host(url), kind, asked, *own), _Held())


class Logins(ABC):
    """Who logs in at the addresses of a plan of indexes or channels, and at other places on their hosts.

    ``netrc`` is the file of credentials by host, ``askers`` are whom to ask for those that stand nowhere.
    """

    __slots__ = ()
    netrc: Path | None
    askers: Askers

    @property
    @abstractmethod
    def addresses(self) -> tuple[str, ...]:
        """The URLs of the plan, users and passwords included."""

    def login(self, url: str) -> Login | None:
        """Who logs in at ``url``: as an address on the same host says, a command, netrc, the keyring; else None.

        Raises ``CredentialsFailed``.
        """
        named = of_urls(url, self.addresses)
        if named is not None and named.password:
            return named
        user = named.user if named is not None else ""
        return (
            self.askers.told(url, user)
            or of_netrc(url, self.netrc, user)
            or self.askers.kept(url, user, self._services(url))
            or named
        )

    def giver(self, url: str) -> Giver | None:
        """Who would give the login at ``url``, without asking a command or the keyring; None for nobody."""
        named = of_urls(url, self.addresses)
        user = named.user if named is not None else ""
        if named is not None and named.password:
            return Giver(user, "url")
        if self.askers.command(url):
            return Giver("", "command")
        found = of_netrc(url, self.netrc, user)
        if found is not None:
            return Giver(found.user if found.password else "", "netrc")
        if self.askers.keyring:
            return Giver(user, "keyring")
        return Giver("", "url") if named is not None else None

    def credentials(self, url: str) -> tuple[str, str] | None:
        """User and password for ``url``, None where nobody gives any. Raises ``CredentialsFailed``."""
        found = self.login(url)
        return found.pair if found else None

    def renew(self, url: str, refused: tuple[str, str] | None) -> tuple[str, str] | None:
        """Another user and password for ``url``, whose server did not take ``refused``; None when nobody has one.

        Commands and the keyring are asked anew. Raises ``CredentialsFailed``.
        """
        named = of_urls(url, self.addresses)
        user = named.user if named is not None else ""
        found = self.askers.renewed(url, user, self._services(url), refused)
        return found.pair if found else None

    def renew_used(self, url: str, used: Mapping[str, tuple[str, str] | None]) -> bool:
        """Whether an address on the host of ``url`` has another login than the one in ``used``, by its URL.

        Raises ``CredentialsFailed``.
        """
        refusing = [one for one in used if host(one) == host(url)]
        return any(self.renew(one, used[one]) is not None for one in refusing)

    def _services(self, url: str) -> list[str]:
        """What the keyring may know ``url`` by: the address on its host, then the host."""
        own = [address for address in self.addresses if host(address) == host(url)]
        return [*map(redact.url, own), host(url)]


class _Held:
    """One answer of a command or the keyring, asked for by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self.login: Login | None = None

    def get(self, ask: Asking) -> Login | None:
        with self._lock:
            if not self._asked or (self.login is not None and not self.login.stands):
                self._take(ask)
            return self.login

    def renew(self, refused: tuple[str, str] | None, ask: Asking) -> Login | None:
        with self._lock:
            if self.login is None or self.login.pair == refused:
                self._take(ask)
            return self.login

    def _take(self, ask: Asking) -> None:
        self.login = ask()
        self._asked = True


_HOLDING = threading.Lock()
_HELD: dict[tuple[str, ...], _Held] = {}


def by_keyring(setting: str | None, environ: Mapping[str, str]) -> bool:
    """Whether the keyring is asked, by the setting of that name, else as uv and pip are told."""
    told = (setting, environ.get("UV_KEYRING_PROVIDER"), environ.get("PIP_KEYRING_PROVIDER"))
    return next((one for one in told if one), "never") == "subprocess"


def host(url: str) -> str:
    """The host of ``url`` with its port, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]


def of_urls(url: str, others: Iterable[str]) -> Login | None:
    """What ``url`` holds itself, else what one of ``others`` on its host holds; a user without a password also."""
    for candidate in (url, *others):
        parts = urlsplit(candidate)
        if host(candidate) == host(url) and (parts.username or parts.password):
            return Login(unquote(parts.username or ""), unquote(parts.password or ""), "url")
    return None


def of_netrc(url: str, path: Path | None, user: str = "") -> Login | None:
    """What the netrc file at ``path`` holds for the host of ``url``, and for ``user`` where one is named.

    A file that cannot be read holds nothing.
    """
    if path is None:
        return None
    try:
        found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    return Login(found[0], found[2] or "", "netrc") if found and user in {"", found[0]} else None


def _of_command(askers: Askers, url: str, line: str, user: str) -> Login:
    """The answer of a command: JSON, or a token, or a user and a password on two lines."""
    what = f"the command of the setting credentials for {host(url)}"
    hint = "Run it yourself: it prints a token, or user and password on two lines, or a JSON object with them."
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise CredentialsFailed(f"{what} is not a command: {error}", hint=hint) from error
    try:
        done = command.run(words, environment=askers.environ, limits=_LIMITS)
    except ToolMissing as error:
        raise CredentialsFailed(f"{what}: there is no program {words[0]}", hint=hint) from error
    if done.code != 0 or done.ended != "exit":
        # Its words are not repeated: they may hold what it failed to hand over.
        how = f"ended with {done.code}" if done.ended == "exit" else f"gave no answer in {_LIMITS.total:.0f} s"
        raise CredentialsFailed(f"{what} ({words[0]}) {how}", hint=hint)
    found = _answer(done.stdout.strip(), user)
    if found is None:
        raise CredentialsFailed(f"{what} ({words[0]}) printed no password", hint=hint)
    return found


def _answer(said: str, user: str) -> Login | None:
    if said.startswith("{"):
        return _json(said, user)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if len(lines) == 1:
        return Login(user or TOKEN_USER, lines[0], "command")
    return Login(lines[0], lines[1], "command") if len(lines) == 2 else None


def _json(said: str, user: str) -> Login | None:
    try:
        told = json.loads(said)
        password = told.get("token") or told.get("password")
        expires = told.get("expires")
        ends = datetime.fromisoformat(expires).timestamp() if expires else None
    except (ValueError, TypeError, AttributeError):
        return None
    if not isinstance(password, str):
        return None
    return Login(str(told.get("user") or user or TOKEN_USER), password, "command", ends)


def _of_keyring(askers: Askers, services: Sequence[str], user: str) -> Login | None:
    """What the keyring holds for the first of ``services`` that it knows."""
    program = shutil.which("keyring", path=askers.environ.get("PATH", os.defpath))
    if program is None:
        message = "the keyring is to be asked for passwords, and there is no program `keyring` on PATH"
        raise CredentialsFailed(message, hint="Install it with `pip install keyring`, or set keyring to never.")
    for words in _keyring_words(services, user):
        done = command.run([program, *words], environment=askers.environ, limits=_LIMITS)
        said = done.stdout.rstrip("\r\n").splitlines() if done.code == 0 else []
        if user and len(said) == 1 and said[0]:
            return Login(user, said[0], "keyring")
        if not user and len(said) == 2:
            return Login(said[0], said[1], "keyring")
    return None


def _keyring_words(services: Sequence[str], user: str) -> Iterator[list[str]]:
    for service in services:
        yield ["get", service, user] if user else ["--mode", "creds", "get", service]
