"""Images as registries and OCI layouts hold them: the config of each platform, and its layers as checked bytes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Protocol

from flowkiln._base import digests
from flowkiln.images import layout
from flowkiln.images.errors import BadLayout, BaseAbsent, BaseUnreadable
from flowkiln.images.oci import Descriptor
from flowkiln.images.registryerrors import WrongContent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.images.basing import RegistryReader
    from flowkiln.images.reference import Reference

    Opened = Callable[[], Iterator[bytes]]

_PIECE = 1 << 20
_LARGEST = 8 << 20
"""Bytes of a manifest, index or config above which it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One platform of an image. ``name`` leads to it, ``layers`` are (diff id, what gives its bytes), lowest first.

    ``size`` is how many bytes the layers are, as they are stored.
    """

    name: str
    digest: str
    config_digest: str
    config: JSONObject
    size: int
    layers: tuple[tuple[str, Opened], ...]


class _Holder(Protocol):
    """Where manifests and blobs are."""

    def manifest(self, digest: str) -> bytes:
        """The checked bytes of a manifest or index."""

    def document(self, digest: str) -> bytes:
        """The checked bytes of a config."""

    def blob(self, digest: str) -> Iterator[bytes]:
        """The checked bytes of a layer as they come."""


def in_registry(registry: RegistryReader, place: Reference) -> list[StoredImage]:
    """The platforms of the image at ``place``. Raises ``BaseAbsent``, ``BaseUnreadable`` and registry errors."""
    fetched = registry.manifest(place.repository, place.version)
    if fetched is None:
        raise BaseAbsent(f"{place.host} has no image {place}", hint="Check its name, and that you are logged in.")
    holder = _Repository(registry, place.repository)
    return list(_images(place.name + "@", fetched.digest, fetched.data, holder))


def in_layout(path: Path, name: str) -> list[StoredImage]:
    """The platforms of the image ``name`` of a layout, a folder or ``.tar``; "" for the only one.

    Raises ``BadLayout``, ``BaseUnreadable`` and ``WrongContent``.
    """
    holder = _Layout(path)
    rows = [row for row in holder.rows() if name in ("", (row.get("annotations") or {}).get(layout.NAME))]
    if len(rows) != 1:
        names = [str((row.get("annotations") or {}).get(layout.NAME)) for row in holder.rows()]
        message = f"{path} has no image {name!r}" if name else f"{path} has {len(rows)} images"
        hint = f"Name one of them: oci:{path}:NAME with {', '.join(names)}." if names else None
        raise BadLayout(message, hint=hint)
    digest = str(rows[0].get("digest"))
    return list(_images(f"oci:{path}@", digest, holder.document(digest), holder))


def _images(where: str, digest: str, data: bytes, holder: _Holder) -> Iterator[StoredImage]:
    document = _object(where + digest, data)
    if "manifests" not in document:
        yield _image(where, digest, document, holder)
        return
    for row in document["manifests"]:
        platform = row.get("platform") or {}
        if platform.get("os") != "unknown":  # attestations are no images
            inner = str(row.get("digest"))
            yield from _images(where, inner, holder.manifest(inner), holder)


def _image(where: str, digest: str, document: JSONObject, holder: _Holder) -> StoredImage:
    try:
        named = Descriptor.from_json(document["config"])
        layers = [Descriptor.from_json(row) for row in document["layers"]]
        config = _object(where + digest, holder.document(named.digest))
        diff_ids = [str(one) for one in config["rootfs"]["diff_ids"]]
        opened = [partial(holder.blob, one.digest) for one in layers]
        pairs = tuple(zip(diff_ids, opened, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{where}{digest} is no image: its manifest or config is none ({error!r})"
        raise BaseUnreadable(message) from error
    return StoredImage(
        name=where + digest,
        digest=digest,
        config_digest=named.digest,
        config=config,
        size=sum(one.size for one in layers),
        layers=pairs,
    )


def _object(name: str, data: bytes) -> JSONObject:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BaseUnreadable(f"{name} has a manifest or config that is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BaseUnreadable(f"{name} has a manifest or config that is no JSON object")
    return document


@dataclass(frozen=True, slots=True)
class _Repository:
    registry: RegistryReader
    repository: str

    def manifest(self, digest: str) -> bytes:
        fetched = self.registry.manifest(self.repository, digest)
        if fetched is None:
            message = f"{self.repository} has an index that names {digest}, and not that manifest"
            raise BaseAbsent(message, hint="Bake and push the image again with --rebuild.")
        return fetched.data

    def document(self, digest: str) -> bytes:
        return self.registry.read_blob(self.repository, digest)

    def blob(self, digest: str) -> Iterator[bytes]:
        return self.registry.blob(self.repository, digest)


@dataclass(frozen=True, slots=True)
class _Layout:
    path: Path

    def rows(self) -> list[JSONObject]:
        """The images of the layout. Raises ``BadLayout``."""
        try:
            with self._opened("index.json") as stream:
                rows = json.loads(stream.read(_LARGEST))["manifests"]
        except (OSError, ValueError, LookupError, TypeError, tarfile.TarError) as error:
            why = str(error).partition("\n")[0]
            raise BadLayout(f"{self.path} is no OCI layout: {why}", hint="Name its folder or .tar.") from error
        return [row for row in rows if isinstance(row, dict)]

    def manifest(self, digest: str) -> bytes:
        return b"".join(self.blob(digest))

    def document(self, digest: str) -> bytes:
        return b"".join(self.blob(digest))

    def blob(self, digest: str) -> Iterator[bytes]:
        if not digests.is_digest(digest):
            raise BadLayout(f"{self.path} names a blob by {digest!r}, which is no digest")
        found = hashlib.sha256()
        try:
            with self._opened(layout.blob_path(digest)) as stream:
                while block := stream.read(_PIECE):
                    found.update(block)
                    yield block
        except (OSError, KeyError, tarfile.TarError) as error:
            raise BadLayout(f"{self.path} lacks the blob {digest}: {error}") from error
        if f"sha256:{found.hexdigest()}" != digest:
            message = f"{self.path}: the blob {digest} has other bytes"
            raise WrongContent(message, hint="The layout was damaged or changed: write it anew.")

    @contextmanager
    def _opened(self, inside: str) -> Iterator[IO[bytes]]:
        if self.path.is_dir():
            with (self.path / inside).open("rb") as stream:
                yield stream
            return
        with tarfile.open(self.path) as archive:
            content = archive.extractfile(inside)
            if content is None:
                raise KeyError(inside)
            yield content
