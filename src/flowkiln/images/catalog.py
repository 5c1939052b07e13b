"""The team's catalog: what a repository of images knows of the layers in it, so that nobody makes one twice.

Each layer has a small artifact under a tag that follows from its key (``images.entries`` says what is in it). The
repository is asked for the layers of a plan alone; what it answers is there, definitely not there, or an error.
"""

from __future__ import annotations

import io
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from flowkiln._base import parallel
from flowkiln.images import entries, oci
from flowkiln.images.entries import OtherSchema
from flowkiln.images.registryerrors import ManifestUnknown, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flowkiln._base.report import Reporter
    from flowkiln.images.compress import Compression
    from flowkiln.images.entries import Entry
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.oci import Descriptor, Document
    from flowkiln.images.records import LayerRecord
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry

AT_ONCE = 8
"""Requests at once."""
KINDS = ("packages", "bytecode", "runtime", "runtime-bytecode", "stdlib-bytecode")
"""Layers that are worth an entry: the glue is made of descriptions alone."""


class Catalog:
    """The catalog in one repository, of layers in one compression. Threads may share it.

    ``registry`` gives the client of the repository's registry.
    """

    def __init__(
        self, registry: Callable[[], Registry], repository: Reference, compression: Compression, reporter: Reporter
    ) -> None:
        self.repository = repository
        self.compression = compression
        self._opened = registry
        self._reporter = reporter
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._absent: set[str] = set()

    @cached_property
    def _registry(self) -> Registry:
        """The client: what needs no request needs none."""
        return self._opened()

    def tag_of(self, layer: LayerSpec) -> str:
        """The tag of a layer's entry; layers in another compression are other blobs."""
        tag = f"fkl-{layer.key.removeprefix('sha256:')[:40]}"
        return tag if self.compression == "gzip" else f"{tag}-{self.compression}"

    def fetch(
        self, layers: Iterable[LayerSpec], *, wheels: Callable[[LayerSpec], bool] = lambda _: True
    ) -> dict[str, Entry]:
        """The entries of ``layers`` by key; those that are definitely not there are missing.

        ``wheels`` says for which the descriptions of their wheels are wanted. An entry that is not sound is as good
        as none, and said. Raises the registry's errors: what is not known is not "no".
        """
        asked = [layer for layer in layers if layer.kind in KINDS]

        def one(layer: LayerSpec) -> Entry | None:
            return self._entry(layer, wheels=wheels(layer))

        found = parallel.together(one, asked, at_once=AT_ONCE)
        return {layer.key: entry for layer, entry in zip(asked, found, strict=True) if entry is not None}

    def publish(self, made: Sequence[tuple[LayerSpec, Entry]]) -> int:
        """How many entries were new: those of layers whose blobs are in the repository by now.

        A catalog that cannot be written costs others work and is no failure of ours: it is said, as a warning.
        """
        new = [
            (layer, entry)
            for layer, entry in made
            if layer.kind in KINDS
            and layer.key not in self._there
            and (entry.record.empty or entry.record.blob(self.compression) is not None)
        ]
        try:
            return sum(parallel.together(lambda pair: self._publish(*pair), new, at_once=AT_ONCE))
        except RegistryError as error:
            self._reporter.warn(f"the team's catalog in {self.repository.name} was not written: {error.message}")
            return 0

    def blob(self, record: LayerRecord) -> Iterator[bytes]:
        """The bytes of a layer as the repository has them, checked at the end. Raises the registry's errors."""
        found = record.blob(self.compression)
        if found is None:
            message = f"{self.repository.name} holds no layer {record.key} in {self.compression}"
            raise ManifestUnknown(message)
        return self._registry.blob(self.repository.repository, found[0])

    def _entry(self, layer: LayerSpec, *, wheels: bool) -> Entry | None:
        repository, tag = self.repository.repository, self.tag_of(layer)
        fetched = self._registry.manifest(repository, tag)
        if fetched is None:
            self._note(self._absent, layer)
            return None

        def blob(descriptor: Descriptor) -> bytes:
            return self._registry.read_blob(repository, descriptor.digest, limit=entries.LARGEST)

        try:
            entry = entries.read(fetched.data, layer, self.compression, blob, wheels=wheels)
        except OtherSchema:
            self._note(self._there, layer)
            return None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ManifestUnknown) as error:
            place = f"{self.repository.name}:{tag}"
            self._reporter.warn(f"{place} is no entry of the layer {layer.title!r} and is not used: {error}")
            self._note(self._absent, layer)
            return None
        self._note(self._there, layer)
        return entry

    def _publish(self, layer: LayerSpec, entry: Entry) -> int:
        repository, tag = self.repository.repository, self.tag_of(layer)
        if layer.key not in self._absent and self._registry.exists(repository, tag) is not None:
            self._note(self._there, layer)
            return 0
        made = entries.artifact(layer, entry, self.compression)
        for document in made.documents:
            if document.media_type != oci.EMPTY or not self._registry.has_blob(repository, document.digest):
                self._put(repository, document)
        self._registry.put_tag(repository, made.manifest, tag)
        self._note(self._there, layer)
        return 1

    def _put(self, repository: str, document: Document) -> None:
        data = document.data
        self._registry.put_blob(repository, document.digest, len(data), lambda: io.BytesIO(data))

    def _note(self, where: set[str], layer: LayerSpec) -> None:
        with self._lock:
            where.add(layer.key)
