"""One environment cut into any number of layers by our own layer code, for the rows about pulls."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.images import archive, compress, oci
from flowkiln.images.archive import Measure, Member
from flowkiln.images.http import Http
from flowkiln.images.login import Logins
from flowkiln.images.registry import Registry
from flowkiln.wiring.registries import context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln.envs.describing import Described, Describer


class Cut:
    """The files of an environment and the registry that they are pushed to. ``size`` is that of all files."""

    def __init__(self, described: Described, describer: Describer, host: str) -> None:
        found: dict[str, Member] = {}
        for sha256, package in described.packages.items():
            for entry in package.entries:
                if isinstance(entry.source, str):
                    source = describer.stored(sha256, entry.source)
                    path = f"opt/env/{entry.path}"
                    found[path] = Member(path, "file", entry.mode, entry.size, source, entry.sha256)
        self._members = sorted(found.values(), key=lambda one: (-one.size, one.path))
        self.size = sum(one.size for one in self._members)
        self._host = host
        self._registry = Registry(host, Http(context, stall=60.0), Logins({}))

    def push(self, count: int) -> str:
        """The reference of an image of ``count`` layers of about one size, now in the registry."""
        bins: list[list[Member]] = [[] for _ in range(count)]
        sizes = [0] * count
        for one in self._members:
            number = sizes.index(min(sizes))
            bins[number].append(one)
            sizes[number] += one.size + 1024
        repository = "bench/layers"
        pairs = [self._layer(repository, members) for members in bins]
        config = oci.Document(
            media_type=oci.CONFIG,
            data=json.canonical(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {},
                    "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in pairs]},
                }
            ),
        )
        self._registry.put_blob(repository, config.digest, len(config.data), lambda: io.BytesIO(config.data))
        manifest = oci.Document(
            media_type=oci.MANIFEST,
            data=json.canonical(
                {
                    "schemaVersion": 2,
                    "mediaType": oci.MANIFEST,
                    "config": config.descriptor.to_json(),
                    "layers": [layer.to_json() for _, layer in pairs],
                }
            ),
        )
        self._registry.put_manifest(repository, manifest, tag=f"of-{count}")
        return f"{self._host}/{repository}:of-{count}"

    def _layer(self, repository: str, members: Sequence[Member]) -> tuple[str, oci.Descriptor]:
        tar, parts = Measure(), bytearray()
        packer = compress.compressor("gzip", parts.extend)

        def take(data: bytes) -> None:
            tar(data)
            packer(data)

        archive.write(archive.complete(members), take)
        packer.finish()
        data = bytes(parts)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._registry.put_blob(repository, digest, len(data), lambda: io.BytesIO(data))
        return tar.digest, oci.Descriptor(media_type=oci.LAYER_GZIP, digest=digest, size=len(data))
