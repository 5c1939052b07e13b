"""Images go to an OCI layout on disk, a folder or an archive, with the base's layers: complete by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowkiln.images import layout, manifest, oci, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from flowkiln.images.bake import Baked, Baker
    from flowkiln.images.basing import BaseImage, Bases
    from flowkiln.images.compress import Compression
    from flowkiln.images.manifest import Made
    from flowkiln.images.oci import Descriptor, Document
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.registry import Registry

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An image in a layout. ``size`` are the bytes of the layers that are ours."""

    plan: ImagePlan
    digest: str
    config: str
    tree_digest: str
    size: int


class Exporter:
    """Writes images to OCI layouts. ``registries`` gives the client of a base's host."""

    def __init__(
        self,
        baker: Baker,
        bases: Bases,
        registries: Callable[[str], Registry],
        *,
        compression: Compression,
    ) -> None:
        self._baker = baker
        self._bases = bases
        self._registries = registries
        self._compression = compression

    def export(self, plans: Sequence[ImagePlan], target: Path, name: str) -> list[Exported]:
        """The images of ``plans``, the platforms of one environment, in the layout ``target`` as ``name``.

        Several are one index. Raises the errors of baking, of registries for layers of a base, ``BadLayout``,
        ``NoSpace`` and ``ReadOnly``; what was in the layout stays.
        """
        manifests: list[tuple[Document, ImagePlan]] = []
        blobs: list[tuple[Descriptor, Iterator[bytes]]] = []
        exported = []
        for plan in plans:
            baked = self._baker.bake(plan, self._compression)
            base = self._bases.opened(plan.base)
            config = manifest.config(plan, base.config, baked.layers, baked.tree_digest)
            document = manifest.manifest(plan, config, base.layers, baked.layers, self._compression)
            manifests.append((document, plan))
            blobs += self._blobs(baked, base, config)
            size = sum(blob[1] for one in baked.layers if (blob := one.record.blob(self._compression)))
            exported.append(
                Exported(
                    plan=plan,
                    digest=document.digest,
                    config=config.digest,
                    tree_digest=baked.tree_digest,
                    size=size,
                )
            )
        documents = [document for document, _ in manifests]
        if len(manifests) > 1:
            rows = [(document, manifest.platform_of(plan)) for document, plan in manifests]
            documents.insert(0, manifest.index(rows, {}))
        layout.write_layout(target, documents, blobs, name=name)
        return exported

    def _blobs(
        self, baked: Baked, base: BaseImage, config: Document
    ) -> Iterator[tuple[Descriptor, Iterator[bytes]]]:
        plan = baked.plan
        source = reference.parse(plan.base.reference)
        yield config.descriptor, iter((config.data,))
        for one in base.layers:
            yield one, _later(partial(self._base_bytes, source, one))
        for made in baked.layers:
            blob = made.record.blob(self._compression)
            assert blob is not None
            descriptor = oci.Descriptor(media_type=oci.LAYER, digest=blob[0], size=blob[1])
            yield descriptor, _later(partial(self._layer_bytes, plan, made))

    def _base_bytes(self, source: reference.Reference, one: Descriptor) -> Iterator[bytes]:
        return self._registries(source.host).blob(source.repository, one.digest)

    def _layer_bytes(self, plan: ImagePlan, made: Made) -> Iterator[bytes]:
        with self._baker.blob(plan, made, self._compression).open("rb") as stream:
            while block := stream.read(_PIECE):
                yield block


def _later(opened: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """The bytes that ``opened`` gives, which is called when the first of them is wanted."""
    yield from opened()
