"""Images written by hand as OCI layouts on disk, from tar archives, for any platform, without an engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TYPE = "application/vnd.oci.image."
_MADE = "2024-01-01T00:00:00Z"
_CHUNK = 1 << 20
_GZIP_LEVEL = 1
"""The layers travel over loopback only."""


@dataclass(frozen=True)
class Variant:
    """One platform's image: tar archives, lowest first, and what its config says."""

    architecture: str
    layers: Sequence[Path]
    config: Mapping[str, Any]


@dataclass
class Tree:
    """Files for a tar archive, by their path in the image."""

    files: dict[str, Path] = field(default_factory=dict)
    """Copied from disk, symbolic links as they are."""
    made: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Contents and modes."""
    links: dict[str, str] = field(default_factory=dict)
    folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Modes and owners; parents that are not named here are made."""

    def add(self, folder: Path, below: str = "", wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Adds what lies in ``folder``, its own path replaced by ``below``."""
        for path in folder.rglob("*"):
            name = str(Path(below) / path.relative_to(folder))
            if not wanted(name):
                continue
            if path.is_dir() and not path.is_symlink():
                self.folders[name] = (path.stat().st_mode & 0o7777, 0)
            else:
                self.files[name] = path

    def write(self, target: Path) -> None:
        """Writes the archive: sorted, owned by root, with every parent folder once."""
        names = {*self.files, *self.made, *self.links, *self.folders}
        parents = {str(parent) for name in names for parent in Path(name).parents} - {"."}
        with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(parents | names):
                self._write(archive, name)

    def _write(self, archive: tarfile.TarFile, name: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.mode = 0o755
        if name in self.made:
            data, entry.mode = self.made[name]
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        elif name in self.links or (name in self.files and self.files[name].is_symlink()):
            entry.type = tarfile.SYMTYPE
            entry.linkname = self.links.get(name) or str(self.files[name].readlink())
            archive.addfile(entry)
        elif name not in self.files:
            entry.type = tarfile.DIRTYPE
            entry.mode, entry.uid = self.folders.get(name, (0o755, 0))
            archive.addfile(entry)
        else:
            status = self.files[name].stat()
            entry.mode, entry.size, entry.mtime = status.st_mode & 0o7777, status.st_size, int(status.st_mtime)
            with self.files[name].open("rb") as file:
                archive.addfile(entry, file)


def write_layout(target: Path, variants: Sequence[Variant], *, as_index: bool) -> str:
    """Writes an OCI layout whose one entry is an image, or an index of images; its digest."""
    scratch = target.with_name(target.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "blobs" / "sha256").mkdir(parents=True)
    manifests = [_manifest(scratch, variant) for variant in variants]
    top = manifests[0]
    if as_index:
        index = {"schemaVersion": 2, "mediaType": f"{_TYPE}index.v1+json", "manifests": manifests}
        top = _blob(scratch, json.dumps(index).encode(), f"{_TYPE}index.v1+json")
    (scratch / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
    entry = {**top, "annotations": {"org.opencontainers.image.ref.name": "base"}}
    listing = {"schemaVersion": 2, "manifests": [entry]}
    (scratch / "index.json").write_text(json.dumps(listing), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    return str(top["digest"])


def _manifest(layout: Path, variant: Variant) -> dict[str, Any]:
    pairs = [_layer(layout, path) for path in variant.layers]
    config = {
        "created": _MADE,
        "architecture": variant.architecture,
        "os": "linux",
        "config": variant.config,
        "rootfs": {"type": "layers", "diff_ids": [diff for diff, _ in pairs]},
        "history": [{"created": _MADE, "created_by": f"the tests: {path.stem}"} for path in variant.layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}manifest.v1+json",
        "config": _blob(layout, json.dumps(config).encode(), f"{_TYPE}config.v1+json"),
        "layers": [descriptor for _, descriptor in pairs],
    }
    top = _blob(layout, json.dumps(manifest).encode(), f"{_TYPE}manifest.v1+json")
    return {**top, "platform": {"os": "linux", "architecture": variant.architecture}}


def _blob(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _layer(layout: Path, archive: Path) -> tuple[str, dict[str, Any]]:
    """The digest of the archive and the descriptor of its compressed form, which is kept beside it."""
    packed = archive.with_suffix(".tar.gz")
    whole = hashlib.sha256()
    scratch = archive.with_suffix(".new")
    with (
        archive.open("rb") as source,
        scratch.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="", compresslevel=_GZIP_LEVEL) as zipped,
    ):
        while chunk := source.read(_CHUNK):
            whole.update(chunk)
            zipped.write(chunk)
    scratch.rename(packed)
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blob = layout / "blobs" / "sha256" / digest
    packed.rename(blob)
    descriptor = {
        "mediaType": f"{_TYPE}layer.v1.tar+gzip",
        "digest": f"sha256:{digest}",
        "size": blob.stat().st_size,
    }
    return f"sha256:{whole.hexdigest()}", descriptor
