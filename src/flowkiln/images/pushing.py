"""Images go to a repository: only blobs that it lacks move, and a push counts once it was read back by digest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from flowkiln._base import files, parallel
from flowkiln.images import manifest, oci, reference
from flowkiln.images.errors import ForeignImage
from flowkiln.images.records import ImageRecord
from flowkiln.images.uploading import Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.report import Reporter
    from flowkiln.images.bake import Baked, Baker
    from flowkiln.images.basing import BaseImage, Bases
    from flowkiln.images.catalog import Catalog
    from flowkiln.images.compress import Compression
    from flowkiln.images.manifest import Made
    from flowkiln.images.oci import Document
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry

_AT_ONCE = 4
"""Blobs that are uploaded at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """An image in a repository. ``moved`` counts the bytes uploaded for it, ``built`` says whether it was new."""

    plan: ImagePlan
    reference: Reference
    config: str
    tree_digest: str
    moved: int
    built: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image that a repository holds: its manifest's and its config's digest."""

    digest: str
    config: str
    tree_digest: str


def place_of(repository: Reference, compression: Compression) -> str:
    """What the records call a repository: compression decides the manifests that it holds."""
    return f"{repository.name}#{compression}"


class Publisher:
    """Publishes images to one repository. ``registries`` gives the client for a host; ``offline`` asks it nothing.

    ``catalogs`` are asked for layers that are not known here; that of this repository is told of what was pushed.
    """

    def __init__(  # noqa: PLR0913  what it publishes, with what, and how
        self,
        repository: Reference,
        registries: Callable[[str], Registry],
        bases: Bases,
        baker: Baker,
        *,
        compression: Compression,
        reporter: Reporter,
        locks: Path,
        catalogs: Sequence[Catalog] = (),
        offline: bool = False,
    ) -> None:
        self._offline = offline
        self.repository = repository
        self._catalogs = catalogs
        self._registries = registries
        self._bases = bases
        self._baker = baker
        self.compression = compression
        self._reporter = reporter
        self._locks = locks
        self._allowed = False

    @cached_property
    def _registry(self) -> Registry:
        """The client of the repository's registry: what needs no request needs no client, nor the network."""
        return self._registries(self.repository.host)

    def tag_of(self, plan: ImagePlan) -> str:
        """The tag of the image in the repository: compression decides the bytes of a manifest."""
        return plan.tag if self.compression == "gzip" else f"{plan.tag}-{self.compression}"

    def forget(self, plan: ImagePlan) -> None:
        """Drops the record that the repository holds the image."""
        self._baker.records.forget_image(self._place, plan.image_key)

    def find(self, plan: ImagePlan) -> Found | None:
        """The image of ``plan`` if the repository holds it; a fresh record answers without a request.

        Raises the registry's errors: an answer that is not known is neither yes nor no. Raises ``ForeignImage`` for
        something else under our tag.
        """
        records, place = self._baker.records, self._place
        known = records.image(place, plan.image_key)
        if known is not None and (known.fresh or self._offline):
            return Found(digest=known.digest, config=known.config, tree_digest=known.tree_digest)
        fetched = self._registry.manifest(self.repository.repository, self.tag_of(plan))
        if fetched is None:
            self.forget(plan)
            return None
        found = self._verified(plan, fetched.data, fetched.digest)
        self._remember(plan, found)
        return found

    def push(self, plan: ImagePlan, *, rebuild: bool = False) -> Pushed:
        """The image of ``plan`` in the repository, baked and uploaded unless it is there.

        Equal pushes at once: one does the work, the others find it done. Raises the errors of baking and of
        registries.
        """
        found = None if rebuild else self.find(plan)
        if found is not None:
            return self._pushed(plan, found, moved=0, built=False)

        def waiting(holder: str, seconds: float) -> None:
            self._reporter.say(f"waiting for {holder}, which bakes the same image ({seconds:.0f} s)")

        with files.locked(self._locks / plan.image_key.removeprefix("sha256:")[:32], waiting=waiting, every=2.0):
            found = None if rebuild else self.find(plan)
            if found is not None:
                return self._pushed(plan, found, moved=0, built=False)
            return self._push(plan)

    def publish_index(self, name: str, pushed: Sequence[Pushed]) -> str:
        """Publishes an index of the platforms of one environment for people, and returns its digest."""
        repository = self.repository.repository
        rows: list[tuple[Document, JSONObject]] = []
        for one in pushed:
            fetched = self._registry.manifest(repository, one.reference.version)
            assert fetched is not None
            rows.append(
                (oci.Document(media_type=fetched.media_type, data=fetched.data), manifest.platform_of(one.plan))
            )
        notes = {f"{manifest.LABEL}.lock-id": pushed[0].plan.lock_id, f"{manifest.LABEL}.environment": name}
        document = manifest.index(rows, notes)
        tag = f"{name}-{pushed[0].plan.lock_id.removeprefix('sha256:')[:16]}"
        if self._registry.exists(repository, tag) == document.digest:
            return document.digest
        return self._registry.put_manifest(repository, document, tag=tag)

    # -- one image ---------------------------------------------------------------------------------------------

    def _push(self, plan: ImagePlan) -> Pushed:
        self._require_permission()
        base = self._bases.opened(plan.base)
        with self._reporter.phase(f"push {plan.name}", unit="bytes") as phase:
            upload = Upload(self.repository, self._registries, phase, self._others)
            baked = self._upload(plan, base, upload)
            config = manifest.config(plan, base.config, baked.layers, baked.tree_digest)
            upload.document(config)
        document = manifest.manifest(plan, config, base.layers, baked.layers, self.compression)
        digest = self._registry.put_manifest(self.repository.repository, document, tag=self.tag_of(plan))
        found = Found(digest=digest, config=config.digest, tree_digest=baked.tree_digest)
        self._remember(plan, found)
        for catalog in self._catalogs:
            if catalog.repository.name == self.repository.name:
                catalog.publish(self._baker.entries(plan))
        return self._pushed(plan, found, moved=upload.moved, built=True)

    def _require_permission(self) -> None:
        """Asks once whether anything may be pushed here, before the work: a refusal after it costs minutes."""
        if not self._allowed:
            self._registry.check_push(self.repository.repository)
            self._allowed = True

    def _upload(self, plan: ImagePlan, base: BaseImage, upload: Upload) -> Baked:
        """Bakes, and uploads meanwhile what is ready and the repository lacks."""
        begun: set[str] = set()

        with parallel.Crew(_AT_ONCE) as crew:

            def ready(one: Made) -> None:
                if one.spec.key not in begun:
                    begun.add(one.spec.key)
                    crew.add(partial(self._layer, upload, plan, one))

            source = reference.parse(plan.base.reference)
            for one in base.layers:
                crew.add(partial(upload.base_layer, source, one))
            return self._baker.bake(plan, self.compression, self._catalogs, ready)

    @property
    def _others(self) -> list[str]:
        """Repositories of the same registry whose catalogs are asked: their layers are mounted."""
        own = self.repository
        places = [one.repository for one in self._catalogs]
        return [one.repository for one in places if one.host == own.host and one.repository != own.repository]

    def _layer(self, upload: Upload, plan: ImagePlan, one: Made) -> None:
        blob = one.record.blob(self.compression)
        assert blob is not None
        upload.layer(blob, partial(self._baker.blob, plan, one, self.compression, self._catalogs), one.spec.title)

    def _verified(self, plan: ImagePlan, data: bytes, digest: str) -> Found:
        """What stands under our tag, once its manifest, labels and layers say that it is ours."""
        repository = self.repository.repository
        try:
            document = json.loads(data)
            descriptor = oci.Descriptor.from_json(document["config"])
            config = json.loads(self._registry.read_blob(repository, descriptor.digest))
            labels = config["config"]["Labels"]
            diff_ids = config["rootfs"]["diff_ids"]
            ours = labels[f"{manifest.LABEL}.image-key"] == plan.image_key
            ours = ours and labels[f"{manifest.LABEL}.env-id"] == plan.part.env_id
            ours = ours and len(diff_ids) == len(document["layers"]) and self._holds_layers(plan, diff_ids)
            tree_digest = str(labels[f"{manifest.LABEL}.tree-digest"])
        except (ValueError, KeyError, TypeError):
            ours, tree_digest, descriptor = False, "", None
        known = self._baker.records.tree_digest(plan.part.env_id)
        if descriptor is None or not ours or known not in (None, tree_digest):
            place = f"{self.repository.name}:{self.tag_of(plan)}"
            message = f"{place} is not the image of environment {plan.name!r}"
            raise ForeignImage(message, hint="Remove the tag there, or bake with --rebuild.")
        return Found(digest=digest, config=descriptor.digest, tree_digest=tree_digest)

    def _holds_layers(self, plan: ImagePlan, diff_ids: list[str]) -> bool:
        """Whether the layers that are known here stand in that image, in order, on top of something."""
        known = [record for layer in plan.layers if (record := self._baker.records.layer(layer.key)) is not None]
        if len(known) < len(plan.layers):
            return True  # nothing to compare with: the labels have to do
        wanted = [record.diff_id for record in known if not record.empty]
        return diff_ids[len(diff_ids) - len(wanted) :] == wanted

    def _pushed(self, plan: ImagePlan, found: Found, *, moved: int, built: bool) -> Pushed:
        return Pushed(
            plan=plan,
            reference=self.repository.at(found.digest),
            config=found.config,
            tree_digest=found.tree_digest,
            moved=moved,
            built=built,
        )

    @property
    def _place(self) -> str:
        return place_of(self.repository, self.compression)

    def _remember(self, plan: ImagePlan, found: Found) -> None:
        record = ImageRecord(
            image_key=plan.image_key,
            digest=found.digest,
            config=found.config,
            tree_digest=found.tree_digest,
        )
        self._baker.records.add_image(self._place, record)
        self._baker.records.add_tree(plan.part.env_id, found.tree_digest)
