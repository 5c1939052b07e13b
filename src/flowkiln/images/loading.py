"""An image goes into a local engine, and only the layers that the engine lacks travel.

One tar is both an OCI layout, which engines with the containerd image store read, and an archive as ``docker save``
writes it, which the others read. Our layers lie in it uncompressed, those of the base as its registry has them. It
is made while it is sent: no layer is held in memory or written to disk.

The image gets its name when it is known to be whole. An engine with the containerd store keeps the name of a load
that it refused, and inspecting such an image shows nothing wrong, so that each load has a name of its own first.
Nor does it fetch a blob of the base whose snapshot it has from elsewhere; what is made on that runs, but is not
listed and cannot be pushed: such a load is done again with everything.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flowkiln._base.engineerrors import EngineError, EngineFailed, EngineRefused, EngineTooOld, ImageMissing
from flowkiln._base.json import canonical
from flowkiln.images import layout
from flowkiln.images import reference as references
from flowkiln.images.errors import LayerDiffers, LoadDiffers
from flowkiln.images.manifest import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flowkiln._base.engineconnection import Body
    from flowkiln._base.json import JSONObject
    from flowkiln._base.report import Phase, Reporter
    from flowkiln.images.archive import Sink
    from flowkiln.images.oci import Descriptor, Document
    from flowkiln.images.reference import Reference

LOADING = "loading-"
"""How the tags of loads that go on begin; one that was killed leaves such a tag behind."""
_REFUSALS = (EngineFailed, EngineRefused, ImageMissing)
_MOST_ASKED = 40
"""Images of ours that are looked at for layers that they share with the new one."""


class EngineLike(Protocol):
    """What is needed of an engine: ``flowkiln._base.engine.Engine`` is one."""

    @property
    def containerd_store(self) -> bool:
        """Whether an image's id is the digest of its manifest."""

    def version(self) -> JSONObject:
        """Its version."""

    def image(self, reference: str, /) -> JSONObject | None:
        """An image, None when there is none."""

    def images(self, *, labels: Mapping[str, str | None]) -> list[JSONObject]:
        """The images with these labels."""

    def load(self, archive: Body, /) -> list[str]:
        """Takes the images of an archive."""

    def tag(self, image: str, repository: str, tag: str, /) -> None:
        """Names an image."""

    def remove_image(self, reference: str, /) -> bool:
        """Removes a name, and the image with its last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLayer:
    """A layer of the base: ``blob`` is what its registry has, ``diff_id`` the digest of it uncompressed."""

    diff_id: str
    blob: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLayer:
    """A layer of ours. ``write`` gives the ``size`` bytes of its tar, each time that it is called."""

    diff_id: str
    size: int
    write: Callable[[Sink], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An image in an engine. ``id`` is what the engine calls it, ``sent`` the bytes of layers that it was given."""

    id: str
    manifest: Document
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image to load. ``manifest`` names the base's blobs and our layers uncompressed, by their diff ids."""

    manifest: Document
    config: Document
    base: Sequence[BaseLayer]
    new: Sequence[NewLayer]

    @property
    def diff_ids(self) -> list[str]:
        """Every layer, the base's first."""
        return [*(layer.diff_id for layer in self.base), *(layer.diff_id for layer in self.new)]


def load(
    engine: EngineLike,
    image: Image,
    *,
    reference: str,
    base_bytes: Callable[[BaseLayer], Iterator[bytes]],
    pull_base: Callable[[], None],
    reporter: Reporter,
) -> Loaded:
    """The image as ``reference`` names it in the engine afterwards.

    ``pull_base`` makes the engine have the base; ``base_bytes`` streams a blob of the base as its registry has it,
    for an engine that wants it sent. Layers that another image of ours in the same repository has are not sent.
    Raises ``EngineError`` and ``LoadDiffers``; the name is given only to a whole image.
    """
    name = references.parse(reference)
    expected = image.manifest.digest if engine.containerd_store else image.config.digest
    if is_same(engine.image(str(name)), expected, image):
        return Loaded(id=expected, manifest=image.manifest, sent=0)
    job = _Load(engine, image, name, expected, base_bytes, reporter)
    known = _known(engine, name, image.diff_ids)
    if known >= len(image.base):
        with contextlib.suppress(*_REFUSALS):  # the image that has these layers may be gone by now
            return job.attempt(known)
    _readable(engine, image)
    try:
        pull_base()
        return job.attempt(len(image.base))
    except _REFUSALS as error:
        reporter.warn(f"the engine wants the base as well: {error.message}")
    return job.attempt(0)


@dataclass(frozen=True, slots=True)
class _Load:
    engine: EngineLike
    image: Image
    name: Reference
    expected: str
    base_bytes: Callable[[BaseLayer], Iterator[bytes]]
    reporter: Reporter

    def attempt(self, skipped: int) -> Loaded:
        """The image, loaded without sending the first ``skipped`` layers. A failure leaves no name behind."""
        scratch = self.name.tagged(f"{LOADING}{os.urandom(8).hex()}")
        try:
            sent = self._send(scratch, skipped)
            if not is_same(self.engine.image(str(scratch)), self.expected, self.image):
                message = f"the engine made another image of {self.name} than it was given"
                raise LoadDiffers(message, data={"expected": self.expected})
            if skipped and self.engine.containerd_store and not self._complete(scratch):
                message = f"the engine lacks layers of {self.name} that it was thought to have"
                raise EngineRefused(message)
            self.engine.tag(str(scratch), self.name.name, self.name.version)
        finally:
            with contextlib.suppress(EngineError):
                self.engine.remove_image(str(scratch))
        return Loaded(id=self.expected, manifest=self.image.manifest, sent=sent)

    def _complete(self, scratch: Reference) -> bool:
        """Whether the engine lists the image. One whose blobs it lacks runs from snapshots, but is not listed."""
        rows = self.engine.images(labels={f"{LABEL}.image-key": None})
        return any(_familiar(scratch) == tag for row in rows for tag in row.get("RepoTags") or ())

    def _send(self, scratch: Reference, skipped: int) -> int:
        base = self.image.base[skipped:]
        new = self.image.new[max(0, skipped - len(self.image.base)) :]
        total = sum(layer.blob.size for layer in base) + sum(layer.size for layer in new)
        with self.reporter.phase("load", total=total, unit="bytes") as phase:

            def write(sink: Sink) -> None:
                sink(b"".join(layout.entry(path, data) for path, data in _documents(self.image, scratch)))
                for layer in base:
                    _layer(sink, phase, layer.blob.digest, layer.blob.size, self._blob(layer))
                for one in new:
                    _layer(sink, phase, one.diff_id, one.size, one.write)
                sink(layout.END)

            self.engine.load(write)
        return total

    def _blob(self, layer: BaseLayer) -> Callable[[Sink], None]:
        def write(sink: Sink) -> None:
            for block in self.base_bytes(layer):
                sink(block)

        return write


def _documents(image: Image, name: Reference) -> Iterator[tuple[str, bytes]]:
    """The files beside the layers: what an OCI layout and what an archive of ``docker save`` has."""
    full = str(name)
    note = {"io.containerd.image.name": full, layout.NAME: name.version}
    row = {**image.manifest.descriptor.to_json(), "annotations": note}
    blobs = [*(layer.blob.digest for layer in image.base), *(layer.diff_id for layer in image.new)]
    saved = {
        "Config": layout.blob_path(image.config.digest),
        "RepoTags": [full],
        "Layers": [layout.blob_path(one) for one in blobs],
    }
    yield "oci-layout", layout.LAYOUT
    yield "index.json", layout.index_of([row])
    yield "manifest.json", canonical([saved])
    yield layout.blob_path(image.config.digest), image.config.data
    yield layout.blob_path(image.manifest.digest), image.manifest.data


def _layer(sink: Sink, phase: Phase, digest: str, size: int, write: Callable[[Sink], None]) -> None:
    """Gives a layer's entry. Raises ``LayerDiffers`` when it has not the size that was announced."""
    given = 0

    def take(data: bytes) -> None:
        nonlocal given
        given += len(data)
        if given > size:
            raise _wrong_size(digest, size)
        sink(data)
        phase.advance(len(data), item=digest)

    sink(layout.header(layout.blob_path(digest), size))
    write(take)
    if given != size:
        raise _wrong_size(digest, size)
    sink(layout.padding(size))


def _wrong_size(digest: str, size: int) -> LayerDiffers:
    message = f"layer {digest} has not the {size} bytes that are recorded"
    return LayerDiffers(message, hint="Bake the image again.", data={"digest": digest, "size": size})


def is_same(found: JSONObject | None, expected: str, image: Image) -> bool:
    """Whether the engine's image has the id and the layers that it must have."""
    layers = ((found or {}).get("RootFS") or {}).get("Layers")
    return found is not None and found.get("Id") == expected and layers == image.diff_ids


def _known(engine: EngineLike, name: Reference, diff_ids: Sequence[str]) -> int:
    """How many of the first layers an image of ours with a name in the same repository has."""
    most = 0
    try:
        rows = engine.images(labels={f"{LABEL}.image-key": None})
    except EngineRefused:  # over an image of somebody else's: then all is sent
        return 0
    ours = [row for row in rows if any(_whole(tag, name) for tag in row.get("RepoTags") or ())]
    for row in ours[:_MOST_ASKED]:
        other = engine.image(str(row["Id"])) or {}
        layers = (other.get("RootFS") or {}).get("Layers") or []
        same = [mine == theirs for mine, theirs in zip(diff_ids, layers, strict=False)]
        most = max(most, [*same, False].index(False))
    return most


def _whole(tag: str, name: Reference) -> bool:
    """Whether ``tag`` is a name in the repository that was given to a whole image."""
    repository, _, version = tag.rpartition(":")
    return _familiar(name).rpartition(":")[0] == repository and not version.startswith(LOADING)


def _familiar(name: Reference) -> str:
    """A name with its tag as engines list it."""
    return f"{name.name.removeprefix('docker.io/').removeprefix('library/')}:{name.version}"


def _readable(engine: EngineLike, image: Image) -> None:
    """Raises ``EngineTooOld`` when the base has layers that the engine cannot decompress."""
    if any(layer.blob.media_type.endswith("zstd") for layer in image.base) and not reads_zstd(engine):
        version = engine.version().get("Version")
        message = f"the base's layers are compressed with zstd, which engine {version} cannot read"
        raise EngineTooOld(message, hint="Update Docker to 23 or later, or use a base whose layers are gzip.")


def reads_zstd(engine: EngineLike) -> bool:
    """Whether the engine takes layers that are compressed with zstd: Docker does since 23, API 1.42."""
    major, _, minor = str(engine.version().get("ApiVersion") or "0.0").partition(".")
    return engine.containerd_store or (int(major), int(minor or 0)) >= (1, 42)
