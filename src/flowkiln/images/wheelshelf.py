"""What a team built, as artifacts in its repository of images: whoever has the lock finds it there.

The artifact of a build stands under a tag that follows from the build's key: its config is the record of the build,
its one layer the file. What is read is held against the key and the hash before it is believed.
"""

from __future__ import annotations

import io
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from flowkiln._base import digests
from flowkiln._base.json import canonical
from flowkiln.envs import builtwheels, linkedfiles
from flowkiln.envs.builtwheels import K
from flowkiln.images import oci
from flowkiln.images.registryerrors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln._base.report import Reporter
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry


class _Form(NamedTuple):
    """How one kind of artifact is told from others: in its tag and in the types of its record and file."""

    tag: str
    record: str
    file: str


WHEELS = _Form("fkw", "application/vnd.flowkiln.build.v1+json", "application/vnd.flowkiln.wheel.v1+zip")
LINKED = _Form(
    "fkl", "application/vnd.flowkiln.linked.v1+json", "application/vnd.flowkiln.linked-files.v1.tar+bzip2"
)


class Shelf(Generic[K]):
    """The artifacts of one kind in one repository; ``read`` makes a value of a record and a path.

    ``registry`` gives the client of its registry.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        repository: Reference,
        reporter: Reporter,
        *,
        form: _Form,
        read: Callable[[dict[str, Any], Path], K],
    ) -> None:
        self.repository = repository
        self._form = form
        self._read = read
        self._opened = registry
        self._reporter = reporter

    @cached_property
    def _registry(self) -> Registry:
        """The client: what needs no request needs none."""
        return self._opened()

    def tag_of(self, key: str) -> str:
        """The tag of a build's artifact."""
        return f"{self._form.tag}-{digests.hexdigits(key)[:40]}"

    def get(self, key: str, folder: Path) -> K | None:
        """What was made for ``key``, brought into ``folder``; None for nothing. Raises the registry's errors."""
        repository, tag = self.repository.repository, self.tag_of(key)
        fetched = self._registry.manifest(repository, tag)
        if fetched is None:
            return None
        try:
            document = json.loads(fetched.data)
            config = oci.Descriptor.from_json(document["config"])
            layer = oci.Descriptor.from_json(document["layers"][0])
            record = json.loads(self._registry.read_blob(repository, config.digest))
            found = self._read(record, folder / str(record["filename"]))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            self._reporter.warn(f"{self.repository.name}:{tag} cannot be read and is not used: {error}")
            return None
        if found.key != key or layer.digest != f"sha256:{found.sha256}":
            self._reporter.warn(f"{self.repository.name}:{tag} is of another build and is not used")
            return None
        with found.path.open("wb") as stream:
            for piece in self._registry.blob(repository, layer.digest):
                stream.write(piece)
        return found

    def put(self, made: K) -> None:
        """Publishes what was made; not being able to is said, and no failure."""
        try:
            self._put(made)
        except RegistryError as error:
            self._reporter.warn(f"{made.filename} was not kept in {self.repository.name}: {error.message}")

    def _put(self, made: K) -> None:
        repository, tag = self.repository.repository, self.tag_of(made.key)
        if self._registry.exists(repository, tag) is not None:
            return
        config = oci.Document(media_type=self._form.record, data=canonical(made.to_json()))
        layer = oci.Descriptor(media_type=self._form.file, digest=f"sha256:{made.sha256}", size=made.size)
        self._registry.put_blob(repository, layer.digest, layer.size, lambda: made.path.open("rb"))
        self._registry.put_blob(repository, config.digest, len(config.data), lambda: io.BytesIO(config.data))
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": config.descriptor.to_json(),
            "layers": [layer.to_json()],
            "annotations": {"org.opencontainers.image.title": made.filename},
        }
        manifest = oci.Document(media_type=oci.MANIFEST, data=canonical(body))
        self._registry.put_tag(repository, manifest, tag)
        self._reporter.say(f"{made.filename} is kept in {self.repository.name}")


class WheelShelf(Shelf[builtwheels.BuiltWheel]):
    """The built wheels in one repository."""

    def __init__(self, registry: Callable[[], Registry], repository: Reference, reporter: Reporter) -> None:
        super().__init__(registry, repository, reporter, form=WHEELS, read=builtwheels.from_json)


class LinkedShelf(Shelf[linkedfiles.KeptFiles]):
    """What link scripts left, in one repository."""

    def __init__(self, registry: Callable[[], Registry], repository: Reference, reporter: Reporter) -> None:
        super().__init__(registry, repository, reporter, form=LINKED, read=linkedfiles.kept_from_json)
