"""Logging in to registries: tokens by scope, renewed when they end, in the middle of an upload too."""

from __future__ import annotations

import base64
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from flowkiln.images.registryerrors import (
    RegistryDenied,
    RegistryFailed,
    RegistryForbidden,
    RegistryUntrusted,
    RepositoryUnknown,
    UploadFailed,
)
from flowkiln.images.tokens import Challenge, parse
from tests.images.registries import Client, Clients, digest_of, image, push
from tests.services.proxy import Authority, Proxy
from tests.services.registry import FakeRegistry, Fault, basic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "team/flows"
DATA = os.urandom(1 << 20)
DIGEST = digest_of(DATA)
SECRET = "geheim"


def put(client: Client) -> None:
    client.registry.put_blob(NAME, DIGEST, len(DATA), lambda: io.BytesIO(DATA))


class Home:
    """A user's logins, and the environment that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.environ = {"DOCKER_CONFIG": str(folder), "PATH": str(folder)}

    def log_in(self, host: str, password: str = SECRET, **more: str) -> None:
        auth = base64.b64encode(f"me:{password}".encode()).decode()
        (self.folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth, **more}}}))

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def user(tmp_path: Path) -> Home:
    return Home(tmp_path / "user")


def test_a_token_is_asked_for_once_for_each_scope(
    fake_registry: FakeRegistry, clients: Clients, user: Home
) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host)
    client = clients(fake_registry.host, environ=user.environ)
    digest = push(client.registry, NAME, image(b"x"), tag="v1")
    assert client.registry.exists(NAME, "v1") == digest
    assert client.registry.manifest("other/flows", "v1") is None
    tokens = [one for one in fake_registry.seen if one.kind == "token"]
    assert {one.authorization for one in tokens} == {basic("me", SECRET)}
    assert len(tokens) == 3, "to push, to pull, to pull from the other"
    assert [one.kind for one in fake_registry.seen].index("token") == 2, "after the first refusal"
    refused = [one for one in fake_registry.seen if one.kind not in ("token", "base") and not one.authorization]
    assert len(refused) == 1


def test_tokens_are_shared_by_threads(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host)
    client = clients(fake_registry.host, environ=user.environ)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: client.registry.exists(NAME, f"v{number}"), range(24)))
    assert found == [None] * 24
    assert fake_registry.requests["GET", "token"] == 1


def test_token_that_ends_soon_is_renewed_before(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET, life=300)
    user.log_in(fake_registry.host)
    client = clients(fake_registry.host, environ=user.environ)
    client.registry.exists(NAME, "v1")
    client.seconds = 280
    client.registry.exists(NAME, "v1")
    assert fake_registry.requests["GET", "token"] == 1
    client.seconds = 295
    client.registry.exists(NAME, "v1")
    assert fake_registry.requests["GET", "token"] == 2


def test_tokens_that_live_for_a_moment(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET, life=1)
    user.log_in(fake_registry.host)
    client = clients(fake_registry.host, environ=user.environ)
    for number in range(3):
        client.seconds = number * 1.0
        fake_registry.revoke_tokens()
        put(client)
        push(client.registry, NAME, image(b"%d" % number), tag=f"v{number}")
    assert client.registry.tags(NAME) == ["v0", "v1", "v2"]


@pytest.mark.parametrize("scheme", ["token", "basic"])
def test_login_that_ends_in_mid_upload_is_asked_for_again(
    fake_registry: FakeRegistry, clients: Clients, user: Home, scheme: str
) -> None:
    """The upload goes on: what the registry has is not sent again."""
    require = fake_registry.require_token if scheme == "token" else fake_registry.require_password
    require("me", "first")
    user.log_in(fake_registry.host, "first")
    client = clients(fake_registry.host, environ=user.environ)

    def ends() -> None:
        require("me", "second")
        user.log_in(fake_registry.host, "second")
        fake_registry.revoke_tokens()

    client.on_wait = ends
    fake_registry.fault("upload", Fault(cut_after=1 << 19, times=1), method="PUT")
    put(client)
    assert fake_registry.holds(NAME, DIGEST)
    assert fake_registry.received[DIGEST] == len(DATA)
    assert fake_registry.requests["POST", "upload"] == 2, "refused once, then one upload"


def test_refusal_of_the_bytes_themselves(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host)
    challenge = f'Bearer realm="{fake_registry.url}/token",service="tests"'
    fault = Fault(status=401, headers={"WWW-Authenticate": challenge}, times=2)
    fake_registry.fault("upload", fault, method="PUT")
    client = clients(fake_registry.host, environ=user.environ)
    put(client)
    assert fake_registry.holds(NAME, DIGEST)
    assert client.waits == []


def test_refusal_that_no_new_token_helps_against(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host)
    challenge = f'Bearer realm="{fake_registry.url}/token",service="tests",error="insufficient_scope"'
    fault = Fault(status=401, code="DENIED", headers={"WWW-Authenticate": challenge})
    fake_registry.fault("upload", fault)
    client = clients(fake_registry.host, environ=user.environ)
    with pytest.raises(RegistryForbidden, match=f"does not grant repository:{NAME}:pull,push") as raised:
        put(client)
    assert SECRET not in str(raised.value.to_json())


def test_public_images_need_no_login(fake_registry: FakeRegistry, clients: Clients) -> None:
    fake_registry.require_token("me", SECRET, anonymous=True)
    client = clients(fake_registry.host)
    assert client.registry.manifest(NAME, "v1") is None
    with pytest.raises(RegistryDenied, match="no login for it was found") as raised:
        put(client)
    assert f"docker login {fake_registry.host}" in (raised.value.hint or "")


@pytest.mark.parametrize("scheme", ["token", "basic"])
def test_wrong_password(fake_registry: FakeRegistry, clients: Clients, user: Home, scheme: str) -> None:
    require = fake_registry.require_token if scheme == "token" else fake_registry.require_password
    require("me", SECRET)
    user.log_in(fake_registry.host, "falsch")
    with pytest.raises(RegistryDenied, match=f"login of me from {user.folder}/config.json was used") as raised:
        put(clients(fake_registry.host, environ=user.environ))
    assert "falsch" not in str(raised.value.to_json())


def test_identity_token_is_exchanged(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host, "", identitytoken=SECRET)
    put(clients(fake_registry.host, environ=user.environ))
    assert fake_registry.requests["POST", "token"] == 1
    assert SECRET not in "".join(one.path for one in fake_registry.seen)


def test_mount_asks_for_the_source_too(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    fake_registry.require_token("me", SECRET)
    user.log_in(fake_registry.host)
    fake_registry.add_blob("library/python", DATA)
    assert clients(fake_registry.host, environ=user.environ).registry.mount(NAME, DIGEST, "library/python")
    (asked,) = [one.path for one in fake_registry.seen if one.kind == "token"]
    assert "library%2Fpython%3Apull" in asked
    assert "team%2Fflows%3Apull%2Cpush" in asked


@pytest.mark.parametrize(
    ("fault", "kind", "waits"),
    [
        (Fault(status=503), RegistryFailed, 2),
        (Fault(status=200, body=b"<html></html>"), RegistryFailed, 0),
        (Fault(status=200, body=b'{"errors": [{"code": "UNKNOWN"}]}'), RegistryFailed, 0),
        (Fault(status=200, body=b'{"token": "a\\r\\nb: c"}'), RegistryFailed, 0),
        (Fault(status=403, code="DENIED"), RegistryDenied, 0),
    ],
)
def test_token_service_that_fails(
    fake_registry: FakeRegistry, clients: Clients, fault: Fault, kind: type[Exception], waits: int
) -> None:
    fake_registry.require_token("me", SECRET)
    fake_registry.fault("token", fault)
    client = clients(fake_registry.host, retries=2)
    with pytest.raises(kind):
        client.registry.exists(NAME, "v1")
    assert len(client.waits) == waits


def test_login_is_not_sent_without_tls(fake_registry: FakeRegistry, clients: Clients, user: Home) -> None:
    user.log_in(fake_registry.host)
    challenge = 'Bearer realm="http://token.example.test/token"'
    fake_registry.fault("tags", Fault(status=401, headers={"WWW-Authenticate": challenge}))
    with pytest.raises(RegistryDenied, match="without TLS"):
        clients(fake_registry.host, environ=user.environ).registry.tags(NAME)


def test_upload_on_another_host_is_not_told_the_login(
    fake_registry: FakeRegistry, clients: Clients, user: Home
) -> None:
    fake_registry.require_password("me", SECRET)
    user.log_in(fake_registry.host)
    client = clients(fake_registry.host, environ=user.environ)
    assert client.registry.exists(NAME, "v1") is None, "it knows by now what the registry wants"
    there = f"http://localhost:{fake_registry.port}/elsewhere/upload"
    fake_registry.fault("upload", Fault(status=202, body=b"", headers={"Location": there}), method="POST")
    fake_registry.fault("elsewhere", Fault(status=403), method="PUT")
    with pytest.raises(RegistryForbidden):
        put(client)
    assert [one.authorization for one in fake_registry.seen if one.kind == "elsewhere"] == [None]


@pytest.mark.parametrize(
    ("text", "challenge"),
    [
        (None, None),
        ("Negotiate", None),
        ("Basic", Challenge("basic", {})),
        ('Basic realm="a, b"', Challenge("basic", {"realm": "a, b"})),
        (
            'Bearer realm="https://a.example/token?x=1",service="a basic \\"one\\"", scope=x',
            Challenge("bearer", {"realm": "https://a.example/token?x=1", "service": 'a basic "one"', "scope": "x"}),
        ),
        ('Basic realm="x", BEARER Realm=y', Challenge("bearer", {"realm": "y"})),
        ('Negotiate abc==, Basic realm="x"', Challenge("basic", {"realm": "x"})),
    ],
)
def test_challenges(text: str | None, challenge: Challenge | None) -> None:
    assert parse(text) == challenge


# -- hosts of the world, played by one server behind a proxy -----------------------------------------------------

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class World:
    """A registry that answers for every host, reached through a proxy."""

    def __init__(self, registry: FakeRegistry, proxy: Proxy, authority: Path, clients: Clients) -> None:
        self.registry = registry
        self.proxy = proxy
        self.authority = authority
        self.clients = clients

    def client(self, host: str, user: Home) -> Client:
        return self.clients(host, environ=user.environ, ca=self.authority, retries=1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    authority = Authority("registry-1.docker.io", ECR, "registry.example.test")
    with FakeRegistry(tls=authority.server()) as registry, Proxy(registry.port) as proxy:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        clients = Clients(tmp_path / "nobody")
        yield World(registry, proxy, authority.write(tmp_path / "authority.pem"), clients)
        clients.close()


def test_docker_hub_has_another_name_for_its_registry(world: World, user: Home) -> None:
    world.registry.require_password("me", SECRET)
    user.log_in("https://index.docker.io/v1/")
    put(world.client("docker.io", user))
    assert world.registry.holds(NAME, DIGEST)
    assert set(world.proxy.seen) == {"CONNECT registry-1.docker.io:443"}


def test_ecr_with_the_login_of_aws_and_a_repository_that_nobody_made(world: World, user: Home) -> None:
    world.registry.require_password("AWS", SECRET)
    user.program("aws", f'test "$*" = "ecr get-login-password --region eu-west-1" && echo {SECRET}')
    world.registry.repositories = set()
    with pytest.raises(RepositoryUnknown) as raised:
        put(world.client(ECR, user))
    assert raised.value.hint == f"aws ecr create-repository --repository-name {NAME} --region eu-west-1"
    world.registry.repositories = {NAME}
    put(world.client(ECR, user))
    assert world.registry.holds(NAME, DIGEST)


def test_ecr_without_the_aws_command(world: World, user: Home) -> None:
    world.registry.require_password("AWS", SECRET)
    with pytest.raises(RegistryDenied, match="aws is not installed"):
        put(world.client(ECR, user))


def test_certificate_is_checked_through_the_proxy(world: World, user: Home) -> None:
    assert world.client("registry.example.test", user).registry.exists(NAME, "v1") is None
    client = world.clients("registry.example.test", environ=user.environ)
    with pytest.raises(RegistryUntrusted, match="certificate"):
        client.registry.exists(NAME, "v1")


def test_loopback_with_tls_is_found_out_and_needs_no_proxy(world: World, user: Home) -> None:
    client = world.clients(f"localhost:{world.registry.port}", environ=user.environ)
    with pytest.raises(RegistryUntrusted, match="certificate"):
        client.registry.exists(NAME, "v1")
    assert client.http.base(client.registry.host) == f"https://localhost:{world.registry.port}"
    assert world.proxy.seen == []


def test_registry_behind_something_that_ends_tls(world: World, user: Home) -> None:
    """It gives places for uploads that begin with http, although it is asked by https."""
    client = world.client("registry.example.test", user)
    fault = Fault(status=202, body=b"", headers={"Location": "http://registry.example.test/v2/a/blobs/uploads/1"})
    world.registry.fault("upload", fault, method="POST")
    with pytest.raises(UploadFailed, match="BLOB_UPLOAD_UNKNOWN"):
        put(client)
    assert {one.split()[0] for one in world.proxy.seen} == {"CONNECT"}
