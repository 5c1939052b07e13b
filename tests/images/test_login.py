"""Logins as docker and podman keep them; helpers are programs that the tests write."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.images.login import Login, Logins
from flowkiln.images.registryerrors import LoginFileUnreadable, LoginHelperFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
HUB_KEY = "https://index.docker.io/v1/"


class Machine:
    """A user's home with logins and programs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        # nothing but what a test puts there: the machine may have helpers of its own
        for name in ("cat", "sleep"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.environ = {"HOME": str(self.home), "PATH": str(self.bin)}

    def file(self, path: Path, document: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def docker(self, document: Any) -> Path:
        return self.file(self.home / ".docker" / "config.json", document)

    def program(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def find(self, host: str, deadline: float = 20.0) -> Login | None:
        return Logins(self.environ, deadline=deadline).find(host)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def given(user: str, secret: str) -> str:
    return f"cat >/dev/null; echo '{json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret})}'"


def known(login: Login | None) -> tuple[str, str, bool] | None:
    return None if login is None else (login.user, login.secret, login.identity)


# -- files -------------------------------------------------------------------------------------------------------


def test_without_any_file_there_is_no_login(machine: Machine) -> None:
    assert machine.find("registry.example.com") is None


@pytest.mark.parametrize(
    ("key", "host", "found"),
    [
        ("registry.example.com", "registry.example.com", True),
        ("https://registry.example.com", "registry.example.com", True),
        ("https://registry.example.com/v2/", "registry.example.com", True),
        ("registry.example.com:5000", "registry.example.com", False),
        ("127.0.0.1:5000", "127.0.0.1:5000", True),
        (HUB_KEY, "docker.io", True),
        ("docker.io", "docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        (HUB_KEY, "registry.example.com", False),
    ],
)
def test_entry_is_found_under_the_names_of_its_host(machine: Machine, key: str, host: str, found: bool) -> None:
    machine.docker({"auths": {key: {"auth": encoded("me", "pass:word")}}})
    assert known(machine.find(host)) == (("me", "pass:word", False) if found else None)


@pytest.mark.parametrize(
    ("entry", "login"),
    [
        ({"auth": encoded("me", "x")}, ("me", "x", False)),
        ({"username": "me", "password": "x"}, ("me", "x", False)),
        ({"auth": encoded("me", "x\0\0")}, ("me", "x", False)),
        ({"auth": encoded("me", ""), "identitytoken": "token"}, ("me", "token", True)),
        ({}, None),
    ],
)
def test_forms_of_an_entry(machine: Machine, entry: dict[str, str], login: tuple[str, str, bool] | None) -> None:
    machine.docker({"auths": {"a.example": entry}})
    assert known(machine.find("a.example")) == login


def test_files_are_looked_at_in_order(machine: Machine, tmp_path: Path) -> None:
    def holding(user: str) -> dict[str, object]:
        return {"auths": {"a.example": {"auth": encoded(user, "x")}}}

    def user() -> str | None:
        login = machine.find("a.example")
        return None if login is None else login.user

    machine.file(machine.home / ".config" / "containers" / "auth.json", holding("config"))
    assert user() == "config"
    machine.environ["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    machine.file(tmp_path / "run" / "containers" / "auth.json", holding("podman"))
    assert user() == "podman"
    machine.docker(holding("docker"))
    assert user() == "docker"
    machine.environ["DOCKER_CONFIG"] = str(tmp_path / "elsewhere")
    assert user() == "podman", "DOCKER_CONFIG names the only folder that counts"
    machine.file(tmp_path / "elsewhere" / "config.json", holding("moved"))
    assert user() == "moved"
    machine.environ["REGISTRY_AUTH_FILE"] = str(machine.file(tmp_path / "auth.json", holding("named")))
    assert user() == "named"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": [1]}', '{"auths": {"a.example": "x"}}', '{"auths": {"a.example": {"auth": "geheim"}}}'],
)
def test_file_that_cannot_be_read_is_not_no_login(machine: Machine, text: str) -> None:
    path = machine.docker(text)
    with pytest.raises(LoginFileUnreadable, match=str(path)) as raised:
        machine.find("a.example")
    assert "geheim" not in raised.value.message


def test_a_login_does_not_show_its_secret() -> None:
    assert "geheim" not in repr(Login(user="me", secret="geheim"))


# -- helpers -----------------------------------------------------------------------------------------------------


def test_helper_of_the_host_before_the_helper_of_all_before_the_entry(machine: Machine) -> None:
    machine.program("docker-credential-one", given("one", "1"))
    machine.program("docker-credential-all", given("all", "2"))
    document: dict[str, object] = {"auths": {"a.example": {"auth": encoded("entry", "3")}}}
    machine.docker(document)
    assert known(machine.find("a.example")) == ("entry", "3", False)
    machine.docker(document | {"credsStore": "all"})
    assert known(machine.find("a.example")) == ("all", "2", False)
    machine.docker(document | {"credsStore": "all", "credHelpers": {"a.example": "one"}})
    assert known(machine.find("a.example")) == ("one", "1", False)
    assert known(machine.find("b.example")) == ("all", "2", False)


@pytest.mark.parametrize(("host", "asked"), [("a.example:5000", "a.example:5000"), ("docker.io", HUB_KEY)])
def test_helper_is_asked_by_the_name_that_it_knows(machine: Machine, host: str, asked: str) -> None:
    script = 'read server || true; echo "{\\"Username\\": \\"$1\\", \\"Secret\\": \\"$server\\"}"'
    machine.program("docker-credential-echo", script)
    machine.docker({"credsStore": "echo"})
    assert known(machine.find(host)) == ("get", asked, False)


def test_helper_may_give_an_identity_token(machine: Machine) -> None:
    machine.program("docker-credential-id", given("<token>", "t"))
    machine.docker({"credsStore": "id"})
    assert known(machine.find("a.example")) == ("<token>", "t", True)


def test_helper_that_has_no_login_says_so_in_words(machine: Machine) -> None:
    script = "echo 'credentials not found in native keychain'; exit 1"
    machine.program("docker-credential-empty", script)
    machine.docker({"credsStore": "empty", "auths": {"a.example": {"auth": encoded("entry", "3")}}})
    assert known(machine.find("a.example")) == ("entry", "3", False)
    assert machine.find("b.example") is None


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'the keychain is locked' >&2; exit 1", "the keychain is locked"),
        ("echo 'error: no session'; exit 3", "no session"),
        ("exit 4", "exit 4"),
        ("echo geheim", "no login"),
        ('echo \'{"Username": "me"}\'', "no login"),
    ],
)
def test_helper_that_fails_is_an_error(machine: Machine, script: str, told: str) -> None:
    machine.program("docker-credential-bad", script)
    machine.docker({"credsStore": "bad"})
    with pytest.raises(LoginHelperFailed, match=told) as raised:
        machine.find("a.example")
    assert "docker-credential-bad" in raised.value.message
    assert "geheim" not in raised.value.message


def test_helper_that_is_not_installed_is_named_with_its_file(machine: Machine) -> None:
    path = machine.docker({"credsStore": "desktop"})
    with pytest.raises(LoginHelperFailed, match="docker-credential-desktop") as raised:
        machine.find("a.example")
    assert str(path) in raised.value.message


def test_helper_that_hangs_is_ended(machine: Machine, tmp_path: Path) -> None:
    machine.program("docker-credential-hang", f"echo $$ >{tmp_path}/pid; exec sleep 60")
    machine.docker({"credsStore": "hang"})
    with pytest.raises(LoginHelperFailed, match=r"within 0\.5 s"):
        machine.find("a.example", deadline=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[Path]:
    """A file for the id of a process that is ended after the test."""
    path = tmp_path / "orphan"
    yield path
    with suppress(ProcessLookupError):
        os.kill(int(path.read_text()), signal.SIGKILL)


def test_process_that_a_helper_leaves_behind_with_its_pipe_is_not_waited_for(
    machine: Machine, orphan: Path
) -> None:
    """Such as an agent for passwords, started by the helper: it holds the helper's output and stays alive."""
    machine.program("docker-credential-agent", f"sleep 60 & echo $! >{orphan}; {given('me', 'x')}")
    machine.docker({"credsStore": "agent"})
    assert known(machine.find("a.example")) == ("me", "x", False)
    os.kill(int(orphan.read_text()), 0)


# -- clouds ------------------------------------------------------------------------------------------------------


def test_ecr_login_comes_from_the_aws_command(machine: Machine) -> None:
    machine.program("aws", 'echo "secret of $*"')
    login = machine.find(ECR)
    assert known(login) == ("AWS", "secret of ecr get-login-password --region eu-west-1", False)


def test_ecr_helper_that_is_configured_comes_first(machine: Machine) -> None:
    machine.program("aws", "echo x")
    machine.program("docker-credential-ecr-login", given("AWS", "helped"))
    machine.docker({"credHelpers": {ECR: "ecr-login"}})
    assert known(machine.find(ECR)) == ("AWS", "helped", False)


@pytest.mark.parametrize("host", ["europe-docker.pkg.dev", "gcr.io", "eu.gcr.io"])
def test_google_login_comes_from_gcloud(machine: Machine, host: str) -> None:
    machine.program("gcloud", 'echo "token of $*"')
    assert known(machine.find(host)) == ("oauth2accesstoken", "token of auth print-access-token", False)
    machine.program("docker-credential-gcloud", given("_dcgcloud_token", "helped"))
    assert known(machine.find(host)) == ("_dcgcloud_token", "helped", False)


@pytest.mark.parametrize("host", ["evil-gcr.io", "pkg.dev", f"{ECR}.example.com", "dkr.ecr.eu.amazonaws.com"])
def test_cloud_logins_go_to_no_other_host(machine: Machine, host: str) -> None:
    for program in ("aws", "gcloud"):
        machine.program(program, "echo secret")
    assert machine.find(host) is None


@pytest.mark.parametrize(
    ("script", "told"),
    [(None, "aws is not installed"), ("echo 'Unable to locate credentials' >&2; exit 253", "Unable to locate")],
)
def test_cloud_command_that_gives_none_leaves_a_note(machine: Machine, script: str | None, told: str) -> None:
    if script is not None:
        machine.program("aws", script)
    logins = Logins(machine.environ)
    assert logins.find(ECR) is None
    assert told in (logins.note(ECR) or "")
