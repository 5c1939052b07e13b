"""Logins from commands and the keyring: the same for uv and for downloads, renewed once when refused."""

from __future__ import annotations

import base64
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import paths
from flowkiln.envs import indexes
from flowkiln.envs.artefact import Artefact
from flowkiln.envs.errors import CredentialsFailed, IndexDenied
from flowkiln.envs.fetch import Fetcher, Network
from flowkiln.envs.installerrors import DownloadRefused
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.locking import lock, request, solver, versions
from tests.services import canary
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.envs.indexes import IndexPlan
    from flowkiln.envs.uv import Solver
    from tests.services.home import Home
    from tests.services.index import PackageIndex

FIRST, SECOND = "CANARYfirst", "CANARYsecond"


class Teller:
    """A program that prints what its file holds, and how often and with what arguments it was started."""

    def __init__(self, home: Home, name: str = "teller") -> None:
        self.program = home.work / "bin" / name
        self.words = home.work / f"{name}.words"
        self._calls = home.work / f"{name}.calls"
        self.program.parent.mkdir(exist_ok=True)
        script = f"import sys; open({str(self._calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        script += f"said = open({str(self.words)!r}).read(); print(said); sys.exit(not said)"
        self.program.write_text(f"#!{sys.executable} -IS\n{script}\n")
        self.program.chmod(0o755)

    def tell(self, text: str) -> None:
        self.words.write_text(text)

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def teller(home: Home) -> Teller:
    return Teller(home)


@pytest.fixture
def keyring(home: Home, monkeypatch: pytest.MonkeyPatch) -> Teller:
    made = Teller(home, "keyring")
    monkeypatch.setenv("PATH", f"{made.program.parent}{os.pathsep}{os.environ['PATH']}")
    return made


def plan(url: str, teller: Teller | None = None, keyring: str | None = None) -> IndexPlan:
    commands = {"127.0.0.1": str(teller.program)} if teller else {}
    return indexes.plan([url], keyring=keyring, commands=commands)


def asking(found: IndexPlan) -> Solver:
    return replace(solver(), plan=found)


def fetch(found: IndexPlan, index: PackageIndex, folder: Path, name: str = "a") -> Path:
    one = wheel(name)
    index.add(one)
    url = f"{index.base}/files/{name}/{one.filename}"
    fetcher = Fetcher(Network(credentials=found.credentials, renew=found.renew), retries=1)
    try:
        return fetcher.fetch(Artefact(name=name, url=url, sha256=one.sha256, size=len(one.data)), folder)
    finally:
        fetcher.close()


@pytest.mark.parametrize(
    ("said", "url", "wanted"),
    [
        ("tok", "https://127.0.0.1/simple", ("__token__", "tok")),
        ("tok\n", "https://oauth2accesstoken@127.0.0.1/simple", ("oauth2accesstoken", "tok")),
        ("ann\np ss\n", "https://127.0.0.1/simple", ("ann", "p ss")),
        ('{"token": "tok"}', "https://aws@127.0.0.1/simple", ("aws", "tok")),
        ('{"user": "ann", "password": "pw", "expires": null}', "https://127.0.0.1/simple", ("ann", "pw")),
    ],
)
def test_a_command_prints_a_token_or_a_user_with_password(
    teller: Teller, said: str, url: str, wanted: tuple[str, str]
) -> None:
    teller.tell(said)
    assert plan(url, teller).credentials("https://127.0.0.1/files/x.whl") == wanted


def test_a_command_is_for_its_host_and_asked_once(teller: Teller) -> None:
    teller.tell("tok")
    for _ in range(3):
        found = plan("https://127.0.0.1/simple", teller)
        assert found.credentials("https://127.0.0.1/x") == ("__token__", "tok")
        assert found.credentials("https://elsewhere.example/x") is None
    assert len(teller.calls) == 1


def test_a_password_that_ends_soon_is_asked_for_again(teller: Teller) -> None:
    found = plan("https://127.0.0.1/simple", teller)
    teller.tell(json.dumps({"token": "old", "expires": "2020-01-01T00:00:00Z"}))
    assert found.credentials("https://127.0.0.1/x") == ("__token__", "old")
    teller.tell(json.dumps({"token": "new", "expires": "2999-01-01T00:00:00Z"}))
    for _ in range(2):
        assert found.credentials("https://127.0.0.1/x") == ("__token__", "new")
    assert len(teller.calls) == 2


BAD = {
    "nothing": "",
    "three-lines": f"a\nb\n{FIRST}",
    "bad-json": f"{{{FIRST}",
    "no-password": f'{{"user": "{FIRST}"}}',
    "bad-time": f'{{"token": "{FIRST}", "expires": "soon"}}',
    "a-list-of-users": f'{{"token": ["{FIRST}"]}}',
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
def test_a_command_without_a_password_is_an_error_that_repeats_nothing(teller: Teller, said: str) -> None:
    teller.tell(said)
    with pytest.raises(CredentialsFailed, match=r"credentials for 127\.0\.0\.1") as caught:
        plan("https://127.0.0.1/simple", teller).credentials("https://127.0.0.1/x")
    assert FIRST not in caught.value.message
    assert str(teller.program) in caught.value.message


@pytest.mark.parametrize("line", ["nonesuch-program --token", "'unclosed"])
def test_a_command_that_cannot_be_started_is_named(home: Home, line: str) -> None:
    found = indexes.plan(["https://127.0.0.1/simple"], commands={"127.0.0.1": line})
    with pytest.raises(CredentialsFailed, match=r"127\.0\.0\.1"):
        found.credentials("https://127.0.0.1/x")


def test_a_token_that_expires_is_renewed_once_while_downloading(
    package_index: PackageIndex, teller: Teller, tmp_path: Path
) -> None:
    teller.tell(FIRST)
    package_index.require("__token__", FIRST, uses=1)
    found = plan(package_index.url, teller)
    fetch(found, package_index, tmp_path / "got", "a")
    teller.tell(SECOND)
    package_index.require("__token__", SECOND)
    fetch(found, package_index, tmp_path / "got", "b")
    assert len(teller.calls) == 2
    package_index.expire()
    package_index.forget_requests()
    with pytest.raises(DownloadRefused):
        fetch(found, package_index, tmp_path / "got", "c")
    assert package_index.total == 1, "the same password again is not sent again"
    assert canary.find(FIRST, tmp_path, paths.cache_root()) == []


def test_a_token_that_expires_is_renewed_once_while_locking(
    package_index: PackageIndex, teller: Teller, home: Home, tmp_path: Path
) -> None:
    package_index.add(wheel("a", requires=["b"]), wheel("b"))
    teller.tell(FIRST)
    found = plan(package_index.url, teller)
    assert found.credentials(package_index.url) == ("__token__", FIRST)
    teller.tell(SECOND)
    package_index.require("__token__", SECOND)
    made = lock(request("a"), asking(found))
    assert versions(made) == {"a": "1.0", "b": "1.0"}
    assert len(teller.calls) == 2
    folder = LockFolder(tmp_path / "flow.locks")
    folder.write({"fit": made.lock})
    package_index.expire()
    with pytest.raises(IndexDenied) as caught:
        lock(request("a", "b<2"), asking(found))
    assert len(teller.calls) <= 4, "a renewal for each platform at most"
    for secret in (FIRST, SECOND):
        assert secret not in caught.value.message + repr(found) + repr(made.lock)
        assert canary.find(secret, tmp_path, besides={teller.words.name}, pairs=["__token__"]) == []


def test_only_the_login_that_was_refused_is_renewed(
    package_index: PackageIndex, start_index: Callable[[], PackageIndex], home: Home
) -> None:
    other = start_index().add(wheel("b"))
    package_index.add(wheel("a"))
    tellers = [Teller(home, "first"), Teller(home, "second")]
    commands = {}
    for index, teller in zip((other, package_index), tellers, strict=True):
        teller.tell(FIRST)
        index.require("__token__", FIRST)
        commands[index.base.partition("//")[2]] = str(teller.program)
    found = indexes.plan([other.url, package_index.url], commands=commands)
    assert versions(lock(request("a", "b"), asking(found))) == {"a": "1.0", "b": "1.0"}
    tellers[0].tell(SECOND)
    tellers[1].tell("unwanted")
    other.expire()
    other.require("__token__", SECOND)
    other.add(wheel("c"))
    assert versions(lock(request("a", "c"), asking(found))) == {"a": "1.0", "c": "1.0"}
    assert [len(teller.calls) for teller in tellers] == [2, 1]


def test_the_keyring_is_asked_for_the_user_of_the_url_by_uv_and_by_downloads(
    package_index: PackageIndex, keyring: Teller, tmp_path: Path
) -> None:
    keyring.tell(FIRST)
    package_index.require("ann", FIRST)
    package_index.add(wheel("a"))
    url = package_index.url.replace("://", "://ann@")
    found = plan(url, keyring="subprocess")
    assert versions(lock(request("a"), asking(found))) == {"a": "1.0"}
    fetch(found, package_index, tmp_path / "got", "b")
    assert keyring.calls == [f"get {package_index.url} ann"]
    assert plan(url).credentials(url) == ("ann", "")


def test_the_keyring_without_a_user_is_asked_after_a_refusal_only(
    package_index: PackageIndex, keyring: Teller, tmp_path: Path
) -> None:
    keyring.tell(f"ann\n{FIRST}")
    found = plan(package_index.url, keyring="subprocess")
    fetch(found, package_index, tmp_path / "got", "a")
    assert keyring.calls == []
    package_index.require("ann", FIRST)
    assert versions(lock(request("a"), asking(found))) == {"a": "1.0"}
    fetch(found, package_index, tmp_path / "got", "b")
    assert keyring.calls == [f"--mode creds get {package_index.url}"]


@pytest.mark.parametrize(
    ("setting", "environ", "wanted"),
    [
        (None, {}, False),
        ("subprocess", {}, True),
        ("never", {"UV_KEYRING_PROVIDER": "subprocess"}, False),
        (None, {"UV_KEYRING_PROVIDER": "subprocess"}, True),
        (None, {"PIP_KEYRING_PROVIDER": "subprocess"}, True),
        (None, {"UV_KEYRING_PROVIDER": "disabled", "PIP_KEYRING_PROVIDER": "subprocess"}, False),
    ],
)
def test_who_says_whether_the_keyring_is_asked(
    setting: str | None, environ: dict[str, str], *, wanted: bool
) -> None:
    assert indexes.plan(environ=environ, keyring=setting).askers.keyring is wanted


def test_a_keyring_that_is_not_there_is_an_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.work))
    found = plan("https://ann@127.0.0.1/simple", keyring="subprocess")
    with pytest.raises(CredentialsFailed, match="no program `keyring`"):
        found.credentials("https://127.0.0.1/x")


def test_the_url_comes_first_then_the_command_netrc_and_the_keyring(
    home: Home, teller: Teller, keyring: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = home.home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login ann password of-netrc\n")
    netrc.chmod(0o600)
    teller.tell("of-command")
    keyring.tell("of-keyring")

    def password(url: str, **given: object) -> str:
        found = plan(url, keyring="subprocess", **given).credentials("https://127.0.0.1/x")  # type: ignore[arg-type]
        assert found is not None
        return found[1]

    assert password("https://ann:of-url@127.0.0.1/simple", teller=teller) == "of-url"
    assert password("https://ann@127.0.0.1/simple", teller=teller) == "of-command"
    assert password("https://ann@127.0.0.1/simple") == "of-netrc"
    assert password("https://bob@127.0.0.1/simple") == "of-keyring"


def test_files_on_another_host_get_that_hosts_login_alone(
    package_index: PackageIndex, start_index: Callable[[], PackageIndex], home: Home, tmp_path: Path
) -> None:
    files = start_index()
    files.add(wheel("a"))
    tellers = {"index": Teller(home, "first"), "files": Teller(home, "second")}
    tellers["index"].tell(FIRST)
    tellers["files"].tell(SECOND)
    package_index.require("__token__", FIRST)
    files.require("__token__", SECOND)
    package_index.fault("a", Fault(redirect=files.base), on="file")
    hosts = {"index": package_index.base.partition("//")[2], "files": files.base.partition("//")[2]}
    commands = {hosts[name]: str(teller.program) for name, teller in tellers.items()}
    found = indexes.plan([package_index.url], commands=commands)
    fetch(found, package_index, tmp_path / "got", "a")
    for index, secret in ((package_index, FIRST), (files, SECOND)):
        sent = base64.b64encode(f"__token__:{secret}".encode()).decode()
        assert set(index.authorizations) == {f"Basic {sent}"}


def test_offline_asks_nobody(teller: Teller) -> None:
    assert plan("https://127.0.0.1/simple", teller).variables(offline=True) == {
        "UV_DEFAULT_INDEX": "https://127.0.0.1/simple"
    }
    assert teller.calls == []
