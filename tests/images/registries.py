"""Clients of registries and small images, for the tests of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import ssl
import tarfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.images import oci
from flowkiln.images.http import Http
from flowkiln.images.login import Logins
from flowkiln.images.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass
class Client:
    """A client that waits in no time; ``waits`` says for how long it would have waited."""

    registry: Registry
    http: Http
    waits: list[float] = field(default_factory=list)
    on_wait: Callable[[], None] = lambda: None
    seconds: float = 0.0
    """Added to the client's clock."""


@dataclass
class Clients:
    """Makes clients, and closes their connections at the end."""

    nowhere: Path
    made: list[Client] = field(default_factory=list)

    def __call__(
        self,
        host: str,
        *,
        environ: Mapping[str, str] | None = None,
        ca: Path | None = None,
        stall: float = 20.0,
        **options: Any,
    ) -> Client:
        def context() -> ssl.SSLContext:
            return ssl.create_default_context(cafile=None if ca is None else str(ca))

        http = Http(context, stall=stall)
        logins = Logins({"HOME": str(self.nowhere), "PATH": "/nowhere", **(environ or {})})

        def sleep(seconds: float) -> None:
            client.waits.append(seconds)
            client.on_wait()

        registry = Registry(
            host, http, logins, sleep=sleep, clock=lambda: time.monotonic() + client.seconds, **options
        )
        client = Client(registry, http)
        self.made.append(client)
        return client

    def close(self) -> None:
        """Closes what was made."""
        for one in self.made:
            one.http.close()


@dataclass(frozen=True)
class Image:
    """An image of one layer that other tools accept."""

    layer: bytes
    config: bytes
    document: oci.Document

    @property
    def blobs(self) -> Iterator[tuple[str, bytes]]:
        """Digest and bytes of the config and the layer."""
        for data in (self.config, self.layer):
            yield digest_of(data), data


def image(content: bytes, **more: Any) -> Image:
    """An image with one file of that content; ``more`` stands in its manifest."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    tar = stream.getvalue()
    layer = gzip.compress(tar, 1, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
        }
    ).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": {"mediaType": oci.CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": oci.LAYER_GZIP, "digest": digest_of(layer), "size": len(layer)}],
        **more,
    }
    return Image(layer, config, oci.Document(media_type=oci.MANIFEST, data=json.dumps(document).encode()))


def referrer(subject: Image) -> oci.Document:
    """A manifest that refers to an image, as an SBOM does; its blobs are those of the image."""
    document = json.loads(subject.document.data) | {
        "artifactType": "application/vnd.test.sbom",
        "annotations": {"kind": "sbom"},
        "layers": [],
        "subject": subject.document.descriptor.to_json(),
    }
    return oci.Document(media_type=oci.MANIFEST, data=json.dumps(document).encode())


def push(registry: Registry, repository: str, what: Image, tag: str | None = None) -> str:
    """Pushes an image; its digest."""
    for _, data in what.blobs:
        put(registry, repository, data)
    return registry.put_manifest(repository, what.document, tag=tag)


def put(registry: Registry, repository: str, data: bytes) -> str:
    """Uploads a blob; its digest."""
    digest = digest_of(data)
    registry.put_blob(repository, digest, len(data), lambda: io.BytesIO(data))
    return digest


def digest_of(data: bytes) -> str:
    """``sha256:...`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
