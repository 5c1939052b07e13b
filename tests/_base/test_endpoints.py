"""The engine is found where the docker command finds it: a listening socket for each way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.endpoints import TLS, Endpoint, find
from flowkiln._base.engineerrors import BadEndpoint, EngineNotFound
from tests.services.engine import unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def listening(path: Path) -> Iterator[str]:
    """A socket that somebody listens on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield f"unix://{path}"


def context(config: Path, name: str, host: str, *, tls: bool = False, skip: bool = False) -> None:
    """A context as `docker context create` writes it."""
    hashed = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / hashed / "meta.json"
    meta.parent.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": skip}
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if tls:
        folder = config / "contexts" / "tls" / hashed / "docker"
        folder.mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (folder / file).write_text("PEM")


def current(config: Path, name: str) -> None:
    config.mkdir(exist_ok=True)
    (config / "config.json").write_text(json.dumps({"currentContext": name}))


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without any engine; its root is the folder ``root``."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_docker_host_comes_before_everything(tmp_path: Path, machine: dict[str, str]) -> None:
    context(tmp_path / "home/.docker", "colima", "unix:///colima.sock")
    current(tmp_path / "home/.docker", "colima")
    with listening(tmp_path / "root/var/run/docker.sock"):
        environ = {**machine, "DOCKER_HOST": "unix:///here.sock", "DOCKER_CONTEXT": "colima"}
        assert find(environ, root=tmp_path / "root") == Endpoint("unix:///here.sock", "DOCKER_HOST")


def test_docker_context_comes_before_the_current_context(tmp_path: Path, machine: dict[str, str]) -> None:
    config = tmp_path / "home/.docker"
    context(config, "colima", "unix:///colima.sock")
    context(config, "other", "unix:///other.sock")
    current(config, "other")
    found = find({**machine, "DOCKER_CONTEXT": "colima"}, root=tmp_path / "root")
    assert found == Endpoint("unix:///colima.sock", "context colima")
    assert find(machine, root=tmp_path / "root") == Endpoint("unix:///other.sock", "context other")


def test_the_folder_of_contexts_is_docker_config(tmp_path: Path, machine: dict[str, str]) -> None:
    context(tmp_path / "elsewhere", "desk", "ssh://me@host:2222")
    current(tmp_path / "elsewhere", "desk")
    found = find({**machine, "DOCKER_CONFIG": str(tmp_path / "elsewhere")}, root=tmp_path / "root")
    assert (found.url, found.remote) == ("ssh://me@host:2222", True)


def test_a_context_has_its_own_certificates(tmp_path: Path, machine: dict[str, str]) -> None:
    config = tmp_path / "home/.docker"
    context(config, "far", "tcp://far.example.com", tls=True)
    context(config, "lax", "tcp://far.example.com:99", skip=True)
    found = find({**machine, "DOCKER_CONTEXT": "far"}, root=tmp_path / "root")
    folder = config / "contexts/tls" / hashlib.sha256(b"far").hexdigest() / "docker"
    assert found.url == "tcp://far.example.com:2376"
    assert found.tls == TLS(ca=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem")
    assert find({**machine, "DOCKER_CONTEXT": "lax"}, root=tmp_path / "root").tls == TLS(verify=False)


@pytest.mark.parametrize("told", ["DOCKER_CONTEXT", "currentContext"])
def test_the_default_context_is_the_default_socket(tmp_path: Path, machine: dict[str, str], told: str) -> None:
    if told == "DOCKER_CONTEXT":
        context(tmp_path / "home/.docker", "other", "unix:///other.sock")
        current(tmp_path / "home/.docker", "other")
        machine = {**machine, told: "default"}
    else:
        current(tmp_path / "home/.docker", "default")
    with listening(tmp_path / "root/var/run/docker.sock") as url:
        assert find(machine, root=tmp_path / "root") == Endpoint(url, "default socket")


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        ("root/var/run/docker.sock", "default socket"),
        ("home/.docker/run/docker.sock", "Docker Desktop's socket"),
        ("run/docker.sock", "rootless socket"),
        ("run/podman/podman.sock", "Podman's socket"),
        ("root/run/podman/podman.sock", "Podman's system socket"),
    ],
)
def test_sockets_are_found_in_their_places(
    tmp_path: Path, machine: dict[str, str], place: str, origin: str
) -> None:
    with listening(tmp_path / place) as url:
        found = find(machine, root=tmp_path / "root")
    assert (found, found.remote) == (Endpoint(url, origin), False)


def test_a_socket_that_nobody_listens_on_is_passed_over(tmp_path: Path, machine: dict[str, str]) -> None:
    with listening(tmp_path / "root/var/run/docker.sock"):
        pass
    with listening(tmp_path / "run/podman/podman.sock") as url:
        assert find(machine, root=tmp_path / "root") == Endpoint(url, "Podman's socket")


def test_a_socket_of_others_is_not_passed_over() -> None:
    """Its error, that this user may not use it, is of more use than another engine without the user's images."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are root's alone
        folder = Path(name)
        folder.chmod(0o755)
        with listening(folder / "var/run/docker.sock") as url, listening(folder / "run/podman/podman.sock"):
            (folder / "var/run/docker.sock").chmod(0)
            with unprivileged():
                assert find({"HOME": name}, root=folder).url == url


def test_nothing_found_names_what_was_looked_at(tmp_path: Path, machine: dict[str, str]) -> None:
    with listening(tmp_path / "root/var/run/docker.sock"):
        pass
    with pytest.raises(EngineNotFound) as caught:
        find(machine, root=tmp_path / "root")
    assert f"{tmp_path}/root/var/run/docker.sock (nobody listens)" in caught.value.message
    assert f"{tmp_path}/run/podman/podman.sock (absent)" in caught.value.message
    assert "DOCKER_HOST" in str(caught.value.hint)


def test_a_missing_context_names_those_that_exist(tmp_path: Path, machine: dict[str, str]) -> None:
    context(tmp_path / "home/.docker", "colima", "unix:///colima.sock")
    with pytest.raises(EngineNotFound, match=r"'colina'.*colima, default"):
        find({**machine, "DOCKER_CONTEXT": "colina"}, root=tmp_path / "root")


@pytest.mark.parametrize("text", ["{", '{"currentContext": '])
def test_settings_that_cannot_be_read_are_told(tmp_path: Path, machine: dict[str, str], text: str) -> None:
    (tmp_path / "home/.docker").mkdir()
    (tmp_path / "home/.docker/config.json").write_text(text)
    with pytest.raises(EngineNotFound, match=r"config\.json"):
        find(machine, root=tmp_path / "root")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("tcp://10.0.0.1:4000", "tcp://10.0.0.1:4000"),
        ("tcp://engine", "tcp://engine:2375"),
        ("engine:4000", "tcp://engine:4000"),
        ("tcp://[::1]:4000", "tcp://[::1]:4000"),
        ("http://engine:1/", "tcp://engine:1"),
        ("ssh://me@far", "ssh://me@far"),
        ("ssh://me@far:22/run/docker.sock", "ssh://me@far:22/run/docker.sock"),
    ],
)
def test_addresses_in_all_spellings(machine: dict[str, str], host: str, url: str) -> None:
    found = find({**machine, "DOCKER_HOST": host})
    assert (found.url, found.remote, found.tls) == (url, True, None)


@pytest.mark.parametrize("host", ["npipe:////./pipe/docker", "tcp://", "unix://", "tcp://host:port", "ssh://-oX"])
def test_addresses_that_are_none(machine: dict[str, str], host: str) -> None:
    with pytest.raises(BadEndpoint):
        find({**machine, "DOCKER_HOST": host})


def test_a_password_in_an_address_is_not_shown(machine: dict[str, str]) -> None:
    with pytest.raises(BadEndpoint) as caught:
        find({**machine, "DOCKER_HOST": "ssh://me:hunter2@far"})
    assert "hunter2" not in caught.value.message


def test_tls_as_the_docker_command_is_told(tmp_path: Path, machine: dict[str, str]) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    environ = {**machine, "DOCKER_HOST": "tcp://far", "DOCKER_CERT_PATH": str(tmp_path)}
    assert find(environ).tls is None
    found = find({**environ, "DOCKER_TLS_VERIFY": "1"})
    assert (found.url, found.tls) == ("tcp://far:2376", TLS(ca=tmp_path / "ca.pem"))
    assert find({**environ, "DOCKER_TLS": "1"}).tls == TLS(ca=tmp_path / "ca.pem", verify=False)
