"""The client against real registries, judged by the tools that people use."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from flowkiln.images.registryerrors import (
    ManifestUnknown,
    RegistryDenied,
    RegistryUntrusted,
    UploadFailed,
)
from tests import stack
from tests.images.registries import Client, Clients, digest_of, image, push, referrer
from tests.services.relay import Relay
from tests.stack.registries import RegistryKind
from tests.stack.tools import Tool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e


class Place:
    """A real registry, a client of it, and the environment in which other tools reach it."""

    def __init__(self, kind: RegistryKind, clients: Clients, folder: Path) -> None:
        self.real = stack.registry(kind)
        self.host = self.real.address
        self.folder = folder
        self.environ: dict[str, str] = {
            "DOCKER_CONFIG": str(folder),
            "REGISTRY_AUTH_FILE": str(folder / "config.json"),
        }
        self.log_in(self.real.password)
        if self.real.ca_file is not None:
            self.environ["SSL_CERT_FILE"] = str(self.real.ca_file)
        self.client = clients(self.host, environ=self.environ, ca=self.real.ca_file)
        self.name = f"tests/{uuid.uuid4().hex}"

    def log_in(self, password: str | None) -> None:
        auths = {}
        if password is not None:
            login = base64.b64encode(f"{self.real.user}:{password}".encode()).decode()
            auths[self.host] = {"auth": login}
        self.folder.mkdir(exist_ok=True)
        (self.folder / "config.json").write_text(json.dumps({"auths": auths}))

    def tool(self, name: Tool, *arguments: str) -> str:
        environ = {**os.environ, **self.environ, "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [stack.tool(name), *arguments], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def crane(self, *arguments: str) -> str:
        return self.tool("crane", *arguments)


@pytest.fixture(params=["plain", "tls"])
def place(request: pytest.FixtureRequest, clients: Clients, tmp_path: Path) -> Place:
    return Place(request.param, clients, tmp_path / "login")


@pytest.fixture
def tls(clients: Clients, tmp_path: Path) -> Place:
    return Place("tls", clients, tmp_path / "login")


@pytest.fixture
def plain(clients: Clients, tmp_path: Path) -> Place:
    return Place("plain", clients, tmp_path / "login")


def test_what_is_pushed_is_an_image_for_other_tools(place: Place) -> None:
    one = image(os.urandom(1 << 20))
    registry = place.client.registry
    digest = push(registry, place.name, one, tag="v1")
    reference = f"{place.host}/{place.name}"
    assert place.crane("digest", f"{reference}:v1").strip() == digest == one.document.digest
    assert place.crane("validate", "--remote", f"{reference}@{digest}").startswith("PASS")
    assert place.crane("manifest", f"{reference}:v1").encode().strip() == one.document.data
    verify = "--tls-verify=false" if place.real.ca_file is None else f"--cert-dir={cert_dir(place)}"
    shown = json.loads(place.tool("skopeo", "inspect", verify, f"docker://{reference}@{digest}"))
    assert (shown["Digest"], shown["Layers"]) == (digest, [digest_of(one.layer)])
    assert place.client.waits == []


def cert_dir(place: Place) -> str:
    folder = place.folder / "certificates"
    folder.mkdir()
    assert place.real.ca_file is not None
    (folder / "ca.crt").write_bytes(place.real.ca_file.read_bytes())
    return str(folder)


def test_what_is_there_is_read_and_what_is_not_is_none(place: Place) -> None:
    one = image(os.urandom(1 << 10))
    registry, absent = place.client.registry, "sha256:" + "0" * 64
    assert registry.manifest(place.name, "v1") is None
    assert registry.exists(place.name, "v1") is None
    assert not registry.has_blob(place.name, digest_of(one.layer))
    assert registry.tags(place.name) == []
    digest = push(registry, place.name, one, tag="v1")
    for version in ("v1", digest):
        found = registry.manifest(place.name, version)
        assert found is not None
        assert (found.data, found.media_type, found.digest) == (one.document.data, one.document.media_type, digest)
        assert registry.exists(place.name, version) == digest
    assert registry.manifest(place.name, absent) is None
    assert registry.exists(place.name, absent) is None
    assert registry.has_blob(place.name, digest_of(one.layer))
    assert b"".join(registry.blob(place.name, digest_of(one.layer))) == one.layer
    assert registry.read_blob(place.name, digest_of(one.config)) == one.config
    with pytest.raises(ManifestUnknown, match=absent):
        registry.read_blob(place.name, absent)


def test_blob_is_mounted_from_another_repository(place: Place) -> None:
    one = image(os.urandom(1 << 10))
    registry, other = place.client.registry, f"{place.name}-other"
    push(registry, place.name, one)
    assert registry.mount(other, digest_of(one.layer), place.name)
    assert registry.has_blob(other, digest_of(one.layer))
    assert not registry.mount(other, "sha256:" + "0" * 64, place.name)


def test_blobs_go_up_from_several_threads(place: Place) -> None:
    blobs = [os.urandom((1 << 20) + number) for number in range(8)]
    sent: list[int] = []

    def put(data: bytes) -> None:
        registry = place.client.registry
        registry.put_blob(place.name, digest_of(data), len(data), lambda: io.BytesIO(data), advance=sent.append)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, blobs))
    assert all(place.client.registry.has_blob(place.name, digest_of(data)) for data in blobs)
    assert sum(sent) == sum(map(len, blobs))


def test_empty_blob(plain: Place) -> None:
    plain.client.registry.put_blob(plain.name, digest_of(b""), 0, lambda: io.BytesIO(b""))
    assert plain.client.registry.read_blob(plain.name, digest_of(b"")) == b""


def test_referrers_are_listed_under_the_tag_that_stands_for_the_subject(plain: Place) -> None:
    """This registry keeps no list of referrers."""
    one = image(os.urandom(1 << 10))
    registry = plain.client.registry
    digest = push(registry, plain.name, one, tag="v1")
    first = referrer(one)
    second = type(first)(media_type=first.media_type, data=first.data.replace(b'"kind": "sbom"', b'"kind": "slsa"'))
    for document in (first, second, first):
        registry.put_referrer(plain.name, one.document.descriptor, document)
    tag = digest.replace(":", "-")
    assert registry.tags(plain.name) == [tag, "v1"]
    index = json.loads(plain.crane("manifest", f"{plain.host}/{plain.name}:{tag}"))
    assert [row["digest"] for row in index["manifests"]] == [first.digest, second.digest]
    assert {row["artifactType"] for row in index["manifests"]} == {"application/vnd.test.sbom"}
    assert [row["annotations"]["kind"] for row in index["manifests"]] == ["sbom", "slsa"]


def test_removed_manifest_is_gone(plain: Place) -> None:
    registry = plain.client.registry
    digest = push(registry, plain.name, image(b"x"))
    assert registry.delete_manifest(plain.name, digest)
    assert not registry.delete_manifest(plain.name, digest)
    assert registry.exists(plain.name, digest) is None


def test_tags_come_in_pages(plain: Place) -> None:
    registry, one = plain.client.registry, image(b"x")
    push(registry, plain.name, one)
    for number in range(5):
        registry.put_manifest(plain.name, one.document, tag=f"t{number}")
    assert registry.tags(plain.name) == [f"t{number}" for number in range(5)]


def test_bytes_with_another_digest_are_refused(plain: Place) -> None:
    with pytest.raises(UploadFailed, match="DIGEST_INVALID"):
        plain.client.registry.put_blob(plain.name, digest_of(b"other"), 4, lambda: io.BytesIO(b"this"))
    assert not plain.client.registry.has_blob(plain.name, digest_of(b"other"))


def test_manifest_without_its_blobs_is_refused(plain: Place) -> None:
    with pytest.raises(UploadFailed, match="BLOB_UNKNOWN"):
        plain.client.registry.put_manifest(plain.name, image(b"nowhere").document)


def test_upload_arrives_over_a_network_that_breaks(plain: Place, clients: Clients) -> None:
    data = os.urandom(3 << 20)
    sent: list[int] = []
    with Relay(int(plain.host.rpartition(":")[2]), cuts=[1 << 20, 2 << 20]) as relay:
        client = clients(relay.host)
        client.registry.put_blob(
            plain.name, digest_of(data), len(data), lambda: io.BytesIO(data), advance=sent.append
        )
        assert relay.cuts == []
        client.http.close()
    assert plain.client.registry.read_blob(plain.name, digest_of(data)) == data
    assert sum(sent) == len(data)


def test_bytes_that_cannot_be_read_are_no_fault_of_the_network(plain: Place) -> None:
    def broken() -> io.BytesIO:
        raise ConnectionResetError

    with pytest.raises(UploadFailed, match="cannot be read"):
        plain.client.registry.put_blob(plain.name, digest_of(b"1234"), 4, broken)
    with pytest.raises(UploadFailed, match="end after 3 of 4"):
        plain.client.registry.put_blob(plain.name, digest_of(b"1234"), 4, lambda: io.BytesIO(b"123"))
    assert plain.client.waits == []


@pytest.mark.parametrize("password", [None, "wrong"])
def test_registry_wants_a_login(tls: Place, clients: Clients, password: str | None) -> None:
    tls.log_in(password)
    with pytest.raises(RegistryDenied, match="no login" if password is None else "was used") as raised:
        tls.client.registry.has_blob(tls.name, digest_of(b""))
    assert f"docker login {tls.host}" in (raised.value.hint or "")
    assert "wrong" not in str(raised.value.to_json())


def test_certificate_of_an_unknown_authority_is_refused(tls: Place, clients: Clients) -> None:
    stranger: Client = clients(tls.host, environ=tls.environ)
    with pytest.raises(RegistryUntrusted, match="certificate"):
        stranger.registry.exists(tls.name, "v1")
