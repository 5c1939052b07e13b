"""How requests to channels are made: which are asked, whose login is sent, whose certificates count."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flowkiln.envs import authorities, condaspec, credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from flowkiln.envs.channels import Channel, ChannelPlan

_CERTIFICATES = threading.Lock()


def directed(plan: ChannelPlan, specs: Sequence[str]) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """The channels to ask, those that only a match spec names last, and the specs with their channels as URLs."""
    channels = {channel.shown: channel for channel in plan.channels}
    directed = []
    for spec in specs:
        name = condaspec.channel_of(spec)
        if name is None:
            directed.append(spec)
            continue
        channel = plan.named(name)
        channels.setdefault(channel.shown, channel)
        directed.append(condaspec.in_channel(spec, channel.shown))
    return tuple(channels.values()), tuple(directed)


@contextlib.contextmanager
def certificates(environ: Mapping[str, str]) -> Iterator[None]:
    """The process's variables name the certificates of ``environ``, and no others, while this is open.

    rattler's TLS reads them there, once, when a client is made.
    """
    with _CERTIFICATES:
        before = {name: os.environ.get(name) for name in authorities.NATIVE}
        try:
            _set({**dict.fromkeys(authorities.NATIVE), **authorities.variables(environ)})
            yield
        finally:
            _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value


def headers(
    host: str, path: str, logins: Mapping[str, tuple[str, str] | None], netrc: Path | None
) -> dict[str, str] | None:
    """The header with user and password for a request, None where nobody logs in.

    The login is that of the channel among ``logins`` that the request belongs to, else netrc's. This is called on
    the way of a request: no command is run and no keyring asked.
    """
    login = _login(host, path, logins, netrc)
    if login is None:
        return None
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def _login(
    host: str, path: str, logins: Mapping[str, tuple[str, str] | None], netrc: Path | None
) -> tuple[str, str] | None:
    for url, login in logins.items():
        parts = urlsplit(url)
        if parts.hostname == host and path.startswith(f"{parts.path.rstrip('/')}/"):
            return login
    found = credentials.of_netrc(f"https://{host}/", netrc)
    return found.pair if found else None


def plain(url: str) -> str:
    """``url`` without user and password, its token kept."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
