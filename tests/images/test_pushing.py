"""Pushing: what moves, what is asked, and what is refused; and what other tools say of the result."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.report import Silent
from flowkiln.images import reference
from flowkiln.images.basing import Bases
from flowkiln.images.errors import ForeignImage
from flowkiln.images.pushing import Publisher
from flowkiln.images.registryerrors import RegistryFailed, RegistryForbidden, RegistryUnreachable, UploadFailed
from tests import stack
from tests.images import registries
from tests.images.bakery import BASE, STDLIB, Kitchen, large, pin, plan
from tests.services.registry import FakeRegistry, Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln.envs.lock import PlatformLock
    from flowkiln.images.plan import ImagePlan
    from tests.images.registries import Clients
    from tests.stack import Registry as RealRegistry

    Make = Callable[..., Publisher]

REPOSITORY = "team/flows"


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path / "cache", tmp_path / "wheels")


@pytest.fixture
def publisher(kitchen: Kitchen, clients: Clients, fake_registry: FakeRegistry) -> Make:
    registries.push(clients(fake_registry.host).registry, "team/base", BASE, "1")
    fake_registry.forget_requests()

    def make(cache: Path | None = None, compression: str = "gzip") -> Publisher:
        if cache is not None:
            kitchen.cache = cache
        return published(kitchen, clients, fake_registry.host, compression)

    return make


def published(
    kitchen: Kitchen, clients: Clients, host: str, compression: str = "gzip", *, offline: bool = False
) -> Publisher:
    def client(name: str) -> object:
        return clients(name).registry

    return Publisher(
        reference.parse(f"{host}/{REPOSITORY}"),
        client,  # type: ignore[arg-type]
        Bases(client, kitchen.cache),  # type: ignore[arg-type]
        kitchen.baker(),
        compression=compression,  # type: ignore[arg-type]
        reporter=Silent(),
        locks=kitchen.cache / "locks" / "images",
        offline=offline,
    )


def image_of(part: PlatformLock, host: str) -> ImagePlan:
    return plan(part, pin(f"{host}/team/base:1"))


def some(kitchen: Kitchen, version: str = "1.0") -> PlatformLock:
    return kitchen.part(large("numbers", version), large("other", seed=5), wheel("small"))


def test_a_second_push_asks_nothing(publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    first = publisher().push(one)
    assert first.built
    assert first.moved > 2_000_000
    fake_registry.forget_requests()
    again = publisher().push(one)
    assert (again.reference, again.moved, again.built) == (first.reference, 0, False)
    assert not fake_registry.requests


def test_layers_are_sent_while_others_are_made(
    publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(where: object) -> list[tuple[str, bytes]]:
        give_up = time.monotonic() + 30
        while ("PUT", "upload") not in fake_registry.requests and time.monotonic() < give_up:
            time.sleep(0.01)
        assert ("PUT", "upload") in fake_registry.requests, "nothing was sent while a layer was being made"
        return STDLIB

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(kitchen, "_stdlib", sent)
    assert publisher().push(image_of(some(kitchen), fake_registry.host)).built


def test_an_empty_cache_asks_for_the_image_and_sends_nothing(
    publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    first = publisher().push(one)
    fake_registry.forget_requests()
    again = publisher(tmp_path / "another").push(one)
    assert (again.reference, again.config, again.moved, again.built) == (first.reference, first.config, 0, False)
    assert not [key for key in fake_registry.requests if key[0] not in ("GET", "HEAD")]
    assert sum(fake_registry.requests.values()) <= 3


def test_one_version_moves_its_layers_alone(publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry) -> None:
    publisher().push(image_of(some(kitchen), fake_registry.host))
    fake_registry.forget_requests()
    changed = kitchen.part(large("numbers", "1.1", seed=3), large("other", seed=5), wheel("small"))
    moved = publisher().push(image_of(changed, fake_registry.host)).moved
    assert sum(fake_registry.received.values()) >= moved
    assert 1_100_000 < moved < 1_150_000


def test_layers_of_the_base_are_mounted(publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry) -> None:
    publisher().push(image_of(some(kitchen), fake_registry.host))
    digest = registries.digest_of(BASE.layer)
    assert fake_registry.holds(REPOSITORY, digest)
    assert digest not in fake_registry.received


def test_gzip_and_zstd_stand_side_by_side(publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    gzip, zstd = publisher().push(one), publisher(compression="zstd").push(one)
    assert gzip.config == zstd.config
    assert gzip.reference != zstd.reference


def test_another_image_under_the_tag_is_neither_used_nor_overwritten(
    publisher: Make, kitchen: Kitchen, clients: Clients, fake_registry: FakeRegistry
) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    foreign = registries.image(b"not ours")
    registries.push(clients(fake_registry.host).registry, REPOSITORY, foreign, one.tag)
    with pytest.raises(ForeignImage, match="fit"):
        publisher().push(one)
    found = clients(fake_registry.host).registry.manifest(REPOSITORY, one.tag)
    assert found is not None
    assert found.digest == foreign.document.digest
    assert publisher().push(one, rebuild=True).built


@pytest.mark.parametrize(
    ("kind", "fault", "error"),
    [
        ("manifest", Fault(status=500), RegistryFailed),
        ("manifest", Fault(status=403, code="DENIED"), RegistryForbidden),
        ("blob", Fault(status=503), RegistryFailed),
        ("upload", Fault(status=403, code="DENIED"), RegistryForbidden),
    ],
)
def test_unknown_is_never_taken_for_absent_or_present(
    publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry, kind: str, fault: Fault, error: type[Exception]
) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    fake_registry.fault(kind, fault)  # type: ignore[arg-type]
    with pytest.raises((error, UploadFailed)):
        publisher().push(one)
    assert kitchen.baker().records.image(f"{fake_registry.host}/{REPOSITORY}#gzip", one.image_key) is None


def test_a_registry_that_is_down_is_told(kitchen: Kitchen, clients: Clients) -> None:
    with pytest.raises(RegistryUnreachable):
        published(kitchen, clients, "127.0.0.1:9").push(image_of(some(kitchen), "127.0.0.1:9"))


def test_a_push_that_broke_off_goes_on_where_it_was(
    publisher: Make, kitchen: Kitchen, fake_registry: FakeRegistry
) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    fake_registry.fault("manifest", Fault(status=500), method="PUT")
    with pytest.raises(RegistryFailed):
        publisher().push(one)
    before = sum(fake_registry.received.values())
    publisher_ = publisher()
    with fake_registry.lock:
        fake_registry.state.faults.clear()
    pushed = publisher_.push(one)
    assert pushed.built
    assert sum(fake_registry.received.values()) - before < 10_000


@pytest.mark.e2e
def test_other_tools_accept_what_was_pushed(
    kitchen: Kitchen, clients: Clients, plain_registry: RealRegistry
) -> None:
    host = plain_registry.address
    registries.push(clients(host).registry, "team/base", BASE, "1")
    pushed = published(kitchen, clients, host).push(image_of(some(kitchen), host), rebuild=True)
    crane, skopeo = str(stack.tool("crane")), str(stack.tool("skopeo"))
    subprocess.run([crane, "validate", "--remote", str(pushed.reference)], check=True, capture_output=True)
    told = subprocess.run(
        [skopeo, "inspect", "--tls-verify=false", "--config", f"docker://{pushed.reference}"],
        check=True,
        capture_output=True,
    )
    labels = json.loads(told.stdout)["config"]["Labels"]
    assert labels["io.flowkiln.env-id"] == pushed.plan.part.env_id
    assert labels["io.flowkiln.image-key"] == pushed.plan.image_key


def test_offline_believes_an_old_record(
    kitchen: Kitchen,
    clients: Clients,
    fake_registry: FakeRegistry,
    publisher: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = image_of(some(kitchen), fake_registry.host)
    pushed = publisher().push(one)
    monkeypatch.setattr("flowkiln.images.records.FRESH", -1.0)
    fake_registry.forget_requests()
    found = published(kitchen, clients, fake_registry.host, offline=True).find(one)
    assert found is not None
    assert found.digest == pushed.reference.digest
    assert not fake_registry.requests
