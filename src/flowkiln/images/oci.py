"""The parts of the OCI image specification that flowkiln writes, as values: descriptors and media types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln._base import digests

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = f"{LAYER}+gzip"
LAYER_ZSTD = f"{LAYER}+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_LIST)
ACCEPTED = (*MANIFESTS, *INDEXES)
"""Media types that a registry is asked for, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A blob as a manifest names it; ``size`` is in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = field(default=())

    def to_json(self) -> JSONObject:
        """As it stands in a manifest."""
        document: JSONObject = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> Descriptor:
        """The value that a manifest names. Raises ``KeyError`` and ``TypeError`` for anything else."""
        return cls(
            media_type=str(document["mediaType"]),
            digest=str(document["digest"]),
            size=int(document["size"]),
            annotations=tuple(sorted((str(k), str(v)) for k, v in (document.get("annotations") or {}).items())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A manifest, index or config as the bytes that its digest is of."""

    media_type: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """``sha256:...`` of the bytes."""
        return digests.of_bytes(self.data)

    @property
    def descriptor(self) -> Descriptor:
        """How others name it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=len(self.data))
