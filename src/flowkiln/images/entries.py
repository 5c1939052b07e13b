"""What the catalog keeps of one layer, as an artifact of a registry: a manifest that names the layer's blob.

The config, which stands in the manifest itself too, is the record of the layer. A package layer has the
descriptions of its wheels beside it, so that environments that hold it are described without a byte of a package.
Nothing that is read is believed before it was held against the layer that was asked for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln._base import digests
from flowkiln._base.json import canonical
from flowkiln.envs.condapackage import CONDA_SCHEMA, CondaPackage
from flowkiln.envs.describing import Known
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.wheel import WHEEL_SCHEMA, Wheel, WheelFile
from flowkiln.envs.wheelstore import unpacked_of
from flowkiln.images import compress, oci
from flowkiln.images.compress import MEDIA_TYPES
from flowkiln.images.decompress import decompressed
from flowkiln.images.libraries import Program
from flowkiln.images.records import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.lock import Locked
    from flowkiln.images.compress import Compression
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.oci import Descriptor, Document

SCHEMA = 1
RECORD = "application/vnd.flowkiln.layer.v1+json"
WHEELS = "application/vnd.flowkiln.wheels.v1+json+zstd"
LARGEST = 64 << 20
"""Bytes of the descriptions of a layer's wheels, compressed; ten times that many otherwise."""
_NOTHING = oci.Document(media_type=oci.EMPTY, data=b"{}")
_ROOM = 10 * LARGEST


class OtherSchema(ValueError):
    """An entry was written by another version of flowkiln: it is no use here, and stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A layer as the catalog knows it. ``wheels`` are those of a package layer, in the layer's order.

    ``programs`` are those of its wheels by their sha256. ``libraries`` are the names of the shared objects of the
    base that a layer belongs to, None for other layers and where they are not known.
    """

    record: LayerRecord
    wheels: tuple[Known, ...] = ()
    programs: Mapping[str, tuple[Program, ...]] = field(default_factory=dict)
    libraries: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An entry on its way to a registry: ``documents`` are the blobs that its manifest names beside the layer."""

    manifest: Document
    documents: tuple[Document, ...]


def artifact(layer: LayerSpec, entry: Entry, compression: Compression) -> Artifact:
    """The artifact of a layer whose record has a blob in ``compression``, or no content at all."""
    record = entry.record
    about: JSONObject = {"schema": SCHEMA, "key": record.key, "diff_id": record.diff_id, "size": record.size}
    if entry.libraries is not None:
        about["libraries"] = list(entry.libraries)
    config = oci.Document(media_type=RECORD, data=canonical(about))
    documents, named = [config], []
    if record.empty:  # a manifest without layers is refused by some registries
        documents.append(_NOTHING)
        named.append(_NOTHING.descriptor)
    else:
        blob = dict(record.blobs)[compression]
        named.append(oci.Descriptor(media_type=MEDIA_TYPES[compression], digest=blob[0], size=blob[1]))
    if entry.wheels:
        described = oci.Document(media_type=WHEELS, data=_packed(entry))
        documents.append(described)
        named.append(described.descriptor)
    body: JSONObject = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": {**config.descriptor.to_json(), "data": base64.b64encode(config.data).decode()},
        "layers": [one.to_json() for one in named],
        "annotations": {"io.flowkiln.layer-key": record.key, "io.flowkiln.layer": layer.title},
    }
    manifest = oci.Document(media_type=oci.MANIFEST, data=canonical(body))
    return Artifact(manifest=manifest, documents=tuple(documents))


def read(
    data: bytes,
    layer: LayerSpec,
    compression: Compression,
    blob: Callable[[Descriptor], bytes],
    *,
    wheels: bool,
) -> Entry:
    """The entry of ``layer`` in the manifest ``data``; ``blob`` gives the bytes of what it names.

    ``wheels`` asks for the descriptions of a package layer too. Raises ``OtherSchema``, and ``ValueError``,
    ``KeyError`` or ``TypeError`` for anything that is no sound entry of that layer.
    """
    document = json.loads(data)
    config = _config(document, layer, blob)
    record = _record(document, config, layer, compression)
    if not wheels or layer.kind != "packages":
        told = config.get("libraries") if layer.kind == "stdlib-bytecode" else None
        return Entry(record=record, libraries=None if told is None else tuple(str(name) for name in told))
    descriptor = oci.Descriptor.from_json(document["layers"][1])
    if descriptor.media_type != WHEELS or not 0 < descriptor.size <= LARGEST:
        message = f"the descriptions of its wheels are {descriptor.size} bytes of {descriptor.media_type}"
        raise ValueError(message)
    rows = _unpacked(blob(descriptor))
    found = tuple(_known(row, locked) for row, locked in zip(rows, layer.wheels, strict=True))
    programs = {
        locked.sha256: tuple(map(Program.from_json, row["programs"]))
        for row, locked in zip(rows, layer.wheels, strict=True)
        if "programs" in row
    }
    return Entry(record=record, wheels=found, programs=programs)


def _config(document: JSONObject, layer: LayerSpec, blob: Callable[[Descriptor], bytes]) -> JSONObject:
    named = oci.Descriptor.from_json(document["config"])
    if named.media_type != RECORD:
        message = f"its config is {named.media_type}"
        raise ValueError(message)
    inline = document["config"].get("data")
    data = blob(named) if inline is None else base64.b64decode(inline, validate=True)
    if digests.of_bytes(data) != named.digest:
        message = "its config is not what its digest says"
        raise ValueError(message)
    config: JSONObject = json.loads(data)
    if config["schema"] != SCHEMA:
        raise OtherSchema(str(config["schema"]))
    if config["key"] != layer.key:
        message = f"it is of the layer {config['key']}"
        raise ValueError(message)
    return config


def _record(document: JSONObject, config: JSONObject, layer: LayerSpec, compression: Compression) -> LayerRecord:
    size, diff_id = config["size"], config["diff_id"]
    below = oci.Descriptor.from_json(document["layers"][0])
    form = oci.EMPTY if size == 0 else MEDIA_TYPES[compression]
    sound = type(size) is int and size >= 0 and below.size > 0 and below.media_type == form
    if not sound or not digests.is_digest(diff_id) or not digests.is_digest(below.digest):
        message = "its sizes, types and digests are not those of a layer"
        raise ValueError(message)
    record = LayerRecord(key=layer.key, diff_id=diff_id, size=size)
    return record if record.empty else record.with_blob(compression, below.digest, below.size)


def _packed(entry: Entry) -> bytes:
    rows = []
    for one in entry.wheels:
        scripts = {path: base64.b64encode(data).decode() for path, data in sorted(one.scripts.items())}
        row: JSONObject = {"wheel": one.wheel.to_json(), "scripts": scripts}
        if one.wheel.sha256 in entry.programs:
            row["programs"] = [program.to_json() for program in entry.programs[one.wheel.sha256]]
        rows.append(row)
    parts: list[bytes] = []
    compressor = compress.compressor("zstd", parts.append)
    compressor(canonical({"schema": SCHEMA, "wheels": rows}))
    compressor.finish()
    return b"".join(parts)


def _unpacked(data: bytes) -> list[JSONObject]:
    parts, have = [], 0
    for piece in decompressed([data]):
        have += len(piece)
        if have > _ROOM:
            message = "the descriptions of its wheels have no end"
            raise ValueError(message)
        parts.append(piece)
    document = json.loads(b"".join(parts))
    if document["schema"] != SCHEMA:
        raise OtherSchema(str(document["schema"]))
    return list(document["wheels"])


def _known(row: JSONObject, locked: Locked) -> Known:
    """A package as the lock has it. The bytes of its scripts are those that its description names."""
    schema = CONDA_SCHEMA if isinstance(locked, LockedConda) else WHEEL_SCHEMA
    if row["wheel"]["schema"] != schema:
        raise OtherSchema(str(row["wheel"]["schema"]))
    wheel = unpacked_of(row["wheel"])
    if isinstance(wheel, CondaPackage) != isinstance(locked, LockedConda):
        message = f"it describes {wheel.filename}, which is of the other kind"
        raise ValueError(message)
    told = (wheel.sha256, wheel.name, wheel.version, wheel.filename)
    if told != (locked.sha256, locked.name, locked.version, locked.filename):
        message = f"it describes {wheel.filename} ({wheel.sha256}), the lock has {locked.filename}"
        raise ValueError(message)
    try:
        scripts = {str(path): base64.b64decode(text, validate=True) for path, text in row["scripts"].items()}
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    _check_files(wheel)
    wanted = {file.stored: file.sha256 for file in wheel.files if isinstance(file, WheelFile) and file.launcher}
    if {path: hashlib.sha256(data).hexdigest() for path, data in scripts.items()} != wanted:
        message = f"it has not the scripts of {wheel.filename}"
        raise ValueError(message)
    return Known(wheel=wheel, scripts=scripts)


def _check_files(wheel: Unpacked) -> None:
    """Raises ``ValueError`` for paths that lead out of where a package's files go, and for hashes that are none."""
    names = [wheel.dist_info] if isinstance(wheel, Wheel) else []
    names += [*(file.path for file in wheel.files), *(file.stored for file in wheel.files)]
    names += [point.name for point in wheel.entry_points]
    for path in names:
        if not path or path.startswith("/") or not {"", ".", ".."}.isdisjoint(path.split("/")) or "\0" in path:
            message = f"it describes {wheel.filename} with the path {path!r}"
            raise ValueError(message)
    for file in wheel.files:
        if not digests.is_digest(f"sha256:{file.sha256}") or type(file.size) is not int or file.size < 0:
            message = f"it describes {wheel.filename} with a hash or size that is none"
            raise ValueError(message)
