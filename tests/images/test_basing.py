"""References become pins, and pins the documents of their images: by digest, and each read once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import digests, parallel
from flowkiln._base.platforms import Platform
from flowkiln.images import oci
from flowkiln.images.basing import Bases
from flowkiln.images.errors import BaseAbsent, BaseOfAnotherPlatform, BaseUnreadable, BaseVersionUnknown
from flowkiln.images.registry import Fetched
from flowkiln.images.registryerrors import ManifestUnknown, RegistryUnreachable
from tests.images.rootfs_layers import SYSTEM, config, layer, local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowkiln.envs.basepin import BaseFacts
    from tests.images.registries import Clients

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


class Shelf:
    """A registry in memory that counts what it is asked for; ``bases`` reads from it."""

    def __init__(self) -> None:
        self.manifests: dict[str, Fetched] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []

    def manifest(self, repository: str, version: str) -> Fetched | None:
        assert repository == "team/base"
        self.asked.append(version)
        return self.manifests.get(version)

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        assert repository == "team/base"
        self.asked.append(digest)
        if digest not in self.blobs:
            raise ManifestUnknown(digest)
        yield self.blobs[digest]

    def read_blob(self, repository: str, digest: str) -> bytes:
        return b"".join(self.blob(repository, digest))

    def add(self, data: bytes) -> dict[str, Any]:
        digest = digests.of_bytes(data)
        self.blobs[digest] = data
        return {"mediaType": "x", "digest": digest, "size": len(data)}

    def put(self, document: dict[str, Any], tag: str, media_type: str = oci.MANIFEST) -> str:
        data = json.dumps(document).encode()
        fetched = Fetched(data=data, media_type=media_type, digest=digests.of_bytes(data))
        self.manifests[tag] = self.manifests[fetched.digest] = fetched
        return fetched.digest

    def image(self, arch: str = "amd64", tag: str = "1", **changes: Any) -> str:
        """The digest of a base with Python 3.11.9; ``changes`` are made to its config."""
        layers = [b"".join(layer(SYSTEM)()), b"".join(layer(local())())]
        content = config(arch, "PYTHON_VERSION=3.11.9", "PATH=/usr/local/bin:/usr/bin")
        content |= {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + 64 * "1", "sha256:" + 64 * "2"]}}
        rows = [self.add(data) for data in layers]
        document = {"schemaVersion": 2, "config": self.add(json.dumps(content | changes).encode()), "layers": rows}
        return self.put(document, tag)

    def index(self, *rows: tuple[str, dict[str, Any] | None], tag: str = "1", kind: str = oci.INDEX) -> str:
        manifests = [{"digest": digest, **({"platform": told} if told else {})} for digest, told in rows]
        return self.put({"schemaVersion": 2, "manifests": manifests}, tag, kind)


REFERENCE = "registry.example.com/team/base:1"


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def bases(shelf: Shelf, tmp_path: Path) -> Bases:
    return bases_of(shelf, tmp_path)


def bases_of(shelf: Shelf, cache: Path) -> Bases:
    def opened(host: str) -> Shelf:
        assert host == "registry.example.com"
        return shelf

    return Bases(opened, cache)


def test_a_single_image_is_pinned_and_opened_without_asking_again(shelf: Shelf, bases: Bases) -> None:
    digest = shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    assert (pin.reference, pin.platform, pin.manifest, pin.bytecode) == (REFERENCE, AMD64, digest, None)
    assert (pin.facts.python, pin.facts.interpreter) == ("3.11.9", "/usr/local/bin/python3.11")
    asked = len(shelf.asked)
    image = bases.opened(pin)
    assert len(shelf.asked) == asked
    assert (image.manifest.digest, image.document.digest) == (pin.manifest, pin.config)
    assert [one.digest for one in image.layers] == [digest for digest in shelf.asked if digest in shelf.blobs][1:]
    assert image.diff_ids == ("sha256:" + 64 * "1", "sha256:" + 64 * "2")
    assert "PYTHON_VERSION=3.11.9" in image.environ
    assert str(bases.reference(pin)) == f"registry.example.com/team/base@{digest}"


def test_the_same_base_is_streamed_once(shelf: Shelf, bases: Bases, tmp_path: Path) -> None:
    first = shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    shelf.asked.clear()
    assert bases_of(shelf, tmp_path).pin(REFERENCE, AMD64) == pin
    assert shelf.asked == ["1"]
    by_digest = f"registry.example.com/team/base@{first}"
    assert bases.pin(by_digest, AMD64) == replace(pin, reference=by_digest)


def test_the_platform_of_an_index_is_chosen(shelf: Shelf, bases: Bases) -> None:
    amd64, arm64 = shelf.image(tag="a"), shelf.image("arm64", tag="b", config={"Env": ["PYTHON_VERSION=3.11.7"]})
    for kind in (oci.INDEX, oci.DOCKER_LIST):
        shelf.index(
            ("sha256:" + 64 * "0", {"os": "unknown", "architecture": "unknown"}),
            ("sha256:" + 64 * "0", None),
            ("sha256:" + 64 * "0", {"os": "linux", "architecture": "amd64", "variant": "v3"}),
            (amd64, {"os": "linux", "architecture": "amd64"}),
            ("sha256:" + 64 * "0", {"os": "linux", "architecture": "arm", "variant": "v7"}),
            (arm64, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
            kind=kind,
        )
        assert bases.pin(REFERENCE, AMD64).manifest == amd64
        assert bases.pin(REFERENCE, ARM64).manifest == arm64


def test_a_platform_that_an_index_lacks(shelf: Shelf, bases: Bases) -> None:
    shelf.index(
        (shelf.image(tag="a"), {"os": "linux", "architecture": "amd64"}),
        ("sha256:" + 64 * "0", {"os": "linux", "architecture": "arm64", "variant": "v9"}),
        ("sha256:" + 64 * "0", {"os": "unknown", "architecture": "unknown"}),
    )
    with pytest.raises(BaseOfAnotherPlatform, match=r"is not for linux/arm64; it has linux/amd64, linux/arm64/v9$"):
        bases.pin(REFERENCE, ARM64)
    shelf.index()
    with pytest.raises(BaseOfAnotherPlatform, match="it has no platform"):
        bases.pin(REFERENCE, ARM64)


def test_a_single_image_of_another_platform_costs_no_layer(shelf: Shelf, bases: Bases) -> None:
    shelf.image()
    with pytest.raises(BaseOfAnotherPlatform, match=f"base {REFERENCE} is not for linux/arm64; it has linux/amd64"):
        bases.pin(REFERENCE, ARM64)
    assert len(shelf.asked) == 2
    pin = bases.pin(REFERENCE, AMD64)
    with pytest.raises(BaseOfAnotherPlatform):
        bases.pin(REFERENCE, ARM64)
    assert pin.platform == AMD64


def test_an_index_that_says_the_wrong_platform(shelf: Shelf, bases: Bases) -> None:
    shelf.index((shelf.image("amd64", tag="a"), {"os": "linux", "architecture": "arm64"}))
    with pytest.raises(BaseOfAnotherPlatform, match="it has linux/amd64"):
        bases.pin(REFERENCE, ARM64)


def test_absent_bases(shelf: Shelf, bases: Bases) -> None:
    with pytest.raises(BaseAbsent, match=r"registry\.example\.com has no image registry\.example\.com/team/base:1"):
        bases.pin(REFERENCE, AMD64)
    shelf.index(("sha256:" + 64 * "0", {"os": "linux", "architecture": "amd64"}))
    with pytest.raises(BaseAbsent, match="but not its manifest for linux/amd64"):
        bases.pin(REFERENCE, AMD64)


def test_a_pin_of_another_machine_is_opened_by_digest(shelf: Shelf, bases: Bases, tmp_path: Path) -> None:
    shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    shelf.manifests["1"] = shelf.manifests[shelf.image(tag="2", created="later")]
    elsewhere = bases_of(shelf, tmp_path / "elsewhere")
    shelf.asked.clear()
    assert elsewhere.opened(pin).manifest.digest == pin.manifest
    assert shelf.asked == [pin.manifest, pin.config]
    assert elsewhere.opened(pin) == elsewhere.opened(pin)
    assert len(shelf.asked) == 2
    shelf.manifests.pop("1")
    shelf.manifests["1"] = shelf.manifests[pin.manifest]
    assert elsewhere.pin(REFERENCE, AMD64) == pin, "what was opened without its layers is read when it is pinned"


def test_a_pinned_manifest_that_is_gone(shelf: Shelf, bases: Bases, tmp_path: Path) -> None:
    shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    del shelf.manifests[pin.manifest]
    assert bases.opened(pin).manifest.digest == pin.manifest
    with pytest.raises(BaseAbsent, match=r"no longer has .*, which the lock pins for") as caught:
        bases_of(shelf, tmp_path / "elsewhere").opened(pin)
    assert "--upgrade-base" in (caught.value.hint or "")


def test_what_does_not_fit_the_pin_is_refused(shelf: Shelf, bases: Bases, tmp_path: Path) -> None:
    shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    with pytest.raises(BaseUnreadable, match="the lock says sha256:0000"):
        bases.opened(replace(pin, config="sha256:" + 64 * "0"))
    shelf.manifests[pin.manifest] = shelf.manifests[shelf.image(tag="2", created="later")]
    with pytest.raises(
        BaseUnreadable, match=f"answers sha256:.* for registry.example.com/team/base@{pin.manifest}"
    ):
        bases_of(shelf, tmp_path / "elsewhere").opened(pin)


@pytest.mark.parametrize("damage", ["cut", "manifest", "config", "survey", "schema", "list"])
def test_a_damaged_cache_is_read_anew(shelf: Shelf, bases: Bases, tmp_path: Path, damage: str) -> None:
    shelf.image()
    pin = bases.pin(REFERENCE, AMD64)
    (path,) = (tmp_path / "images" / "bases").glob("*.json")
    document = json.loads(path.read_text())
    whole = path.read_text()
    if damage == "cut":
        path.write_text(whole[:100])
    elif damage == "list":
        path.write_text("[]")
    else:
        document[damage] = {"schema": 99, "survey": {"pythons": []}}.get(damage) or document[damage].replace(
            "3", "4"
        )
        path.write_text(json.dumps(document))
    shelf.asked.clear()
    assert bases.opened(pin).document.digest == pin.config
    assert bases.pin(REFERENCE, AMD64) == pin
    assert len([one for one in shelf.asked if one in shelf.blobs]) >= 3
    assert path.read_text() == whole


@pytest.mark.parametrize(
    ("document", "media_type", "said"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "", "manifest of schema 1"),
        ({"schemaVersion": 2, "config": {"digest": "x"}}, oci.MANIFEST, "is no image"),
        ({"schemaVersion": 2}, "application/vnd.other", "is no image: its manifest is application/vnd.other"),
        (["not", "an", "object"], oci.MANIFEST, "no JSON object"),
    ],
)
def test_what_is_no_image(shelf: Shelf, bases: Bases, document: Any, media_type: str, said: str) -> None:
    shelf.put(document, "1", media_type)
    with pytest.raises(BaseUnreadable, match=said):
        bases.pin(REFERENCE, AMD64)


@pytest.mark.parametrize(
    "changes",
    [
        {"rootfs": {"diff_ids": []}},
        {"rootfs": None},
        {"rootfs": {"diff_ids": [1, 2]}},
        {"config": {"Env": [1]}},
        {"config": "text"},
    ],
)
def test_a_config_that_does_not_fit(shelf: Shelf, bases: Bases, changes: dict[str, Any]) -> None:
    shelf.image(**changes)
    with pytest.raises(BaseUnreadable, match=f"base {REFERENCE} has a (manifest or )?config that"):
        bases.pin(REFERENCE, AMD64)


def test_an_unknown_release_is_told_with_the_base_and_kept_for_a_declaration(shelf: Shelf, bases: Bases) -> None:
    shelf.image(config={"Env": []})
    with pytest.raises(BaseVersionUnknown, match=f"base {REFERENCE} has /usr/local/bin/python3.11, and nothing"):
        bases.pin(REFERENCE, AMD64)
    shelf.asked.clear()
    assert bases.pin(REFERENCE, AMD64, python="3.11.4").facts.python == "3.11.4"
    assert shelf.asked == ["1"]


def test_a_layer_that_cannot_be_read_leaves_nothing_behind(shelf: Shelf, bases: Bases, tmp_path: Path) -> None:
    digest = shelf.image()
    layers = json.loads(shelf.manifests[digest].data)["layers"]
    lost = shelf.blobs.pop(layers[1]["digest"])
    with pytest.raises(ManifestUnknown):
        bases.pin(REFERENCE, AMD64)
    assert not list((tmp_path / "images" / "bases").glob("*.json"))
    shelf.blobs[layers[1]["digest"]] = lost
    assert bases.pin(REFERENCE, AMD64).manifest == digest


def test_those_who_pin_at_once_stream_it_once(shelf: Shelf, tmp_path: Path) -> None:
    shelf.image()
    pins = parallel.together(lambda number: bases_of(shelf, tmp_path).pin(REFERENCE, AMD64), range(6), at_once=6)
    assert len(set(pins)) == 1
    assert sorted(one for one in shelf.asked if one in shelf.blobs) == sorted(shelf.blobs)


# -- real registries -----------------------------------------------------------------------------------------------


@pytest.fixture
def real(clients: Clients, tmp_path: Path) -> Bases:
    return Bases(lambda host: clients(host, retries=0).registry, tmp_path)


def facts_of(bases: Bases, base: str, platform: Platform = AMD64) -> BaseFacts:
    pin = bases.pin(base, platform)
    image = bases.opened(pin)
    assert image.config["architecture"] == platform.arch
    assert len(image.diff_ids) == len(image.layers)
    return pin.facts


@pytest.mark.e2e
def test_bases_like_the_official_slim_ones(real: Bases, slim_base: str, newer_slim_base: str) -> None:
    for platform in (AMD64, ARM64):
        found = facts_of(real, slim_base, platform)
        assert (found.python, found.interpreter) == ("3.11.2", "/usr/local/bin/python3.11")
        assert (found.libc, found.glibc, found.stdlib) == ("glibc", (2, 36), "/usr/local/lib/python3.11")
        assert not found.stdlib_bytecode
        assert found.path.startswith("/usr/local/bin:")
    newer = facts_of(real, newer_slim_base)
    assert (newer.python, newer.glibc) == ("3.13.5", (2, 41))
    with pytest.raises(BaseOfAnotherPlatform, match="is not for linux/arm64; it has linux/amd64"):
        real.pin(newer_slim_base, ARM64)


@pytest.mark.e2e
def test_a_debian_a_bare_one_and_one_without_tools(
    real: Bases, debian_base: str, bare_base: str, distroless_base: str
) -> None:
    debian = facts_of(real, debian_base)
    assert (debian.python, debian.interpreter, debian.glibc) == ("3.11.2", "/usr/bin/python3.11", (2, 36))
    assert (debian.stdlib, debian.stdlib_bytecode) == ("/usr/lib/python3.11", True)
    bare = facts_of(real, bare_base)
    assert (bare.python, bare.interpreter, bare.libc, bare.glibc) == (None, None, "glibc", (2, 36))
    distroless = facts_of(real, distroless_base)
    assert (distroless.python, distroless.interpreter) == ("3.11.2", "/usr/bin/python3.11")
    assert (distroless.user, distroless.entrypoint) == ("65532", ("/usr/bin/python3",))


@pytest.mark.e2e
def test_a_real_registry_without_the_base_and_none_at_all(real: Bases, slim_base: str) -> None:
    host = slim_base.partition("/")[0]
    with pytest.raises(BaseAbsent, match=f"{host} has no image {host}/library/nothing:1"):
        real.pin(f"{host}/library/nothing:1", AMD64)
    with pytest.raises(RegistryUnreachable):
        real.pin("127.0.0.1:1/library/python:3.11-slim", AMD64)
