"""Which conda channels are asked: the one table of precedence, names as URLs, credentials apart from them.

decorator or file > ``channels`` of the settings > ``CONDA_CHANNELS`` > ``.condarc`` > ``conda-forge``. The first
place that names any is a complete list, best first. Priority is strict: a package comes from the first channel that
has it. A name becomes a URL as the machine's ``.condarc`` says, by ``custom_channels`` or ``channel_alias``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowkiln._base import redact
from flowkiln.envs import condarc, credentials
from flowkiln.envs.credentials import Askers, Logins
from flowkiln.envs.errors import UnknownOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowkiln._base.settings import Settings
    from flowkiln.envs.condarc import Condarc
    from flowkiln.envs.spec import EnvSpec

ALIAS = "https://conda.anaconda.org"
DEFAULT = "conda-forge"
DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""What ``defaults`` stands for where ``.condarc`` says nothing else."""

_TOKEN = re.compile(r"(?<=/)t/[^/]+/")
_VARIABLES = ("CONDA_CHANNEL_PRIORITY", "CONDA_PINNED_PACKAGES", "CONDA_REPODATA_FNS", "CONDA_USE_ONLY_TAR_BZ2")
"""Variables of conda that would change what is chosen, and that have no effect here."""


def bare(url: str) -> str:
    """``url`` without user, password and token path: what locks and messages contain."""
    return _TOKEN.sub("", redact.url(url)).rstrip("/")


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel: its URL, credentials and token included, where it was named, and by which name.

    ``mirrors`` are URLs that are asked in its place, best first; the channel's own URL is among them if at all.
    """

    url: str = field(repr=False)
    origin: str
    name: str
    mirrors: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The URL without credentials."""
        return bare(self.url)

    @property
    def asked(self) -> tuple[str, ...]:
        """The URLs that are asked, credentials included, best first."""
        return self.mirrors or (self.url,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlan(Logins):
    """The channels that a solve asks, best first.

    ``ignored`` names settings of conda that are set and have no effect here; ``netrc`` is the file of credentials
    by host, ``askers`` are whom to ask for those that stand nowhere.
    """

    channels: tuple[Channel, ...]
    ignored: tuple[str, ...] = ()
    netrc: Path | None = None
    askers: Askers = field(default_factory=Askers)
    rules: Rules = field(default_factory=lambda: Rules(condarc.Condarc(), {}), repr=False, compare=False)

    @property
    def shown(self) -> str:
        """The channels in one line, without credentials."""
        return ", ".join(channel.shown for channel in self.channels)

    def named(self, name: str) -> Channel:
        """The channel that a match spec names: one of these, else one more. Raises ``UnknownOption``."""
        found = self.rules.channels(name, "match spec")
        if len(found) != 1:
            raise UnknownOption(f"{name!r} is several channels", hint="Name one of them in the match spec.")
        return next((channel for channel in self.channels if channel.shown == found[0].shown), found[0])

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs that are asked, users and passwords included, without tokens."""
        return tuple(_TOKEN.sub("", asked) for channel in self.channels for asked in channel.asked)

    def covers(self, url: str) -> bool:
        """Whether ``url`` is in one of the channels or of their mirrors."""
        return any(f"{bare(url)}/".startswith(f"{bare(address)}/") for address in self.addresses)

    def source(self, url: str) -> str:
        """Where a package with the URL ``url`` of a lock is fetched: at the first mirror, with its token."""
        for channel in self.channels:
            if url.startswith(f"{channel.shown}/"):
                return channel.asked[0].rstrip("/") + url.removeprefix(channel.shown)
        return url


class Rules:
    """How names of channels become channels, by the settings of a machine."""

    def __init__(self, settings: Condarc, environ: Mapping[str, str]) -> None:
        alias, _ = settings.texts.get("channel_alias", (ALIAS, ""))
        self._alias = _checked((environ.get("CONDA_CHANNEL_ALIAS") or alias).rstrip("/"), "channel_alias")
        self._settings = settings

    def channels(self, text: str, origin: str) -> list[Channel]:
        """What ``text`` stands for: one channel, or the several of a multichannel."""
        name = text.strip().rstrip("/")
        if not name or re.search(r"[\s\[\]]|^[^:]*:$|^[^/:]+:(?!//)", name):
            raise UnknownOption(f"{bare(text)!r} ({origin}) is not a conda channel", hint=_HINT)
        if name == "nodefaults":  # what conda writes against channels of its own, of which there are none here
            return []
        several = self._several(name)
        if several is not None:
            return [channel for one in several for channel in self._one(one, origin)]
        return self._one(name, origin)

    def _several(self, name: str) -> list[str] | None:
        told = self._settings.tables.get("custom_multichannels", {}).get(name)
        if told is not None:
            return list(told[0])
        if name != "defaults":
            return None
        listed = [entry for entry, _ in self._settings.lists.get("default_channels", [])]
        return listed or list(DEFAULTS)

    def _one(self, name: str, origin: str) -> list[Channel]:
        url = self._url(name, origin)
        mirrors = self._settings.tables.get("mirrored_channels", {}).get(name)
        asked = tuple(_checked(one, f"mirror of {name}") for one in mirrors[0]) if mirrors else ()
        return [Channel(url, origin, bare(name), asked)]

    def _url(self, name: str, origin: str) -> str:
        if "://" in name:
            return _checked(name, origin)
        if name.startswith(("/", "./", "../", "~")):
            return Path(name).expanduser().absolute().as_uri()
        custom: Mapping[str, tuple[Any, str]] = self._settings.tables.get("custom_channels", {})
        for known in sorted(custom, key=len, reverse=True):
            if name == known or name.startswith(f"{known}/"):
                return _checked(f"{custom[known][0][0].rstrip('/')}/{name}", origin)
        return _checked(f"{self._alias}/{name}", origin)


_HINT = "Write a name as `conda-forge`, or an http, https or file URL."


def _checked(url: str, origin: str) -> str:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in {"http", "https", "file"} or (parts.scheme != "file" and not parts.hostname):
        raise UnknownOption(f"{bare(url)!r} ({origin}) is not the URL of a conda channel", hint=_HINT)
    return parts.geturl()


def plan(
    declared: Sequence[str] = (),
    settings: Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    keyring: str | None = None,
    commands: Mapping[str, str] | None = None,
) -> ChannelPlan:
    """The channels to ask, by the table of precedence. Raises ``UnknownOption`` for what is no channel.

    ``keyring`` is the setting of that name, ``commands`` those that print passwords, by host.
    """
    environ = os.environ if environ is None else environ
    told = condarc.read(environ)
    rules = Rules(told, environ)
    found: dict[str, Channel] = {}
    for name, origin in _named(declared, settings, environ, told):
        for channel in rules.channels(name, origin):
            found.setdefault(channel.shown, channel)
    return ChannelPlan(
        channels=tuple(found.values()),
        ignored=(*(name for name in _VARIABLES if _changes(name, environ.get(name, ""))), *told.ignored),
        netrc=Path(environ.get("NETRC") or Path(environ.get("HOME", "/nonexistent")) / ".netrc"),
        askers=Askers(commands=commands or {}, keyring=credentials.by_keyring(keyring, environ), environ=environ),
        rules=rules,
    )


def plan_of(settings: Settings, spec: EnvSpec | None = None) -> ChannelPlan:
    """The channels to ask for the request ``spec``, or for any, as the settings say."""
    return plan(
        spec.channels if spec is not None else (),
        settings.items("channels") or (),
        keyring=settings.text("keyring"),
        commands=settings.pairs("credentials"),
    )


def _named(
    declared: Sequence[str], settings: Sequence[str], environ: Mapping[str, str], told: Condarc
) -> Iterator[tuple[str, str]]:
    """The names of the first place that has any, with that place."""
    variable = [name for name in re.split(r"[,\s]+", environ.get("CONDA_CHANNELS", "")) if name]
    for listed, origin in (
        (declared, "environment"),
        (settings, "setting channels"),
        (variable, "CONDA_CHANNELS"),
    ):
        if listed:
            yield from ((name, origin) for name in listed)
            return
    yield from told.lists.get("channels") or [(DEFAULT, "default")]


def _changes(name: str, value: str) -> bool:
    return bool(value) and not (name == "CONDA_CHANNEL_PRIORITY" and value.lower() == "strict")
