"""``flowkiln env indexes``: the order that locking asks in, its origins, and no secret in what is shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.declaring import answer, flow, run
from tests.services.channel import Channel
from tests.services.index import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.channel import ChannelServer
    from tests.services.home import Home
    from tests.services.index import PackageIndex

CANARY = "CANARY123"
PACKAGES = "{'alpha': '1.0'}"


def places(found: Any) -> list[dict[str, Any]]:
    (one,) = found["environments"]
    listed: list[dict[str, Any]] = one["places"]
    return listed


def test_each_environment_has_its_indexes_in_order_with_their_origin(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://default.example/simple")
    pyproject = folder / "pyproject.toml"
    own = 'packages = ["alpha"]\nindexes = ["https://own.example/simple", "default", "pypi"]\n'
    plain = "[tool.flowkiln.envs.plain]\npackages = ['alpha']\n"
    pyproject.write_text(f"{pyproject.read_text()}\n{plain}[tool.flowkiln.envs.own]\n{own}")
    monkeypatch.chdir(folder)
    found = {one["name"]: one["places"] for one in answer(capsys, "env", "indexes")["environments"]}
    shown = {name: [(one["url"], one["origin"]) for one in listed] for name, listed in found.items()}
    assert shown == {
        "plain": [(index.url.rstrip("/"), "setting indexes")],
        "own": [
            ("https://own.example/simple", "environment"),
            ("https://default.example/simple", "UV_DEFAULT_INDEX"),
            ("https://pypi.org/simple", "environment"),
        ],
    }


def test_without_a_project_the_settings_here_are_shown(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.work)
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("PIP_PROXY", "http://p:1")
    found = answer(capsys, "env", "indexes")
    assert [one["url"] for one in places(found)] == ["https://pypi.org/simple"]
    assert found["environments"][0]["refused"] == ["UV_RESOLUTION = lowest (environment variable)"]
    assert "PIP_PROXY" in found["environments"][0]["ignored"]
    assert run("env", "indexes") == 0
    assert "locking refuses: UV_RESOLUTION" in capsys.readouterr().out


def test_user_certificates_and_proxy_are_shown_and_no_secret(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.work)
    netrc = home.home / ".netrc"
    netrc.write_text(f"machine net.example login bob password {CANARY}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("FLOWKILN_INDEXES", f"https://ann:{CANARY}@url.example/simple https://net.example/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"https://{CANARY}@token.example/simple")
    monkeypatch.setenv("https_proxy", f"http://me:{CANARY}@proxy.example:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/company.pem")
    assert run("env", "indexes") == 0
    said = capsys.readouterr()
    assert CANARY not in said.out + said.err
    found = places(answer(capsys, "env", "indexes"))
    assert CANARY not in json.dumps(found)
    assert [one["login"] for one in found] == ["ann (url)", "bob (netrc)"]
    assert {one["certificates"] for one in found} == {"/company.pem"}
    assert {one["proxy"] for one in found} == {"http://***@proxy.example:3128"}
    monkeypatch.delenv("FLOWKILN_INDEXES")
    assert [one["login"] for one in places(answer(capsys, "env", "indexes"))] == ["*** (url)"]


def test_check_asks_each_and_says_whether_the_login_is_taken(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{flow(folder, PACKAGES)}:start"
    found = places(answer(capsys, "env", "indexes", target, "--check"))
    assert [(one["answers"], one["problem"]) for one in found] == [(True, None)]
    index.require("ann", CANARY)
    assert run("env", "indexes", target, "--check") == 5
    assert "answers 401" in capsys.readouterr().out
    monkeypatch.setenv("FLOWKILN_INDEXES", index.url_with("ann", CANARY))
    assert places(answer(capsys, "env", "indexes", target, "--check"))[0]["answers"] is True
    index.forget_requests()
    assert run("env", "indexes", target, "--check", "--offline") == 0
    assert index.total == 0
    assert "not asked" in capsys.readouterr().out


def test_a_pinned_package_has_its_index(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    target = flow(
        folder, "{'alpha': '1.0', 'torch': {'index': 'https://torch.example/whl'}, 'b': {'index': 'pypi'}}"
    )
    found = [(one["url"], one["packages"]) for one in places(answer(capsys, "env", "indexes", f"{target}:start"))]
    assert found == [
        (index.url.rstrip("/"), []),
        ("https://pypi.org/simple", ["b"]),
        ("https://torch.example/whl", ["torch"]),
    ]


def test_a_variant_has_its_index_for_the_packages_that_it_concerns(
    folder: Path, index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    target = flow(folder, "{'torch': '2.*', 'triton': {'index': 'pypi'}}, cuda='12.4'")
    found = places(answer(capsys, "env", "indexes", f"{target}:start"))
    assert [(one["url"], one["origin"]) for one in found] == [
        (index.url.rstrip("/"), "setting indexes"),
        ("https://download.pytorch.org/whl/cu124", "cuda"),
        ("https://pypi.org/simple", "environment"),
    ]
    assert found[2]["packages"] == ["triton"]
    assert "torch" in found[1]["packages"]
    assert "triton" not in found[1]["packages"]
    assert run("env", "indexes", f"{target}:start") == 0
    assert re.search(r"cu124 +cuda .*pytorch-triton, \S+, \d+ more", capsys.readouterr().out)


def test_commands_and_the_keyring_are_named_and_not_asked(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.work)
    monkeypatch.setenv("FLOWKILN_CREDENTIALS", "asked.example=nonesuch --print")
    monkeypatch.setenv("FLOWKILN_KEYRING", "subprocess")
    monkeypatch.setenv("PATH", str(home.work))
    monkeypatch.setenv("FLOWKILN_INDEXES", "https://asked.example/simple https://ann@kept.example/simple")
    found = places(answer(capsys, "env", "indexes"))
    assert [one["login"] for one in found] == ["*** (command)", "ann (keyring)"]


@pytest.fixture
def channels(
    channel_server: ChannelServer, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ChannelServer:
    """A server of the channels that an environment of the project names; ``absent`` and a folder are not there."""
    channel = Channel(tmp_path / "channel").index()
    urls = [channel_server.mount(name, channel) for name in ("open", "closed", "kept")]
    urls += [f"{channel_server.base}/absent", channel.url, (tmp_path / "none").as_uri()]
    pyproject = folder / "pyproject.toml"
    declared = f"[tool.flowkiln.envs.own]\nconda = ['alpha']\nchannels = {urls}\n"
    pyproject.write_text(f"{pyproject.read_text()}\n{declared}")
    monkeypatch.chdir(folder)
    return channel_server


def test_check_asks_channels_too(channels: ChannelServer, capsys: pytest.CaptureFixture[str]) -> None:
    channels.fault("/closed/noarch/repodata.json", Fault(status=403), on="repodata")
    channels.fault("/kept/noarch/repodata.json", Fault(status=503), on="repodata")
    capsys.readouterr()
    assert run("env", "indexes", "--check", "--json") == 5
    found = [one for one in places(json.loads(capsys.readouterr().out)) if one["kind"] == "channel"]
    said = [None if one["answers"] else re.sub(r".*(there is no|answers)", r"\1", one["problem"]) for one in found]
    absent = f"there is no conda channel {channels.base}/absent (it has no noarch/repodata.json)"
    assert said[:5] == [None, "answers 403", "answers 503", absent, None]
    assert str(said[5]).startswith("there is no conda channel file:///")
    assert run("env", "indexes", "--check") == 5
    shown = capsys.readouterr().out
    assert "not asked" not in shown
    assert f"{channels.base}/closed answers 403" in shown


def test_check_logs_in_to_channels_as_locking_does(
    channels: ChannelServer, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    channels.require("ann", CANARY)
    teller = home.work / "teller"
    teller.write_text(f"#!/bin/sh\necho ann\necho {CANARY}\n")
    teller.chmod(0o755)
    assert run("env", "indexes", "--check") == 5
    assert f"{channels.base}/open answers 401" in capsys.readouterr().out
    monkeypatch.setenv("FLOWKILN_CREDENTIALS", f"127.0.0.1={teller}")
    run("env", "indexes", "--check", "--json")
    said = capsys.readouterr().out
    found = [one for one in places(json.loads(said)) if one["kind"] == "channel"]
    assert [one["answers"] for one in found] == [True, True, True, False, True, False]
    assert found[0]["login"] == "*** (command)"
    assert CANARY not in said
