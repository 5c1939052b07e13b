"""The config and the manifest of an image, computed from its plan and the records of its layers.

Both are functions of their inputs alone: times are fixed, order is that of the plan. Formats: OCI image
specification 1.0, with Docker's media types of a base's layers turned into OCI's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln._base.json import canonical
from flowkiln.images import oci, places
from flowkiln.images.compress import MEDIA_TYPES
from flowkiln.images.plan import bytecode_of, python_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.oci import Descriptor, Document
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.records import LayerRecord

CREATED = "1980-01-01T00:00:00Z"
LABEL = "io.flowkiln"
_DROPPED = ("Entrypoint", "Cmd", "Healthcheck", "OnBuild", "ArgsEscaped", "Volumes", "Shell")
_TO_OCI = {
    "application/vnd.docker.image.rootfs.diff.tar": oci.LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": oci.LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": oci.LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A layer of the plan with its record; layers without content are not among them."""

    spec: LayerSpec
    record: LayerRecord


def config(plan: ImagePlan, base: JSONObject, layers: Sequence[Made], tree_digest: str) -> Document:
    """The config of the image: the base's with our environment in front. ``base`` is the base's own config."""
    inner: JSONObject = {
        key: value for key, value in (base.get("config") or {}).items() if key not in _DROPPED and value is not None
    }
    inner["Env"] = environ(inner.get("Env") or (), bytecode=bytecode_of(plan.part, plan.base) is not None)
    inner["Cmd"] = [f"{places.PREFIX}/bin/python"]
    inner["Labels"] = {**(inner.get("Labels") or {}), **labels(plan, tree_digest)}
    document: JSONObject = {
        key: base[key] for key in ("architecture", "os", "os.version", "variant") if key in base
    }
    document |= {"created": CREATED, "config": inner}
    document["rootfs"] = {
        "type": "layers",
        "diff_ids": [*base["rootfs"]["diff_ids"], *(one.record.diff_id for one in layers)],
    }
    document["history"] = [
        *(base.get("history") or ()),
        *({"created": CREATED, "created_by": f"flowkiln: {one.spec.title}"} for one in layers),
    ]
    return oci.Document(media_type=oci.CONFIG, data=_bytes(document))


def labels(plan: ImagePlan, tree_digest: str) -> dict[str, str]:
    """What the image says of itself: identities only, since the config is a function of the image key."""
    return {
        f"{LABEL}.schema": "1",
        f"{LABEL}.lock-id": plan.lock_id,
        f"{LABEL}.env-id": plan.part.env_id,
        f"{LABEL}.tree-digest": tree_digest,
        f"{LABEL}.image-key": plan.image_key,
        f"{LABEL}.runtime-id": plan.runtime_id,
        f"{LABEL}.bytecode": bytecode_of(plan.part, plan.base) or "none",
        f"{LABEL}.python": python_of(plan.part, plan.base)[1],
        "org.opencontainers.image.base.digest": plan.base.manifest,
    }


def environ(base: Sequence[str], *, bytecode: bool) -> list[str]:
    """The variables of the base with our own: programs of the environment first, a home that can be written."""
    found = dict(entry.partition("=")[::2] for entry in base)
    path = found.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found["PATH"] = f"{places.PREFIX}/bin:{path}"
    found |= {"HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108  the one folder that any user may write to
    if bytecode:
        found["PYTHONPYCACHEPREFIX"] = places.BYTECODE
    return [f"{name}={value}" for name, value in found.items()]


def manifest(
    plan: ImagePlan,
    config: Document,
    base: Sequence[Descriptor],
    layers: Sequence[Made],
    compression: str | None,
) -> Document:
    """The manifest with every layer in ``compression``, None for plain tars (as a local engine is given).

    ``base`` are the descriptors of the base's layers. Raises ``KeyError`` for a layer that was never compressed so.
    """
    descriptors = [*map(_of_base, base), *(_descriptor(one, compression) for one in layers)]
    document: JSONObject = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": config.descriptor.to_json(),
        "layers": [one.to_json() for one in descriptors],
        "annotations": {
            f"{LABEL}.image-key": plan.image_key,
            f"{LABEL}.env-id": plan.part.env_id,
            "org.opencontainers.image.base.digest": plan.base.manifest,
        },
    }
    return oci.Document(media_type=oci.MANIFEST, data=_bytes(document))


def index(manifests: Sequence[tuple[Document, JSONObject]], annotations: dict[str, str]) -> Document:
    """The index of an environment's platforms; each manifest comes with its ``platform`` object."""
    rows = [{**document.descriptor.to_json(), "platform": platform} for document, platform in manifests]
    rows.sort(key=lambda row: json.dumps(row["platform"], sort_keys=True))
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": rows, "annotations": annotations}
    return oci.Document(media_type=oci.INDEX, data=_bytes(body))


def platform_of(plan: ImagePlan) -> JSONObject:
    """The platform of an image as an index names it."""
    platform = {"architecture": plan.part.platform.arch, "os": plan.part.platform.os}
    return platform | ({"variant": "v8"} if plan.part.platform.arch == "arm64" else {})


def _of_base(descriptor: Descriptor) -> Descriptor:
    media_type = _TO_OCI.get(descriptor.media_type, descriptor.media_type)
    return oci.Descriptor(media_type=media_type, digest=descriptor.digest, size=descriptor.size)


def _descriptor(layer: Made, compression: str | None) -> Descriptor:
    record = layer.record
    if compression is None:
        return oci.Descriptor(media_type=oci.LAYER, digest=record.diff_id, size=record.size)
    blob = record.blob(compression)
    if blob is None:
        raise KeyError(record.key)
    note = ((f"{LABEL}.layer-key", record.key),)
    return oci.Descriptor(media_type=MEDIA_TYPES[compression], digest=blob[0], size=blob[1], annotations=note)


def _bytes(document: dict[str, Any]) -> bytes:
    return canonical(document)
