"""Logins of channels: from commands and the keyring, as indexes have them, and renewed once when refused."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import settings as settings_module
from flowkiln.envs import channels, condaaccess
from flowkiln.envs.artefact import Artefact
from flowkiln.envs.condaerrors import ChannelDenied
from flowkiln.envs.condaquestion import CondaSolver
from flowkiln.envs.condasolve import ask
from flowkiln.envs.errors import CredentialsFailed
from flowkiln.wiring.trees import Host
from tests.envs.condasolving import chosen, conda_solver, made, question
from tests.envs.test_credentials import FIRST, SECOND, Teller
from tests.services import canary
from tests.services.condacases import dist_info
from tests.services.condapackages import package

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln.envs.condaquestion import CondaAnswer
    from tests.services.channel import Channel, ChannelServer
    from tests.services.home import Home


@pytest.fixture
def teller(home: Home) -> Teller:
    return Teller(home)


@pytest.fixture
def keyring(home: Home, monkeypatch: pytest.MonkeyPatch) -> Teller:
    told = Teller(home, "keyring")
    monkeypatch.setenv("PATH", f"{told.program.parent}{os.pathsep}{os.environ['PATH']}")
    return told


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    channel = made(tmp_path / "channel", ("leaf", "1.0"))
    package(channel.folder, "inside", files=dist_info("site-packages", "inside", "1.0"), depends=["python"])
    return channel.index()


def solved(url: str, teller: Teller | None = None, keyring: str | None = None) -> CondaAnswer:
    return ask(solver(url, teller, keyring), question("inside"))


def solver(url: str, teller: Teller | None = None, keyring: str | None = None, **options: bool) -> CondaSolver:
    commands = {url.partition("//")[2].rpartition("@")[2].partition("/")[0]: str(teller.program)} if teller else {}
    return replace(conda_solver(url, **options), plan=channels.plan([url], keyring=keyring, commands=commands))


def test_a_command_gives_the_password_of_a_channel(
    channel: Channel, channel_server: ChannelServer, teller: Teller, home: Home
) -> None:
    url = channel_server.mount("main", channel)
    channel_server.require("ann", FIRST)
    teller.tell(f"ann\n{FIRST}")
    answer = solved(url, teller)
    assert chosen(answer) == {"inside": "1.0"}
    assert answer.packages[0].provides == (("inside", "1.0"),)
    assert len(teller.calls) == 1
    teller.words.unlink()
    assert canary.find(FIRST, home.root) == []


def test_a_password_that_is_refused_is_asked_for_once_more(
    channel: Channel, channel_server: ChannelServer, teller: Teller
) -> None:
    url = channel_server.mount("main", channel)
    channel_server.require("ann", FIRST)
    teller.tell(f"ann\n{FIRST}")
    solved(url, teller)
    channel_server.expire()
    channel_server.require("ann", SECOND)
    teller.tell(f"ann\n{SECOND}")
    assert chosen(solved(url, teller)) == {"inside": "1.0"}
    assert len(teller.calls) == 2
    channel_server.expire()
    with pytest.raises(ChannelDenied) as caught:
        solved(url, teller)
    assert (len(teller.calls), "credentials" in str(caught.value.hint)) == (3, True)


def test_the_keyring_is_asked_by_channel_and_host_for_the_user_of_its_url(
    channel: Channel, channel_server: ChannelServer, keyring: Teller
) -> None:
    channel_server.mount("main", channel)
    channel_server.require("ann", FIRST)
    keyring.tell(FIRST)
    told = channel_server.url_of("main").replace("//", "//ann@")
    with pytest.raises(ChannelDenied):
        solved(told)
    assert keyring.calls == []
    assert chosen(solved(told, keyring="subprocess")) == {"inside": "1.0"}
    assert keyring.calls == [f"get {channel_server.url_of('main')} ann"]


def test_the_keyring_is_asked_without_a_user_after_a_refusal(
    channel: Channel, channel_server: ChannelServer, keyring: Teller
) -> None:
    url = channel_server.mount("main", channel)
    assert chosen(solved(url, keyring="subprocess")) == {"inside": "1.0"}
    assert keyring.calls == []
    channel_server.require("ann", FIRST)
    keyring.tell(f"ann\n{FIRST}")
    assert chosen(solved(url, keyring="subprocess")) == {"inside": "1.0"}
    assert keyring.calls == [f"--mode creds get {url}"]


def test_the_keyring_is_not_told_of_a_token(
    channel: Channel, channel_server: ChannelServer, keyring: Teller
) -> None:
    channel_server.mount("main", channel)
    channel_server.require_token(SECOND)
    keyring.tell(FIRST)
    told = channel_server.url_with_token(SECOND, "main").replace("//", "//ann@")
    assert chosen(solved(told, keyring="subprocess")) == {"inside": "1.0"}
    assert keyring.calls == [f"get {channel_server.url_of('main')} ann"]


def test_a_command_that_fails_is_told_and_offline_none_is_asked(
    channel: Channel, channel_server: ChannelServer, teller: Teller
) -> None:
    url = channel_server.mount("main", channel)
    teller.tell("")
    with pytest.raises(CredentialsFailed, match="ended with 1"):
        solved(url, teller)
    asked = len(teller.calls)
    ask(conda_solver(url), question("leaf"))
    ask(solver(url, teller, offline=True), question("leaf"))
    assert len(teller.calls) == asked


def test_downloads_from_a_channel_have_its_login(
    channel: Channel, channel_server: ChannelServer, teller: Teller, home: Home, tmp_path: Path
) -> None:
    url = channel_server.mount("main", channel)
    channel_server.require("ann", FIRST)
    (leaf,) = (one for one in ask_freely(channel).packages if one.name == "leaf")
    host = channel_server.base.partition("//")[2]
    environ = {"FLOWKILN_CHANNELS": url, "FLOWKILN_CREDENTIALS": f"{host}={teller.program}"}
    fetcher = Host(settings_module.load(home.work, environ=environ)).fetcher()
    teller.tell(f"ann\n{SECOND}")  # not any more
    assert fetcher is not None
    place = Artefact(name="leaf", url=f"{url}/noarch/{leaf.filename}", sha256=leaf.sha256, size=leaf.size)
    try:
        with pytest.raises(Exception, match="401"):
            fetcher.fetch(place, tmp_path)
        teller.tell(f"ann\n{FIRST}")
        assert fetcher.fetch(place, tmp_path).read_bytes() == channel.find("leaf").read_bytes()
    finally:
        fetcher.close()


def ask_freely(channel: Channel) -> CondaAnswer:
    return ask(conda_solver(channel.url), question("leaf"))


def test_a_login_goes_to_its_channel_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine other.example login bob password {SECOND}\n")
    logins = {"https://one.example/t/tok/main": ("ann", FIRST), "https://two.example/free": None}

    def header(host: str, path: str) -> dict[str, str] | None:
        return condaaccess.headers(host, path, logins, tmp_path / "netrc")

    assert header("one.example", "/t/tok/main/noarch/repodata.json") is not None
    for host, path in (
        ("one.example", "/t/tok/mainly/noarch/repodata.json"),
        ("two.example", "/free/x"),
        ("three.example", "/x"),
    ):
        assert header(host, path) is None
    assert header("other.example", "/x") is not None
