"""A small image with a shell, made of Debian's static busybox, loaded into an engine without a registry."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from tests.services import unavailable
from tests.stack.packages import machine, unpacked
from tests.stack.place import CannotRun

if TYPE_CHECKING:
    from flowkiln._base.engine import Engine

NAME = "flowkiln-tests/tiny:1"
PROGRAMS = ("sh", "cat", "sleep", "echo", "true")


def layer() -> bytes:
    """The one layer of the image, uncompressed."""
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
    return buffer.getvalue()


def config(*layers: bytes, labels: dict[str, str] | None = None) -> bytes:
    """The config of an image with these uncompressed layers."""
    diff_ids = ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]
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
        data = layer()
        about = config(data)
        saved = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            files = {"manifest.json": json.dumps(saved).encode(), "config.json": about, "layer.tar": data}
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        engine.load([buffer.getvalue()])
    return NAME
