"""Plans become layers: those with a record are known already, the others are made, several at once.

Making reads the unpacked wheels of the store, runs no code of a package, and needs neither engine nor root. Equal
layers are made once, whoever asks for them: a lock of the operating system per key, which dies with its process.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln.envs.spread import spread
from flowkiln.images import archive, compress, content
from flowkiln.images.archive import Measure
from flowkiln.images.blobs import Blobs
from flowkiln.images.errors import ContentDamaged, LayerDiffers
from flowkiln.images.manifest import Made
from flowkiln.images.records import LayerRecord, Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from flowkiln._base.report import Phase, Reporter
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.describing import Described, Describer
    from flowkiln.images.archive import Member, Sink
    from flowkiln.images.bytecode import Compiler
    from flowkiln.images.compress import Compression
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.plan import ImagePlan

    Sources = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What layers are made of and with.

    ``runtime`` are the files of flowkiln's own part by path. ``compiler`` gives the interpreter that the lock names
    for a base's bytecode, ``stdlib`` the sources of its standard library; both may ask an engine or a registry.
    """

    cache: Path
    describer: Describer
    runtime: Mapping[str, bytes]
    compiler: Callable[[BasePin], Compiler]
    stdlib: Callable[[BasePin], Sources]
    reporter: Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Baked:
    """A plan with all its layers known: ``layers`` are those with content, ``built`` those made just now."""

    plan: ImagePlan
    layers: tuple[Made, ...]
    tree_digest: str
    built: tuple[Made, ...] = field(default=())


class Baker:
    """Makes the layers of plans, in one cache folder."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop
        self.records = Records(workshop.cache)
        self.blobs = Blobs(workshop.cache)
        self._described: dict[str, Described] = {}
        self._compilers: dict[str, Compiler] = {}

    def bake(self, plan: ImagePlan, compression: Compression | None) -> Baked:
        """The plan with a record of every layer in ``compression``; None asks for the tars' digests alone.

        Raises the errors of fetching, unpacking and compiling, ``ContentDamaged``, ``LayerDiffers`` and those of
        disks.
        """
        with files.locked(self._shop.cache / "locks" / "cache", shared=True):
            try:
                return self._bake(plan, compression)
            except ContentDamaged:  # by a step that wrote through a link, for example: once more, from whole wheels
                self._described[plan.part.env_id] = self._shop.describer.describe(
                    plan.part, self._shop.reporter, verify=True
                )
                return self._bake(plan, compression)

    def known(self, plan: ImagePlan, compression: Compression | None) -> Baked | None:
        """The plan with all its layers, if every record is there; nothing is made or fetched."""
        records = [self.records.layer(layer.key) for layer in plan.layers]
        tree_digest = self.records.tree_digest(plan.part.env_id)
        if tree_digest is None or any(_lacks(record, compression) for record in records):
            return None
        pairs = zip(plan.layers, records, strict=True)
        made = tuple(Made(spec=layer, record=record) for layer, record in pairs if record and not record.empty)
        return Baked(plan=plan, layers=made, tree_digest=tree_digest)

    def open(self, plan: ImagePlan, layer: LayerSpec, sink: Sink) -> None:
        """Gives the tar of ``layer`` to ``sink``."""
        archive.write(self._members(plan, layer), sink)

    def blob(self, plan: ImagePlan, made: Made, compression: Compression) -> Path:
        """The compressed layer as a file, made again where the cache has lost it. Raises ``LayerDiffers``."""
        known = made.record.blob(compression)
        assert known is not None
        found = self.blobs.find(*known)
        if found is None:
            record = self._pack(plan, made.spec, compression)
            if record.blob(compression) != known:
                told = made.record.diff_id
                message = f"layer {made.spec.title!r} came out as {record.diff_id}; its record says {told}"
                raise LayerDiffers(message, data={"key": made.spec.key})
            found = self.blobs.path(known[0])
        return found

    def _bake(self, plan: ImagePlan, compression: Compression | None) -> Baked:
        known = {layer.key: self.records.layer(layer.key) for layer in plan.layers}
        missing = [layer for layer in plan.layers if _lacks(known[layer.key], compression)]
        tree_digest = self.records.tree_digest(plan.part.env_id)
        if tree_digest is None or any(layer.wheels for layer in missing):
            tree_digest = self._describe(plan).tree.tree_digest
            self.records.add_tree(plan.part.env_id, tree_digest)
        done: list[tuple[LayerRecord, bool]] = []
        if missing:
            with self._shop.reporter.phase(f"bake {plan.name}", total=len(missing), unit="layer") as phase:
                # The largest first: the end of the work is not one big layer alone.
                order = sorted(missing, key=lambda layer: -sum(wheel.size or 0 for wheel in layer.wheels))
                done = spread(partial(self._made, plan, compression, phase), order)
        known.update({record.key: record for record, _ in done})
        made = [
            Made(spec=layer, record=record) for layer in plan.layers if (record := known[layer.key]) is not None
        ]
        fresh = {record.key for record, own in done if own}
        return Baked(
            plan=plan,
            layers=tuple(one for one in made if not one.record.empty),
            tree_digest=tree_digest,
            built=tuple(one for one in made if one.spec.key in fresh and not one.record.empty),
        )

    def _made(
        self, plan: ImagePlan, compression: Compression | None, phase: Phase, layer: LayerSpec
    ) -> tuple[LayerRecord, bool]:
        """The layer's record, and whether this process made it: another may have been faster."""
        with self._held(layer, phase):
            found = self.records.layer(layer.key)
            own = found is None or _lacks(found, compression)
            if found is None or own:
                found = self._measure(plan, layer) if compression is None else self._pack(plan, layer, compression)
        phase.advance(1, item=layer.title)
        return found, own

    @contextmanager
    def _held(self, layer: LayerSpec, phase: Phase) -> Iterator[None]:
        place = self._shop.cache / "locks" / "layers" / layer.key.removeprefix("sha256:")[:3]

        def waiting(holder: str, seconds: float) -> None:
            phase.tick(f"{layer.title}: {holder} makes it ({seconds:.0f} s)")

        with files.locked(place, waiting=waiting, every=1.0):
            yield

    def _measure(self, plan: ImagePlan, layer: LayerSpec) -> LayerRecord:
        """The record of a layer without compressing or keeping it."""
        members, tar = self._members(plan, layer), Measure()
        if members:
            archive.write(members, tar)
        return self.records.add_layer(LayerRecord(key=layer.key, diff_id=tar.digest, size=tar.size))

    def _pack(self, plan: ImagePlan, layer: LayerSpec, compression: Compression) -> LayerRecord:
        """The record of a layer that now lies compressed in the cache."""
        members, tar, packed = self._members(plan, layer), Measure(), Measure()
        if not members:
            return self.records.add_layer(LayerRecord(key=layer.key, diff_id=tar.digest, size=0))
        with self.blobs.writing() as scratch:

            def keep(data: bytes) -> None:
                packed(data)
                scratch.write(data)

            compressor = compress.compressor(compression, keep)

            def take(data: bytes) -> None:
                tar(data)
                compressor(data)

            archive.write(members, take)
            compressor.finish()
            scratch.keep(packed.digest)
        record = LayerRecord(key=layer.key, diff_id=tar.digest, size=tar.size)
        return self.records.add_layer(record.with_blob(compression, packed.digest, packed.size))

    def _members(self, plan: ImagePlan, layer: LayerSpec) -> list[Member]:
        shop = self._shop
        if layer.kind == "packages":
            return content.package_members(layer, self._describe(plan), shop.describer)
        if layer.kind == "glue":
            return content.glue_members(plan, self._describe(plan), shop.describer)
        if layer.kind == "runtime":
            return content.runtime_members(plan.runtime_id, shop.runtime)
        compiler = self._compiler(plan.base)
        python = compiler.version.rpartition(".")[0]
        if layer.kind == "bytecode":
            return content.bytecode_members(layer, self._describe(plan), shop.describer, compiler, python)
        sources = (
            content.runtime_sources(plan.runtime_id, shop.runtime)
            if layer.kind == "runtime-bytecode"
            else shop.stdlib(plan.base)
        )
        made = content.compiled(compiler, sources, python)
        return archive.complete(made) if made else []

    def _describe(self, plan: ImagePlan) -> Described:
        env_id = plan.part.env_id
        if env_id not in self._described:
            self._described[env_id] = self._shop.describer.describe(plan.part, self._shop.reporter)
        return self._described[env_id]

    def _compiler(self, base: BasePin) -> Compiler:
        if base.manifest not in self._compilers:
            self._compilers[base.manifest] = self._shop.compiler(base)
        return self._compilers[base.manifest]


def _lacks(record: LayerRecord | None, compression: Compression | None) -> bool:
    if record is None:
        return True
    return not record.empty and compression is not None and record.blob(compression) is None
