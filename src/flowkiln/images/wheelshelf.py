"""Wheels that a team built, as artifacts in its repository of images: whoever has the lock finds them there.

The artifact of a build stands under a tag that follows from the build's key: its config is the record of the build,
its one layer the wheel. What is read is held against the key and the hash before it is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import cached_property
from typing import TYPE_CHECKING

from flowkiln._base import digests
from flowkiln._base.json import canonical
from flowkiln.envs import builtwheels
from flowkiln.images import oci
from flowkiln.images.registryerrors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln._base.report import Reporter
    from flowkiln.envs.builtwheels import BuiltWheel
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry

RECORD = "application/vnd.flowkiln.build.v1+json"
WHEEL = "application/vnd.flowkiln.wheel.v1+zip"


class WheelShelf:
    """The built wheels in one repository. ``registry`` gives the client of its registry."""

    def __init__(self, registry: Callable[[], Registry], repository: Reference, reporter: Reporter) -> None:
        self.repository = repository
        self._opened = registry
        self._reporter = reporter

    @cached_property
    def _registry(self) -> Registry:
        """The client: what needs no request needs none."""
        return self._opened()

    def tag_of(self, key: str) -> str:
        """The tag of a build's artifact."""
        return f"fkw-{digests.hexdigits(key)[:40]}"

    def get(self, key: str, folder: Path) -> BuiltWheel | None:
        """The wheel of a build, brought into ``folder``; None where there is none. Raises the registry's errors."""
        repository, tag = self.repository.repository, self.tag_of(key)
        fetched = self._registry.manifest(repository, tag)
        if fetched is None:
            return None
        try:
            document = json.loads(fetched.data)
            config = oci.Descriptor.from_json(document["config"])
            layer = oci.Descriptor.from_json(document["layers"][0])
            record = json.loads(self._registry.read_blob(repository, config.digest))
            found = builtwheels.from_json(record, folder / str(record["filename"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self._reporter.warn(f"{self.repository.name}:{tag} is no built wheel and is not used: {error}")
            return None
        if found.build.key != key or layer.digest != f"sha256:{found.sha256}":
            self._reporter.warn(f"{self.repository.name}:{tag} is of another build and is not used")
            return None
        with found.path.open("wb") as stream:
            for piece in self._registry.blob(repository, layer.digest):
                stream.write(piece)
        return found

    def put(self, wheel: BuiltWheel) -> None:
        """Publishes a wheel; not being able to is said, and no failure."""
        try:
            self._put(wheel)
        except RegistryError as error:
            self._reporter.warn(f"{wheel.filename} was not kept in {self.repository.name}: {error.message}")

    def _put(self, wheel: BuiltWheel) -> None:
        repository, tag = self.repository.repository, self.tag_of(wheel.build.key)
        if self._registry.exists(repository, tag) is not None:
            return
        config = oci.Document(media_type=RECORD, data=canonical(wheel.to_json()))
        layer = oci.Descriptor(media_type=WHEEL, digest=f"sha256:{wheel.sha256}", size=wheel.size)
        self._registry.put_blob(repository, layer.digest, layer.size, lambda: wheel.path.open("rb"))
        data = config.data
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._registry.put_blob(repository, digest, len(data), lambda: _stream(data))
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": config.descriptor.to_json(),
            "layers": [layer.to_json()],
            "annotations": {"org.opencontainers.image.title": wheel.filename},
        }
        manifest = oci.Document(media_type=oci.MANIFEST, data=canonical(body))
        self._registry.put_tag(repository, manifest, tag)
        self._reporter.say(f"{wheel.filename} is kept in {self.repository.name}")


def _stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)
