"""Who may log in where: from URLs, then netrc. Asked for at the moment of a request, never written anywhere."""

from __future__ import annotations

import netrc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, and who gave them: ``url``, ``netrc``."""

    user: str
    password: str = field(repr=False)
    origin: str

    @property
    def pair(self) -> tuple[str, str]:
        """User name and password."""
        return self.user, self.password


def host(url: str) -> str:
    """The host of ``url`` with its port, without credentials."""
    return urlsplit(url).netloc.rpartition("@")[2]


def of_urls(url: str, others: Iterable[str]) -> Login | None:
    """What ``url`` holds itself, else what one of ``others`` on its host holds."""
    for candidate in (url, *others):
        parts = urlsplit(candidate)
        if host(candidate) == host(url) and (parts.username or parts.password):
            return Login(unquote(parts.username or ""), unquote(parts.password or ""), "url")
    return None


def of_netrc(url: str, path: Path | None) -> Login | None:
    """What the netrc file at ``path`` holds for the host of ``url``; one that cannot be read holds nothing."""
    if path is None:
        return None
    try:
        found = netrc.netrc(path).authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    return Login(found[0], found[2] or "", "netrc") if found else None
