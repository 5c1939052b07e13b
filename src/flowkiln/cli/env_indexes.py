"""``flowkiln env indexes``: the indexes and channels that an environment comes from, and who logs in there."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from flowkiln._base import paths, redact
from flowkiln._base.errors import ExitCode, FlowkilnError
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln._base.settings import Settings
    from flowkiln.cli.output import Session
    from flowkiln.envs.channels import ChannelPlan
    from flowkiln.envs.indexes import Index, IndexPlan
    from flowkiln.envs.spec import EnvSpec
    from flowkiln.envs.transport import Transport
    from flowkiln.wiring.locks import Request

CHANNEL = "channel"
"""The kind of place that conda packages come from."""
_REPODATA = "noarch/repodata.json"
_NAMED = 3
"""Packages of a pinned index that are named in the table; the --json output names all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A source of packages as it is shown, without secrets: its kind, address, origin and how it is reached.

    ``login`` says who logs in and who gave the password, None for nobody. ``problem`` is None where it answers or
    was not asked.
    """

    kind: str
    url: str
    origin: str
    login: str | None
    certificates: str | None
    proxy: str | None
    problem: str | None = None
    packages: tuple[str, ...] = ()
    """Those that it is asked for, alone; empty where it is asked for all others."""

    def to_json(self) -> JSONObject:
        """The place as the --json output shows it."""
        return {
            "kind": self.kind,
            "url": self.url,
            "origin": self.origin,
            "login": self.login,
            "certificates": self.certificates,
            "proxy": self.proxy,
            "packages": list(self.packages),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """An environment with its places; ``name`` is None for the settings of a folder without one."""

    name: str | None
    places: tuple[Place, ...]
    refused: tuple[str, ...]
    ignored: tuple[str, ...]


@verb("indexes", example="flowkiln env indexes flow.py\nflowkiln env indexes --check")
@click.argument("envs", nargs=-1)
@click.option("--check", is_flag=True, help="Ask each: whether it answers and takes the login.")
@click.pass_context
def indexes(context: click.Context, *, envs: tuple[str, ...], check: bool) -> int:
    """Show the indexes and conda channels of ENVS, in order: whose settings name each, who logs in.

    Without ENVS, those of the nearest pyproject.toml, else of the settings here.
    """
    speaker = session(context)
    asked = check and not speaker.own_settings().flag("offline")
    found = [_of(one, speaker, asked=asked) for one in _requests(envs, speaker)] or [_here(speaker, asked=asked)]
    lines = [*_table(found, asked=asked), *_settings(found)]
    lines += ["not asked: offline"] if check and not asked else []
    speaker.result({"environments": [_document(one, asked=asked) for one in found]}, lines)
    failed = any(place.problem for one in found for place in one.places)
    return ExitCode.SERVICE if failed else ExitCode.OK


def described(plan: IndexPlan, channels: Sequence[Place] = ()) -> tuple[Place, ...]:
    """The places that an environment's packages come from: its channels, solved first, then its indexes."""

    def place(index: Index, *packages: str) -> Place:
        giver = plan.giver(index.url)
        return _place("index", index.shown, index.origin, str(giver) if giver else None, packages)

    pinned: dict[str, list[str]] = {}
    for name, index in plan.pins:
        pinned.setdefault(index.shown, []).append(name)
    known = {index.shown: index for _, index in plan.pins}
    alone = [place(known[url], *names) for url, names in sorted(pinned.items())]
    return (*channels, *map(place, plan.indexes), *alone)


def channels_of(plan: ChannelPlan) -> tuple[Place, ...]:
    """The channels of an environment, those that are asked first before the others; mirrors in their place."""
    from flowkiln.envs.channels import bare

    found = []
    for channel in plan.channels:
        for asked in channel.asked:
            url, giver = bare(asked), plan.giver(asked)
            token = "/t/" in asked and "/t/" not in url
            who = "token in its URL" if token else str(giver) if giver else None
            found.append(_place(CHANNEL, url, channel.origin, who))
    return tuple(found)


def _asked(plan: ChannelPlan) -> Iterator[tuple[str, str | None]]:
    """Each address of the channels, without secrets, and why it cannot be used; None where it answers."""
    from flowkiln.envs.channels import bare
    from flowkiln.envs.transport import Network, Transport

    transport = Transport(Network(stall=10.0, credentials=plan.credentials, renew=plan.renew), connections=1)
    try:
        for address in dict.fromkeys(asked for channel in plan.channels for asked in channel.asked):
            yield bare(address), _problem(address.rstrip("/"), transport)
    finally:
        transport.close()


def _problem(address: str, transport: Transport) -> str | None:
    """Why the channel at ``address`` cannot be used; every channel has a folder for all platforms."""
    from flowkiln.envs.channels import bare

    missing = f"there is no conda channel {bare(address)} (it has no {_REPODATA})"
    if address.startswith("file:"):
        return None if Path(unquote(urlsplit(address).path), _REPODATA).is_file() else missing
    try:
        status, _ = transport.page(f"{address}/{_REPODATA}", {"Range": "bytes=0-0"}, 1)
    except FlowkilnError as error:
        return f"{bare(address)}: {error.message}"
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return missing
    return f"{bare(address)} answers {status}" if status >= HTTPStatus.BAD_REQUEST else None


def _place(kind: str, url: str, origin: str, login: str | None, packages: tuple[str, ...] = ()) -> Place:
    """A source of packages with the certificates and the proxy that it is reached by."""
    from flowkiln.envs import authorities
    from flowkiln.envs.transport import proxy

    certificates = authorities.named(dict(os.environ)) or os.environ.get("SSL_CERT_DIR")
    through = proxy(url)
    return Place(
        kind=kind,
        url=url,
        origin=origin,
        login=login,
        certificates=certificates if url.startswith("https:") else None,
        proxy=redact.text(through) if through else None,
        packages=packages,
    )


def _requests(envs: tuple[str, ...], speaker: Session) -> list[Request]:
    from flowkiln.cli import environments

    if not envs and paths.nearest_pyproject(Path.cwd()) is None:
        return []
    default = str(paths.nearest_pyproject(Path.cwd()))
    return [one for text in envs or (default,) for one in environments.requested(text, speaker)]


def _of(request: Request, speaker: Session, *, asked: bool) -> _Shown:
    settings = speaker.settings(request.declared.parent)
    return _shown(request.name, request.spec, settings, asked=asked)


def _here(speaker: Session, *, asked: bool) -> _Shown:
    return _shown(None, None, speaker.own_settings(), asked=asked)


def _shown(name: str | None, spec: EnvSpec | None, settings: Settings, *, asked: bool) -> _Shown:
    from flowkiln.cli import doctor
    from flowkiln.envs import channels
    from flowkiln.envs import indexes as table_of_precedence

    plan = table_of_precedence.plan_of(settings, spec)
    conda = channels.plan_of(settings, spec) if spec and spec.conda else None
    places = described(plan, () if conda is None else channels_of(conda))
    if asked:
        problems = {("index", index.shown): doctor.asked(index, plan)[0] for index in plan.everywhere}
        problems |= {(CHANNEL, url): why for url, why in (_asked(conda) if conda is not None else ())}
        places = tuple(replace(one, problem=problems.get((one.kind, one.url))) for one in places)
    refused = tuple(map(str, plan.refused))
    ignored = (*plan.ignored, *(conda.ignored if conda is not None else ()))
    return _Shown(name=name, places=places, refused=refused, ignored=ignored)


def _table(found: list[_Shown], *, asked: bool) -> list[str]:
    heads = ["ENVIRONMENT", "INDEX", "FROM", "LOGIN", "CERTIFICATES", "PROXY", "FOR", *(["STATE"] if asked else [])]
    rows = [
        [
            *(one.name or "-", place.url, place.origin, place.login or "-"),
            *(place.certificates or "system" if place.url.startswith("https:") else "-", place.proxy or "-"),
            _packages(place),
            *([place.problem or "answers"] if asked else []),
        ]
        for one in found
        for place in one.places
    ]
    return table(heads, rows)


def _packages(place: Place) -> str:
    if place.kind == CHANNEL:
        return "conda packages"
    first, rest = place.packages[:_NAMED], place.packages[_NAMED:]
    return ", ".join([*first, *([f"{len(rest)} more"] if rest else [])]) or "all others"


def _settings(found: list[_Shown]) -> list[str]:
    refused = dict.fromkeys(text for one in found for text in one.refused)
    ignored = dict.fromkeys(text for one in found for text in one.ignored)
    lines = [f"set, and locking refuses: {text}" for text in refused]
    return lines + ([f"set, and without effect here: {', '.join(ignored)}"] if ignored else [])


def _document(one: _Shown, *, asked: bool) -> JSONObject:
    places: list[JSONObject] = []
    for place in one.places:
        state: JSONObject = {"answers": place.problem is None, "problem": place.problem} if asked else {}
        places.append({**place.to_json(), **state})
    return {"name": one.name, "places": places, "refused": list(one.refused), "ignored": list(one.ignored)}
