"""Images into local engines: what travels, what is left when it fails, and what the engine then runs."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import digests
from flowkiln._base.endpoints import Endpoint
from flowkiln._base.engine import Engine
from flowkiln._base.engineerrors import EngineError, EngineFailed, EngineFull, EngineTooOld
from flowkiln._base.report import Silent
from flowkiln.images import loading, oci
from flowkiln.images.errors import LayerDiffers, LoadDiffers
from flowkiln.images.loading import BaseLayer, Image, Loaded, NewLayer
from tests import stack
from tests.services import tinyimage
from tests.services.engine import FakeEngine, Reply, document, stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.tinyimage import Pushed

KEY = {"io.flowkiln.image-key": "sha256:0"}


def tar(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def new_layer(data: bytes, *, claimed: bytes | None = None) -> NewLayer:
    """A layer that is written in two pieces; ``claimed`` is what it is said to hold."""
    said = claimed or data
    return NewLayer(
        diff_id=digests.of_bytes(said),
        size=len(said),
        write=lambda sink: (sink(data[:700]), sink(data[700:]), None)[2],
    )


def image(base: Pushed, *new: NewLayer) -> Image:
    diff_ids = [*base.config["rootfs"]["diff_ids"], *(layer.diff_id for layer in new)]
    about = {
        **base.config,
        "config": {"Labels": KEY, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config = oci.Document(media_type=oci.CONFIG, data=json.dumps(about).encode())
    descriptors = [blob for _, blob, _ in base.layers]
    descriptors += [oci.Descriptor(media_type=oci.LAYER, digest=one.diff_id, size=one.size) for one in new]
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": config.descriptor.to_json(),
        "layers": [one.to_json() for one in descriptors],
    }
    manifest = oci.Document(media_type=oci.MANIFEST, data=json.dumps(body).encode())
    layers = [BaseLayer(diff_id=diff_id, blob=blob) for diff_id, blob, _ in base.layers]
    return Image(manifest=manifest, config=config, base=layers, new=new)


@dataclass
class Loader:
    """Loads into one engine under names of its own, and notes what was asked for."""

    engine: Any
    base: Pushed
    repository: str = field(default_factory=lambda: f"loading-tests/{os.urandom(6).hex()}")
    asked: list[str] = field(default_factory=list)
    pulls: bool | EngineError = True

    def load(self, tag: str, *new: NewLayer) -> Loaded:
        self.asked.clear()
        return loading.load(
            self.engine,
            image(self.base, *new),
            reference=self.name(tag),
            base_bytes=self._bytes,
            pull_base=self._pull,
            reporter=Silent(),
        )

    def name(self, tag: str) -> str:
        return f"{self.repository}:{tag}"

    def names(self) -> set[str]:
        """The tags that the engine has in the repository."""
        rows = self.engine.images(labels={"io.flowkiln.image-key": None})
        tags = {tag for row in rows for tag in row.get("RepoTags") or ()}
        return {tag.partition(":")[2] for tag in tags if tag.startswith(f"{self.repository}:")}

    def run(self, tag: str, command: str) -> str:
        spec = {"Image": self.name(tag), "Cmd": ["/bin/sh", "-c", command], "HostConfig": {"NetworkMode": "none"}}
        container = self.engine.create("", spec)
        try:
            self.engine.start(container)
            assert self.engine.wait(container) == 0
            return b"".join(data for _, data in self.engine.logs(container, follow=False)).decode()
        finally:
            self.engine.remove(container)

    def _bytes(self, layer: BaseLayer) -> Iterator[bytes]:
        self.asked.append("bytes")
        data = next(data for diff_id, _, data in self.base.layers if diff_id == layer.diff_id)
        yield data[:1000]
        yield data[1000:]

    def _pull(self) -> None:
        self.asked.append("pull")
        if isinstance(self.pulls, EngineError):
            raise self.pulls
        if self.pulls:
            self.engine.pull(self.base.reference)


@pytest.fixture(scope="module", params=["overlay2", "containerd"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(Endpoint(stack.engine(request.param).host, "tests")) as client:
        yield client


@pytest.fixture
def loader(engine: Engine) -> Iterator[Loader]:
    """A base that the engine has never seen, and a repository of its own."""
    unique = tar("unique", os.urandom(8).hex())
    base = tinyimage.push_base(stack.registry("plain").url, "loading-tests/base", unique, tinyimage.layer())
    made = Loader(engine, base)
    yield made
    made.engine = engine
    for tag in made.names():
        engine.remove_image(made.name(tag), force=True)
    engine.remove_image(base.reference, force=True)


ONE, TWO = tar("one", "first\n"), tar("two", "second\n")


@pytest.mark.e2e
def test_new_layers_alone_travel(loader: Loader) -> None:
    done = loader.load("a", new_layer(ONE), new_layer(TWO))
    assert loader.asked == ["pull"]
    assert done.sent == len(ONE) + len(TWO)
    found = loader.engine.image(loader.name("a"))
    assert found["Id"] == done.id
    expected = done.manifest.digest if loader.engine.containerd_store else image_config(found, loader)
    assert done.id == expected
    assert loader.run("a", "cat /one /two /unique").startswith("first\nsecond\n")

    other = tar("two", "changed, and longer than it was\n")
    again = loader.load("b", new_layer(ONE), new_layer(other))
    assert loader.asked == []
    assert again.sent == len(other)
    assert loader.run("b", "cat /one /two") == "first\nchanged, and longer than it was\n"
    assert loader.run("a", "cat /two") == "second\n"
    assert loader.names() == {"a", "b"}


def image_config(found: dict[str, Any], loader: Loader) -> str:
    """The digest of the config of the first image, computed anew."""
    made = image(loader.base, new_layer(ONE), new_layer(TWO))
    assert found["RootFS"]["Layers"] == made.diff_ids
    return made.config.digest


@pytest.mark.e2e
def test_what_is_there_is_not_sent_again(loader: Loader) -> None:
    first = loader.load("a", new_layer(ONE))
    second = loader.load("a", new_layer(ONE))
    assert (second.sent, second.id, loader.asked) == (0, first.id, [])
    renamed = loader.load("b", new_layer(ONE))
    assert (renamed.sent, renamed.id) == (0, first.id)
    replaced = loader.load("a", new_layer(TWO))
    assert replaced.id != first.id
    assert loader.engine.image(loader.name("a"))["Id"] == replaced.id


@pytest.mark.e2e
@pytest.mark.parametrize("pulls", [False, EngineFailed("x509: certificate signed by unknown authority")])
def test_an_engine_without_the_base_is_sent_everything(loader: Loader, pulls: bool | EngineError) -> None:
    """It said that it has the base and does not, or it cannot reach the registry that we can."""
    loader.pulls = pulls
    done = loader.load("a", new_layer(ONE))
    assert loader.asked == ["pull", "bytes", "bytes"]
    assert done.sent == len(ONE) + sum(blob.size for _, blob, _ in loader.base.layers)
    assert loader.run("a", "cat /one") == "first\n"
    assert loader.names() == {"a"}


@pytest.mark.e2e
def test_an_engine_that_lacks_blobs_of_the_base_is_sent_everything(engine: Engine, loader: Loader) -> None:
    """The containerd store fetches no blob whose snapshot it has, here from an image loaded as a plain tar."""
    layer = tinyimage.layer(os.urandom(8).hex())
    tinyimage.load_plain(engine, loader.name("plain"), layer)
    loader.base = tinyimage.push_base(stack.registry("plain").url, "loading-tests/base", layer)
    loader.load("a", new_layer(ONE))
    assert loader.asked == (["pull", "bytes"] if engine.containerd_store else ["pull"])
    assert loader.names() == {"a"}
    assert loader.run("a", "cat /one") == "first\n"
    engine.remove_image(loader.name("plain"), force=True)
    engine.remove_image(loader.base.reference, force=True)


class Boasting:
    """An engine that shows an image with layers that it no longer has when they are needed."""

    def __init__(self, engine: Engine, name: str, diff_ids: list[str]) -> None:
        self._engine = engine
        self._row = {"Id": "sha256:gone", "RepoTags": [name], "Created": 1 << 40}
        self._gone = {"Id": "sha256:gone", "RootFS": {"Layers": diff_ids}}

    def images(self, *, labels: dict[str, str | None]) -> list[dict[str, Any]]:
        return [self._row, *self._engine.images(labels=labels)]

    def image(self, reference: str) -> dict[str, Any] | None:
        return self._gone if reference == "sha256:gone" else self._engine.image(reference)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.mark.e2e
def test_layers_that_went_away_meanwhile_are_sent(loader: Loader) -> None:
    unseen = tar("one", os.urandom(8).hex())
    layers = [new_layer(unseen), new_layer(TWO)]
    loader.engine = Boasting(loader.engine, loader.name("gone"), image(loader.base, *layers[:1]).diff_ids)
    done = loader.load("a", *layers)
    assert loader.asked == ["pull"]
    assert done.sent == len(unseen) + len(TWO)
    assert loader.run("a", "cat /two") == "second\n"


@pytest.mark.e2e
def test_other_bytes_than_announced_leave_no_name(loader: Loader) -> None:
    with pytest.raises(LayerDiffers):
        loader.load("short", new_layer(ONE[:-512], claimed=ONE))
    with pytest.raises(LayerDiffers):
        loader.load("long", new_layer(ONE + bytes(512), claimed=ONE))
    unseen = tar("one", os.urandom(8).hex())
    with pytest.raises(EngineError):
        loader.load("other", new_layer(tar("one", "x" * 16), claimed=unseen))
    assert loader.names() == set()


# -- what a real engine does not do on demand


PLAIN = tinyimage.Pushed("registry/base@sha256:0", {"rootfs": {"diff_ids": []}}, [])


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "e.sock") as engine:
        engine.on("GET", "/images/json", document([]))
        engine.on("GET", "/images/.*/json", Reply(404))
        engine.on("DELETE", "/images/.*", Reply(404))
        engine.on("POST", "/images/.*/tag", Reply(201))
        yield engine


@pytest.fixture
def client(fake: FakeEngine) -> Iterator[Engine]:
    with Engine(Endpoint(fake.url, "tests")) as engine:
        yield engine


def test_no_space_left(fake: FakeEngine, client: Engine) -> None:
    fake.on("POST", "/images/load", stream({"errorDetail": {"message": "write: no space left on device"}}))
    with pytest.raises(EngineFull):
        Loader(client, PLAIN, pulls=False).load("a", new_layer(ONE))
    asked = [one for one in fake.requests if one.method in {"POST", "DELETE"}]
    assert [one.path.rpartition("/")[2] for one in asked if one.method == "POST"] == ["load"]
    assert asked[-1].method == "DELETE"
    assert ":loading-" in asked[-1].path


def test_an_engine_that_makes_another_image_of_it(fake: FakeEngine, client: Engine) -> None:
    fake.on("POST", "/images/load", stream({"stream": "Loaded image: x"}))
    fake.on("GET", "/images/.*/json", Reply(404), document({"Id": "sha256:1", "RootFS": {"Layers": []}}))
    with pytest.raises(LoadDiffers):
        Loader(client, PLAIN, pulls=False).load("a", new_layer(ONE))
    assert not [one for one in fake.requests if one.path.endswith("/tag")]


def test_zstd_is_refused_where_it_cannot_be_read(tmp_path: Path) -> None:
    blob = oci.Descriptor(media_type=oci.LAYER_ZSTD, digest=digests.of_bytes(b"z"), size=1)
    base = tinyimage.Pushed(
        "x", {"rootfs": {"diff_ids": [digests.of_bytes(b"d")]}}, [(digests.of_bytes(b"d"), blob, b"z")]
    )
    version = {"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}
    with FakeEngine(tmp_path / "e.sock", version=version) as fake, Engine(Endpoint(fake.url, "t")) as client:
        fake.on("GET", "/images/json", document([]))
        fake.on("GET", "/images/.*/json", Reply(404))
        with pytest.raises(EngineTooOld, match=r"zstd, which engine 20\.10\.24"):
            Loader(client, base).load("a", new_layer(ONE))
        assert not [one for one in fake.requests if one.method == "POST"]
