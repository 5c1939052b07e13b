"""A small image with a shell, made of Debian's static busybox: in an engine, or as a base in a registry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln._base import digests
from flowkiln.images import oci
from flowkiln.images.oci import Descriptor
from tests.services import unavailable
from tests.stack.packages import machine, unpacked
from tests.stack.place import CannotRun

if TYPE_CHECKING:
    from flowkiln._base.engine import Engine

NAME = "flowkiln-tests/tiny:1"
PROGRAMS = ("sh", "cat", "sleep", "echo", "true")


def layer(salt: str = "") -> bytes:
    """The one layer of the image, uncompressed; with ``salt`` one that no engine has seen."""
    try:
        folder = unpacked("bookworm", "busybox-static")
    except CannotRun as why:
        unavailable(str(why))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        data = (folder / "bin" / "busybox").read_bytes()
        entry = tarfile.TarInfo("bin/busybox")
        entry.size, entry.mode = len(data), 0o755
        tar.addfile(entry, io.BytesIO(data))
        for name in PROGRAMS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        entry = tarfile.TarInfo("salt")
        entry.size = len(salt)
        tar.addfile(entry, io.BytesIO(salt.encode()))
    return buffer.getvalue()


def config(*layers: bytes, labels: dict[str, str] | None = None) -> bytes:
    """The config of an image with these uncompressed layers."""
    diff_ids = [digests.of_bytes(one) for one in layers]
    document = {
        "architecture": machine(),
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "Labels": labels or {}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document, sort_keys=True).encode()


def tiny_image(engine: Engine) -> str:
    """The image's name in the engine, which has it afterwards."""
    if engine.image(NAME) is None:
        load_plain(engine, NAME, layer())
    return NAME


def load_plain(engine: Engine, name: str, data: bytes, *, labels: dict[str, str] | None = None) -> None:
    """Loads an image of one uncompressed layer, as ``docker save`` writes it."""
    saved = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        files = {
            "manifest.json": json.dumps(saved).encode(),
            "config.json": config(data, labels=labels),
            "layer.tar": data,
        }
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    engine.load([buffer.getvalue()])


@dataclass(frozen=True)
class Pushed:
    """A base in a registry: ``layers`` are (diff id, descriptor, bytes as the registry has them)."""

    reference: str
    config: dict[str, Any]
    layers: list[tuple[str, Descriptor, bytes]]


def push_base(url: str, repository: str, *layers: bytes) -> Pushed:
    """Pushes an image of these uncompressed layers to a plain registry, named by its digest."""
    rows = []
    for tar in layers:
        packed = gzip.compress(tar, 1, mtime=0)
        blob = Descriptor(media_type=oci.LAYER_GZIP, digest=digests.of_bytes(packed), size=len(packed))
        rows.append((digests.of_bytes(tar), blob, packed))
        _put_blob(url, repository, packed)
    about = config(*layers)
    _put_blob(url, repository, about)
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": oci.Document(media_type=oci.CONFIG, data=about).descriptor.to_json(),
        "layers": [blob.to_json() for _, blob, _ in rows],
    }
    data = json.dumps(document).encode()
    digest = digests.of_bytes(data)
    _ask("PUT", f"{url}/v2/{repository}/manifests/{digest}", data, oci.MANIFEST)
    return Pushed(f"{url.partition('://')[2]}/{repository}@{digest}", json.loads(about), rows)


def _put_blob(url: str, repository: str, data: bytes) -> None:
    digest = digests.of_bytes(data)
    place = _ask("POST", f"{url}/v2/{repository}/blobs/uploads/", b"")
    joined = f"{place}{'&' if '?' in place else '?'}digest={digest}"
    _ask("PUT", joined, data, "application/octet-stream")


def _ask(method: str, url: str, data: bytes, kind: str = "application/octet-stream") -> str:
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return str(answer.headers.get("Location") or "")
