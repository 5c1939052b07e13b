"""Images in an OCI layout: a folder, or an archive of one (``.tar``)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowkiln._base import digests, files
from flowkiln._base.json import canonical
from flowkiln.images import archive, oci
from flowkiln.images.errors import BadLayout, LayerDiffers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.images.archive import Sink
    from flowkiln.images.oci import Descriptor, Document

    Content = Callable[[Sink], None] | Iterable[bytes]

_VERSION = "1.0.0"
LAYOUT = canonical({"imageLayoutVersion": _VERSION})
"""The file ``oci-layout``."""
NAME = "org.opencontainers.image.ref.name"
"""The annotation that names an image in ``index.json``."""
END = bytes(2 * tarfile.BLOCKSIZE)
"""What an archive ends with."""


def write_layout(
    target: Path, manifests: Sequence[Document], blobs: Iterable[tuple[Descriptor, Content]], *, name: str
) -> None:
    """``target`` holds the image as ``name``, whole; when it cannot be made, all is as it was.

    ``manifests`` are the image's manifest, or its index and the manifests that it names. ``blobs`` are configs and
    layers, each as pieces or as a function that writes to a sink; one that is there already is not read. A folder
    keeps its other images, an archive (``.tar``) is replaced. Raises ``BadLayout``, ``LayerDiffers`` for a blob
    that is not what its descriptor says, ``NoSpace`` and ``ReadOnly``.
    """
    row = {**_top(manifests).descriptor.to_json(), "annotations": {NAME: name}}
    with files.disk_errors(target):
        if target.suffix == ".tar" and not target.is_dir():
            _write_archive(target, row, manifests, blobs)
        elif target.exists() and not target.is_dir():
            raise BadLayout(f"{target} is a file, and a layout is a folder or a .tar")
        elif target.exists() and any(target.iterdir()):
            _add(target, row, manifests, blobs)
        else:
            _create(target, row, manifests, blobs)


def _create(
    target: Path, row: JSONObject, manifests: Sequence[Document], blobs: Iterable[tuple[Descriptor, Content]]
) -> None:
    """A new layout: made beside its place and renamed to it."""
    with files.scratch_folder(target.absolute().parent) as scratch:
        (scratch / "oci-layout").write_bytes(LAYOUT)
        _fill(scratch, manifests, blobs, [])
        (scratch / "index.json").write_bytes(index_of([row]))
        scratch.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        scratch.rename(target)


def _add(
    target: Path, row: JSONObject, manifests: Sequence[Document], blobs: Iterable[tuple[Descriptor, Content]]
) -> None:
    """Adds to a layout; the index is what makes an image part of it, and comes last."""
    with _held(target):
        rows = _rows(target)
        added: list[Path] = []
        try:
            _fill(target, manifests, blobs, added)
            rows = [one for one in rows if (one.get("annotations") or {}).get(NAME) != row["annotations"][NAME]]
            files.write_atomic(target / "index.json", index_of([*rows, row]))
        except BaseException:
            for path in added:
                path.unlink(missing_ok=True)
            raise


def _fill(
    folder: Path, manifests: Sequence[Document], blobs: Iterable[tuple[Descriptor, Content]], added: list[Path]
) -> None:
    """Every blob lies in the folder; those that were not there before are noted in ``added``."""
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    documents = [(one.descriptor, [one.data]) for one in manifests]
    for descriptor, content in (*documents, *blobs):
        path = folder / blob_path(descriptor.digest)
        if path.is_file() and path.stat().st_size == descriptor.size:
            continue
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        try:
            with scratch.open("xb") as stream:
                _copy(descriptor, content, stream.write)
            added.append(path)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    for digest in _named(manifests):
        if not (folder / blob_path(digest)).is_file():
            raise _lacking(digest)


def _write_archive(
    target: Path, row: JSONObject, manifests: Sequence[Document], blobs: Iterable[tuple[Descriptor, Content]]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with scratch.open("xb") as stream:
            for path, data in (("oci-layout", LAYOUT), ("index.json", index_of([row]))):
                stream.write(entry(path, data))
            written: set[str] = set()
            documents = [(one.descriptor, [one.data]) for one in manifests]
            for descriptor, content in (*documents, *blobs):
                if descriptor.digest in written:
                    continue
                written.add(descriptor.digest)
                stream.write(header(blob_path(descriptor.digest), descriptor.size))
                _copy(descriptor, content, stream.write)
                stream.write(padding(descriptor.size))
            for digest in _named(manifests):
                if digest not in written:
                    raise _lacking(digest)
            stream.write(END)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _copy(descriptor: Descriptor, content: Content, sink: Sink) -> None:
    """Gives the content on. Raises ``LayerDiffers`` when it is not what the descriptor says."""
    digest, size = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal size
        size += len(data)
        digest.update(data)
        sink(data)

    if callable(content):
        content(take)
    else:
        for block in content:
            take(block)
    if (size, f"sha256:{digest.hexdigest()}") != (descriptor.size, descriptor.digest):
        message = f"blob {descriptor.digest} of {descriptor.size} bytes has other bytes now ({size})"
        raise LayerDiffers(message, hint="Bake the image again.", data={"digest": descriptor.digest})


def _top(manifests: Sequence[Document]) -> Document:
    """The document that no other one names: the image itself. Raises ``ValueError`` when it is not one."""
    inner = {digest for one in manifests if one.media_type in oci.INDEXES for digest in _named([one])}
    tops = [one for one in manifests if one.digest not in inner]
    if len(tops) != 1:
        message = f"one image has one index or manifest at its top, not {len(tops)}"
        raise ValueError(message)
    return tops[0]


def _named(manifests: Iterable[Document]) -> Iterator[str]:
    """The digests that the documents name."""
    for one in manifests:
        document: dict[str, Any] = json.loads(one.data)
        if one.media_type in oci.INDEXES:
            yield from (str(row["digest"]) for row in document["manifests"])
        else:
            yield from (str(row["digest"]) for row in (document["config"], *document["layers"]))


def _lacking(digest: str) -> ValueError:
    return ValueError(f"blob {digest} is named by a manifest and was not handed in")


def _rows(folder: Path) -> list[JSONObject]:
    """The images of a layout. Raises ``BadLayout``."""
    try:
        version = json.loads((folder / "oci-layout").read_bytes())["imageLayoutVersion"]
        rows = json.loads((folder / "index.json").read_bytes())["manifests"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadLayout(f"{folder} is not empty and no OCI layout: {error}") from error
    if version != _VERSION or not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise BadLayout(f"{folder} is an OCI layout of a form that is not known (version {version!r})")
    return rows


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody else of ours adds to the layout; the lock is on its folder, so that no file of ours stays in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def index_of(rows: Sequence[JSONObject]) -> bytes:
    """The file ``index.json``: a row for each image."""
    return canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": list(rows)})


def entry(path: str, data: bytes) -> bytes:
    """A small file as an entry of an archive."""
    return header(path, len(data)) + data + padding(len(data))


def header(path: str, size: int) -> bytes:
    """The beginning of a file of ``size`` bytes in an archive."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mtime = size, archive.TIME
    return entry.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What follows a file of ``size`` bytes in an archive."""
    return bytes(-size % tarfile.BLOCKSIZE)


def blob_path(digest: str) -> str:
    """Where a layout has a blob."""
    return f"blobs/sha256/{digests.hexdigits(digest)}"
