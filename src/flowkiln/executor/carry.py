"""The part of a store that one task needs, carried to a container whose engine cannot mount it, and back."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from flowkiln._base.engineerrors import ContainerMissing
from flowkiln.executor.container import STORE
from flowkiln.store import formats, keys, packs
from flowkiln.store.errors import BlobMissing
from flowkiln.store.packs import Pack
from flowkiln.store.place import ABOUT, SCRATCH
from flowkiln.store.references import blobs_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.engines import Engine
    from flowkiln.store.folder import FolderStore

    Sink = Callable[[bytes], object]


class Parcel:
    """A tar archive that is written while it is sent. Everything in it can be used by any user of a container."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bytes | Path | None]] = []
        self._names: set[str] = set()

    def folder(self, name: str) -> None:
        """Adds a folder that anybody may write to."""
        if name not in self._names:
            self._names.add(name)
            self._parts.append((name, None))

    def add(self, name: str, content: bytes | Path) -> None:
        """Adds a file, and the folders above it."""
        if name in self._names:
            return
        for above in reversed(PurePosixPath(name).parents[:-1]):
            self.folder(str(above))
        self._names.add(name)
        self._parts.append((name, content))

    def tree(self, name: str, source: Path) -> None:
        """Adds a folder with all that is below it."""
        self.folder(name)
        for parent, _, files in os.walk(source):
            below = PurePosixPath(name, *Path(parent).relative_to(source).parts)
            for file in files:
                self.add(str(below / file), Path(parent, file))

    def write(self, sink: Sink) -> None:
        """Writes the archive to ``sink``. Raises ``OSError`` for a file that is gone."""
        stream = cast("IO[bytes]", _Sinking(sink))  # a tar stream asks for nothing but ``write``
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for name, content in self._parts:
                member = tarfile.TarInfo(name)
                if content is None:
                    member.type, member.mode = tarfile.DIRTYPE, 0o777
                    archive.addfile(member)
                elif isinstance(content, bytes):
                    member.size, member.mode = len(content), 0o666
                    archive.addfile(member, io.BytesIO(content))
                else:
                    with content.open("rb") as file:
                        facts = os.fstat(file.fileno())
                        member.size, member.mode = facts.st_size, 0o666 | (facts.st_mode & 0o111)
                        archive.addfile(member, file)


class _Sinking:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink(bytes(data))
        return len(data)


def pack_store(parcel: Parcel, name: str, store: FolderStore, assignment: Assignment, begun: bytes) -> None:
    """Adds what the attempt reads from the store, below the folder ``name``; ``begun`` is its begin record.

    Raises ``BlobMissing`` and the store's errors.
    """
    parcel.folder(f"{name}/{SCRATCH}")
    parcel.add(f"{name}/{ABOUT}", Path(store.root, ABOUT))
    run = assignment.run
    mine = keys.begin(run, assignment.task, assignment.attempt)
    parcel.add(f"{name}/{mine}", formats.framed(begun))
    documents: list[JSONObject] = []
    for key in _outcomes(assignment):
        document = _carried(parcel, name, store, key)
        if document is not None:
            documents.append({"artifacts": document["artifacts"]})
    for task, attempt, _ in assignment.frames:
        document = _carried(parcel, name, store, keys.outcome(run, task, attempt))
        if document is not None:
            documents.append({"transition": document["transition"]})
    if assignment.inputs is not None:
        manifest = _carried(parcel, name, store, assignment.inputs)
        if manifest is not None:
            documents.append(manifest)
            documents += _inputs(manifest, store)
    for sha256, _ in blobs_in(documents):
        path = Path(store.blobs.path(sha256))
        if not path.exists():
            message = f"{path} is not in the store"
            raise BlobMissing(message, hint="`flowkiln store check` lists what is missing.")
        parcel.add(f"{name}/{keys.blob(sha256)}", path)


def _outcomes(assignment: Assignment) -> Iterator[str]:
    """The keys of the outcomes whose artifacts the attempt reads."""
    run = assignment.run
    yield keys.outcome(run, *(assignment.parent or (0, 0)))
    if assignment.fallback and assignment.attempt > 0:
        yield keys.outcome(run, assignment.task, assignment.attempt - 1)


def _carried(parcel: Parcel, name: str, store: FolderStore, key: str) -> JSONObject | None:
    data = store.records.read(key)
    if data is None:
        return None
    parcel.add(f"{name}/{key}", formats.framed(data))
    document: JSONObject = json.loads(data)
    return document


def _inputs(manifest: JSONObject, store: FolderStore) -> Iterator[JSONObject]:
    for data in packs.iterate(Pack.from_json(manifest["pack"]), store.blobs):
        document: JSONObject = json.loads(data)
        yield {"artifacts": document["artifacts"]}


def fetch_outcome(engine: Engine, container: str, store: FolderStore, key: str) -> bytes | None:
    """The outcome that a container has sealed in its own store, its new blobs now in ours; None when it has none.

    Raises the engine's errors and the store's.
    """
    stored = fetch(engine, container, f"{STORE}/{key}")
    data = None if stored is None else formats.unframed(stored)
    if data is None:
        return None
    for sha256, _ in blobs_in(json.loads(data)):
        if not store.blobs.has(sha256):
            _fetch_blob(engine, container, store, sha256)
    return data


def _fetch_blob(engine: Engine, container: str, store: FolderStore, sha256: str) -> None:
    pieces = engine.get_archive(container, f"{STORE}/{keys.blob(sha256)}")
    with tarfile.open(fileobj=_Joined(pieces), mode="r|") as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None else None
        if file is None:
            message = f"the container's store lacks the blob {sha256}"
            raise BlobMissing(message, hint="Run the task again.")
        with store.blobs.put_stream() as stream:
            while block := file.read(1 << 20):
                stream.write(block)
    if stream.sha256 != sha256:
        message = f"the blob {sha256} was damaged in the container, or on its way"
        raise BlobMissing(message, hint="Run the task again.")


def fetch(engine: Engine, container: str, path: str) -> bytes | None:
    """The content of a container's file, None when there is no such file or container."""
    try:
        pieces = engine.get_archive(container, path)
    except ContainerMissing:
        return None
    with tarfile.open(fileobj=_Joined(pieces), mode="r|") as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isreg() else None
        return None if file is None else file.read()


class _Joined(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
