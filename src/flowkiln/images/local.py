"""Images in a local engine: made of what the engine lacks, named by their key, used by their id."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln.images import loading, manifest, reference
from flowkiln.images.loading import BaseLayer, Image, NewLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowkiln._base.report import Reporter
    from flowkiln.images.archive import Sink
    from flowkiln.images.bake import Baked, Baker
    from flowkiln.images.basing import Bases
    from flowkiln.images.loading import EngineLike
    from flowkiln.images.manifest import Made
    from flowkiln.images.oci import Document
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.registry import Registry

REPOSITORY = "flowkiln"
"""The repository of images in a local engine: ``flowkiln:fk-<image key>``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An image in the engine. ``id`` is what the engine calls it, ``config`` its config's digest.

    ``sent`` are the bytes of layers that the engine was given for it, 0 when it had the image.
    """

    plan: ImagePlan
    reference: str
    id: str
    config: str
    tree_digest: str
    sent: int
    built: bool


class LocalImages:
    """Puts images into one engine. ``registries`` gives the client of a host, ``pull`` has it get a base."""

    def __init__(
        self,
        engine: EngineLike,
        baker: Baker,
        bases: Bases,
        registries: Callable[[str], Registry],
        pull: Callable[[ImagePlan], None],
        *,
        reporter: Reporter,
        locks: Path,
    ) -> None:
        self._engine = engine
        self._baker = baker
        self._bases = bases
        self._registries = registries
        self._pull = pull
        self._reporter = reporter
        self._locks = locks

    def find(self, plan: ImagePlan) -> Placed | None:
        """The image if the engine has it and it is the one that our records describe; nothing is baked for this."""
        baked = self._baker.known(plan, None)
        found = None if baked is None else self._engine.image(self.reference(plan))
        if baked is None or found is None:
            return None
        image = self._image(baked)
        expected = self._expected(image)
        if not loading.is_same(found, expected, image):
            return None
        return self._placed(baked, image, expected, sent=0, built=False)

    def put(self, plan: ImagePlan) -> Placed:
        """The image in the engine, baked and loaded unless it is there. Equal calls at once do the work once."""

        def waiting(holder: str, seconds: float) -> None:
            self._reporter.say(f"waiting for {holder}, which bakes the same image ({seconds:.0f} s)")

        with files.locked(self._locks / plan.image_key.removeprefix("sha256:")[:32], waiting=waiting, every=2.0):
            found = self.find(plan)
            if found is not None:
                return found
            baked = self._baker.bake(plan, None)
            image = self._image(baked)
            # One load at a time: an engine with the containerd store loses layers that two of them share.
            with files.locked(self._locks / "load"):
                loaded = loading.load(
                    self._engine,
                    image,
                    reference=self.reference(plan),
                    base_bytes=partial(self._base_bytes, plan),
                    pull_base=partial(self._pull, plan),
                    reporter=self._reporter,
                )
        return self._placed(baked, image, loaded.id, sent=loaded.sent, built=True)

    def reference(self, plan: ImagePlan) -> str:
        """What the engine calls the image."""
        return f"{REPOSITORY}:{plan.tag}"

    def _image(self, baked: Baked) -> Image:
        plan = baked.plan
        base = self._bases.opened(plan.base)
        config = manifest.config(plan, base.config, baked.layers, baked.tree_digest)
        document = manifest.manifest(plan, config, base.layers, baked.layers, None)
        below = [
            BaseLayer(diff_id=diff_id, blob=blob)
            for diff_id, blob in zip(base.config["rootfs"]["diff_ids"], base.layers, strict=True)
        ]
        new = [self._new(plan, one) for one in baked.layers]
        return Image(manifest=document, config=config, base=below, new=new)

    def _new(self, plan: ImagePlan, made: Made) -> NewLayer:
        def write(sink: Sink) -> None:
            self._baker.open(plan, made, sink)

        return NewLayer(diff_id=made.record.diff_id, size=made.record.size, write=write)

    def _base_bytes(self, plan: ImagePlan, layer: BaseLayer) -> Iterator[bytes]:
        source = reference.parse(plan.base.reference)
        return self._registries(source.host).blob(source.repository, layer.blob.digest)

    def _expected(self, image: Image) -> str:
        document: Document = image.manifest if self._engine.containerd_store else image.config
        return document.digest

    def _placed(self, baked: Baked, image: Image, name: str, *, sent: int, built: bool) -> Placed:
        self._baker.records.use_image(baked.plan.image_key)
        return Placed(
            plan=baked.plan,
            reference=self.reference(baked.plan),
            id=name,
            config=image.config.digest,
            tree_digest=baked.tree_digest,
            sent=sent,
            built=built,
        )
