"""Plans become layers: those with a record are known already, the others are made, several at once.

A record is here or in the team's catalog. What the catalog says of a layer is used as long as nobody needs its
bytes; when they are made here, they have to be those. Making reads the unpacked wheels of the store, runs no code
of a package, and needs neither engine nor root. Equal layers are made once, whoever asks for them: a lock of the
operating system per key, which dies with its process.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln.envs.spread import spread
from flowkiln.images import archive, compress, content
from flowkiln.images.archive import Measure
from flowkiln.images.blobs import Blobs
from flowkiln.images.decompress import decompressed
from flowkiln.images.entries import Entry
from flowkiln.images.errors import CompilerMissing, ContentDamaged, LayerDiffers
from flowkiln.images.manifest import Made
from flowkiln.images.plan import bytecode_of
from flowkiln.images.records import LayerRecord, Records
from flowkiln.images.scanning import Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from flowkiln._base.report import Phase, Reporter
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.describing import Described, Describer, Known
    from flowkiln.envs.lock import Locked
    from flowkiln.images.archive import Member, Sink
    from flowkiln.images.bytecode import Compiler
    from flowkiln.images.catalog import Catalog
    from flowkiln.images.compress import Compression
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.plan import ImagePlan

    Ready = Callable[[Made], object]
    Sources = Sequence[tuple[str, bytes]]


_PIECE = 1 << 20


def _ignore(_made: Made) -> None:
    """Used where nobody waits for single layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What layers are made of and with.

    ``runtime`` are the files of flowkiln's own part by path. ``compiler`` gives the interpreter that a plan
    names for bytecode, ``stdlib`` the sources of a base's standard library; both may ask an engine or a registry.
    ``team`` gives the team's catalogs, from which bytecode is taken where its compiler is missing.
    """

    cache: Path
    describer: Describer
    runtime: Mapping[str, bytes]
    compiler: Callable[[ImagePlan], Compiler]
    stdlib: Callable[[BasePin], Sources]
    reporter: Reporter
    team: Callable[[], Sequence[Catalog]] = tuple


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
        self.scanner = Scanner(self.records, workshop.describer)
        self._described: dict[str, Described] = {}
        self._told: dict[str, Known] = {}
        self._sources: dict[str, str] = {}
        self._compilers: dict[str, Compiler] = {}
        self._finding = threading.Lock()

    def bake(
        self,
        plan: ImagePlan,
        compression: Compression | None,
        catalogs: Sequence[Catalog] = (),
        ready: Ready = _ignore,
    ) -> Baked:
        """The plan with a record of every layer in ``compression``; None asks for the tars' digests alone.

        ``catalogs`` are asked for what is not known here. ``ready`` is given each layer with content once it has
        its record, from several threads, and again where the work began anew. Raises the errors of fetching,
        unpacking and compiling, ``ContentDamaged``, ``LayerDiffers``, those of disks, and those of the catalogs'
        registries.
        """
        with files.locked(self._shop.cache / "locks" / "cache", shared=True):
            try:
                return self._bake(plan, compression, catalogs, ready)
            except ContentDamaged:  # by a step that wrote through a link, for example: once more, from whole wheels
                self._described[plan.part.env_id] = self._shop.describer.describe(
                    plan.part, self._shop.reporter, known=self._told, verify=True
                )
                return self._bake(plan, compression, catalogs, ready)

    def known(self, plan: ImagePlan, compression: Compression | None) -> Baked | None:
        """The plan with all its layers, if every record is there; nothing is made or fetched."""
        records = [self.records.layer(layer.key) for layer in plan.layers]
        tree_digest = self.records.tree_digest(plan.part.env_id)
        if tree_digest is None or any(_lacks(record, compression) for record in records):
            return None
        pairs = zip(plan.layers, records, strict=True)
        made = tuple(Made(spec=layer, record=record) for layer, record in pairs if record and not record.empty)
        return Baked(plan=plan, layers=made, tree_digest=tree_digest)

    def open(self, plan: ImagePlan, made: Made, sink: Sink) -> None:
        """Gives the tar of a layer to ``sink``; one that was compiled comes from the cache where that has it."""
        blob = made.record.blob("gzip") if made.spec.compiled else None
        if blob is None:
            self._write(plan, made.spec, sink)
            return
        with self.blob(plan, made, "gzip").open("rb") as stream:
            for data in decompressed(iter(partial(stream.read, _PIECE), b"")):
                sink(data)

    def blob(self, plan: ImagePlan, made: Made, compression: Compression, catalogs: Sequence[Catalog] = ()) -> Path:
        """The compressed layer as a file, made again where the cache has lost it. Raises ``LayerDiffers``."""
        known = made.record.blob(compression)
        assert known is not None
        found = self.blobs.find(*known)
        if found is None:
            record = self._pack(plan, made.spec, compression, catalogs)
            if record.blob(compression) != known:
                raise self._differs(made.spec, record.diff_id, made.record.diff_id)
            found = self.blobs.path(known[0])
        return found

    def entries(self, plan: ImagePlan) -> list[tuple[LayerSpec, Entry]]:
        """What a catalog is told of the plan's layers: of those with a record whose wheels are known here."""
        found: list[tuple[LayerSpec, Entry]] = []
        for layer in plan.layers:
            record = self.records.layer(layer.key)
            wheels = [self._knows(one) for one in layer.wheels] if layer.kind == "packages" else []
            if record is None or None in wheels:
                continue
            known = tuple(one for one in wheels if one is not None)
            read = {one.sha256: self.scanner.programs(one) for one in layer.wheels} if known else {}
            names = self.records.libraries(plan.base.manifest) if layer.kind == "stdlib-bytecode" else None
            entry = Entry(
                record=record,
                wheels=known,
                programs={sha256: programs for sha256, programs in read.items() if programs is not None},
                libraries=None if names is None else tuple(sorted(names)),
            )
            found.append((layer, entry))
        return found

    def _knows(self, wheel: Locked) -> Known | None:
        return self._told.get(wheel.sha256) or self._shop.describer.known(wheel)

    # -- records -----------------------------------------------------------------------------------------------

    def _bake(
        self, plan: ImagePlan, compression: Compression | None, catalogs: Sequence[Catalog], ready: Ready
    ) -> Baked:
        known = {layer.key: self.records.layer(layer.key) for layer in plan.layers}
        for catalog in catalogs:
            known |= self._ask(catalog, plan, known, compression)
        missing = [layer for layer in plan.layers if _lacks(known[layer.key], compression)]
        for layer in plan.layers:
            if (record := known[layer.key]) is not None and layer not in missing:
                _tell(ready, layer, record)
        env_id = plan.part.env_id
        tree_digest = self.records.tree_digest(env_id)
        if tree_digest is None or any(layer.wheels for layer in missing):
            self._bring(layer for layer in missing if layer.kind != "glue")
            self.scanner.check(plan, (one for layer in missing if layer.kind == "packages" for one in layer.wheels))
            tree_digest = self._describe(plan).tree.tree_digest
            self.records.add_tree(env_id, tree_digest)
        done: list[tuple[LayerRecord, bool]] = []
        if missing:
            with self._shop.reporter.phase(f"bake {plan.name}", total=len(missing), unit="layer") as phase:
                # What takes longest first: the end of the work is not one big layer alone.
                order = sorted(missing, key=lambda layer: -content.effort(layer, self._described.get(env_id)))
                done = spread(partial(self._made, plan, compression, catalogs, phase, ready), order)
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

    def _ask(
        self,
        catalog: Catalog,
        plan: ImagePlan,
        known: Mapping[str, LayerRecord | None],
        compression: Compression | None,
    ) -> dict[str, LayerRecord | None]:
        """The records that ``catalog`` adds to those known, kept here too, with what it tells of wheels."""
        unknown = [layer for layer in plan.layers if _lacks(known[layer.key], compression)]
        if not unknown and self.records.tree_digest(plan.part.env_id) is not None:
            return {}
        describer = self._shop.describer
        absent = {wheel.sha256 for wheel in describer.missing(plan.part)} - self._told.keys()

        def undescribed(layer: LayerSpec) -> bool:
            return layer.kind == "packages" and any(wheel.sha256 in absent for wheel in layer.wheels)

        asked = [layer for layer in plan.layers if layer in unknown or undescribed(layer)]
        found = catalog.fetch(asked, wheels=undescribed)
        for entry in found.values():
            self._learn(plan, entry)
        self._sources.update(
            {one.key: f"{catalog.repository.name}:{catalog.tag_of(one)}" for one in asked if one.key in found}
        )
        return {layer.key: self._kept(layer, found[layer.key].record) for layer in asked if layer.key in found}

    def _learn(self, plan: ImagePlan, entry: Entry) -> None:
        """Takes over what an entry tells besides its record."""
        self._told.update({one.wheel.sha256: one for one in entry.wheels})
        for sha256, programs in entry.programs.items():
            self.records.add_programs(sha256, programs)
        if entry.libraries is not None and self.records.libraries(plan.base.manifest) is None:
            self.records.add_libraries(plan.base.manifest, entry.libraries)

    def _kept(self, layer: LayerSpec, record: LayerRecord) -> LayerRecord:
        """The record with what is known of the layer already.

        Raises ``LayerDiffers`` for two different truths, of which none is believed from then on.
        """
        known = self.records.layer(layer.key)
        if known is not None:
            forms = dict(known.blobs)
            if known.diff_id != record.diff_id or any(forms.get(kind, blob) != blob for kind, blob in record.blobs):
                raise self._differs(layer, record.diff_id, known.diff_id)
        return self.records.add_layer(record)

    def _differs(self, layer: LayerSpec, here: str, told: str) -> LayerDiffers:
        self.records.forget_layer(layer.key)
        message = f"layer {layer.title!r} came out as {here}; its record says {told}"
        source = self._sources.get(layer.key)
        hint = f"If that is the record of {source}, remove that tag: the layer is made anew." if source else None
        return LayerDiffers(message, hint=hint, data={"key": layer.key})

    # -- making ------------------------------------------------------------------------------------------------

    def _made(
        self,
        plan: ImagePlan,
        compression: Compression | None,
        catalogs: Sequence[Catalog],
        phase: Phase,
        ready: Ready,
        layer: LayerSpec,
    ) -> tuple[LayerRecord, bool]:
        """The layer's record, and whether this process made it: another may have been faster."""
        with self._held(layer, phase):
            found = self.records.layer(layer.key)
            own = found is None or _lacks(found, compression)
            if found is None or own:
                # Compiling costs more than compressing: what was compiled once is kept.
                kept = compression or ("gzip" if layer.compiled else None)
                found = self._measure(plan, layer) if kept is None else self._pack(plan, layer, kept, catalogs)
        phase.advance(1, item=layer.title)
        _tell(ready, layer, found)
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
        tar = Measure()
        self._write(plan, layer, tar)
        return self._kept(layer, LayerRecord(key=layer.key, diff_id=tar.digest, size=tar.size))

    def _pack(
        self, plan: ImagePlan, layer: LayerSpec, compression: Compression, catalogs: Sequence[Catalog]
    ) -> LayerRecord:
        """The record of a layer that now lies compressed in the cache."""
        tar, packed = Measure(), Measure()
        with self.blobs.writing() as scratch:

            def keep(data: bytes) -> None:
                packed(data)
                scratch.write(data)

            compressor = compress.compressor(compression, keep)

            def take(data: bytes) -> None:
                tar(data)
                compressor(data)

            self._write(plan, layer, take, catalogs)
            record = LayerRecord(key=layer.key, diff_id=tar.digest, size=tar.size)
            if record.empty:
                return self._kept(layer, record)
            compressor.finish()
            record = self._kept(layer, record.with_blob(compression, packed.digest, packed.size))
            scratch.keep(packed.digest)
        return record

    def _write(self, plan: ImagePlan, layer: LayerSpec, sink: Sink, catalogs: Sequence[Catalog] = ()) -> None:
        """Gives the tar of a layer to ``sink``, nothing of one without content.

        Bytecode whose compiler is missing is taken from where a catalog knows it. Raises ``CompilerMissing`` when
        none does.
        """
        try:
            members = self._members(plan, layer)
        except CompilerMissing:
            for catalog in (*catalogs, *self._shop.team()):
                entry = catalog.fetch([layer]).get(layer.key)
                if entry is not None:
                    record = self._kept(layer, entry.record)
                    for piece in () if record.empty else decompressed(catalog.blob(record)):
                        sink(piece)
                    return
            raise
        if members:
            archive.write(members, sink)

    def _members(self, plan: ImagePlan, layer: LayerSpec) -> list[Member]:
        shop = self._shop
        if layer.kind == "glue":
            return content.glue_members(plan, self._describe(plan), shop.describer)
        if layer.kind == "runtime":
            return content.runtime_members(plan.runtime_id, shop.runtime)
        if layer.kind == "packages":
            self._bring([layer])
            return content.package_members(layer, self._describe(plan), shop.describer)
        compiler = self._compiler(plan)
        python = compiler.version.rpartition(".")[0]
        if layer.kind == "bytecode":
            self._bring([layer])
            return content.bytecode_members(layer, self._describe(plan), shop.describer, compiler, python)
        sources = (
            content.runtime_sources(plan.runtime_id, shop.runtime)
            if layer.kind == "runtime-bytecode"
            else shop.stdlib(plan.base)
        )
        made = content.compiled(compiler, sources, python)
        return archive.complete(made) if made else []

    def _bring(self, layers: Iterable[LayerSpec]) -> None:
        """Has the wheels of ``layers`` here. Raises ``LayerDiffers`` for one that is not as the catalog told it."""
        wanted = {wheel.sha256: wheel for layer in layers for wheel in layer.wheels}
        describer = self._shop.describer
        missing = [wheel for wheel in wanted.values() if not describer.has(wheel)]
        for wheel in describer.bring(missing, self._shop.reporter) if missing else ():
            told = self._told.get(wheel.sha256)
            if told is not None and told.wheel != wheel:
                message = f"{wheel.filename} is not what the team's catalog says of it"
                raise LayerDiffers(message, data={"sha256": wheel.sha256})

    def _describe(self, plan: ImagePlan) -> Described:
        env_id = plan.part.env_id
        if env_id not in self._described:
            self._described[env_id] = self._shop.describer.describe(
                plan.part, self._shop.reporter, known=self._told
            )
        return self._described[env_id]

    def _compiler(self, plan: ImagePlan) -> Compiler:
        own = plan.part.own_python
        key = f"{plan.base.manifest} {bytecode_of(plan.part, plan.base)} {own.sha256 if own else ''}"
        with self._finding:
            if key not in self._compilers:
                self._compilers[key] = self._shop.compiler(plan)
            return self._compilers[key]


def _tell(ready: Ready, layer: LayerSpec, record: LayerRecord) -> None:
    if not record.empty:
        ready(Made(spec=layer, record=record))


def _lacks(record: LayerRecord | None, compression: Compression | None) -> bool:
    if record is None:
        return True
    return not record.empty and compression is not None and record.blob(compression) is None
