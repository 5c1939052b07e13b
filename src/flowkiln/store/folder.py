"""A store in a folder, by plain operating system calls: no locks, no daemon, safe under ``kill -9``.

Nothing is synced to disk except by :meth:`FolderRecords.sync`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import time
from typing import TYPE_CHECKING

from flowkiln.store import formats, keys
from flowkiln.store.errors import BadKey, BlobDamaged, BlobMissing, RecordDamaged
from flowkiln.store.place import SCRATCH, Place, discard, fail, fail_to_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import NoReturn, Self

CHUNK = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FolderStore:
    """Records and blobs below ``root``, which is made on the first write with a ``.gitignore`` of ``*``.

    Raises ``FormatTooNew`` when a newer flowkiln made the folder in another format, ``RecordDamaged`` when the
    file that tells its format is damaged.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)
        place = Place(self.root)
        place.check_format()
        self.records = FolderRecords(place)
        self.blobs = FolderBlobs(place)

    def live_log(self, run: str, task: int, attempt: int) -> str:
        """The path of the lines so far of an attempt that runs; the file is there only while it does."""
        return os.path.join(self.root, keys.live_log(run, task, attempt))

    def scratch_files(self) -> list[str]:
        """Paths of half-written files: those of writers at work and what killed ones left behind."""
        folder = os.path.join(self.root, SCRATCH)
        try:
            return sorted(os.path.join(folder, name) for name in os.listdir(folder))
        except FileNotFoundError:
            return []

    def sweep(self, older_than: float = 30 * 86_400.0) -> int:
        """Removes scratch files last written more than ``older_than`` seconds ago and returns how many.

        A month unless told: what an interrupted task printed lies there until somebody goes on with its run.
        """
        swept = 0
        for path in self.scratch_files():
            try:
                if time.time() - os.stat(path).st_mtime > older_than:
                    os.unlink(path)
                    swept += 1
            except FileNotFoundError:
                continue
        return swept


class FolderRecords:
    """The records of a :class:`FolderStore`; see ``interfaces.Records``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def create(self, key: str, data: bytes) -> bool:
        """Stores ``data`` unless the key exists; True when this call made it. Raises ``StoreUnusable``."""
        target = self._place.path(key)
        try:
            scratch = self._place.fill(formats.framed(data))
            try:
                return self._place.publish(scratch, target)
            finally:
                discard(scratch)
        except OSError as error:
            fail_to_write(error, target)

    def read(self, key: str) -> bytes | None:
        """The record, None when there is none. Raises ``RecordDamaged``."""
        path = self._place.path(key)
        try:
            with open(path, "rb", buffering=0) as stream:
                stored = stream.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            fail(error, path)
        if not stored:  # a power loss took its content before it reached the disk: it was never made
            return None
        data = formats.unframed(stored)
        if data is None:
            message = f"{path} does not match its checksum"
            raise RecordDamaged(message, hint="`flowkiln store check` lists all damage.", data={"key": key})
        return data

    def write(self, key: str, data: bytes) -> None:
        """Stores ``data``, replacing what was there."""
        target = self._place.path(key)
        try:
            scratch = self._place.fill(formats.framed(data))
            self._place.replace(scratch, target)
        except OSError as error:
            fail_to_write(error, target)

    def names(self, prefix: str) -> list[str]:
        """The names right below ``prefix``, sorted; none when there is no such key."""
        path = self._place.path(prefix)
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            fail(error, path)

    def exists(self, key: str) -> bool:
        """Whether there is such a record."""
        try:
            return os.stat(self._place.path(key)).st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False

    def delete(self, key: str) -> None:
        """Removes a record. Absent is fine."""
        path = self._place.path(key)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            fail_to_write(error, path)

    def sync(self, keys: Iterable[str]) -> None:
        """Returns once these records or blobs, and the folders they lie in, have reached the disk (``fsync``)."""
        folders: set[str] = set()
        for key in keys:
            path = self._place.path(key)
            _fsync(path)
            folder = os.path.dirname(path)
            while folder not in folders and len(folder) >= len(self._place.root):
                folders.add(folder)
                folder = os.path.dirname(folder)
        for folder in sorted(folders, key=len, reverse=True):
            _fsync(folder)


class FolderBlobs:
    """The blobs of a :class:`FolderStore`; see ``interfaces.Blobs``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def put(self, data: bytes | bytearray | memoryview) -> str:
        """Stores ``data`` and returns its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        size = memoryview(data).nbytes
        try:
            if not _has_size(target, size):
                self._place.replace(self._place.fill(data, mode=0o444), target)
        except OSError as error:
            fail_to_write(error, target)
        return sha256

    def put_stream(self) -> FolderBlobWriter:
        """A writer that hashes while it writes; the blob appears when its block ends without an exception."""
        return FolderBlobWriter(self._place, self.path)

    def put_file(self, path: str | os.PathLike[str]) -> str:
        """Stores a file's content, read in pieces of 1 MiB, and returns its sha256. Raises ``OSError``."""
        with open(path, "rb", buffering=0) as source, self.put_stream() as sink:
            piece = bytearray(CHUNK)
            while count := source.readinto(piece):
                sink.write(memoryview(piece)[:count])
        return sink.sha256

    def read(self, sha256: str) -> bytes:
        """All of a blob. Raises ``BlobMissing``."""
        try:
            with open(self.path(sha256), "rb", buffering=0) as stream:
                return stream.read()
        except OSError as error:
            self._fail(error, sha256)

    def read_range(self, sha256: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``. Raises ``BlobMissing`` and ``BlobDamaged``."""
        try:
            descriptor = os.open(self.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, length, start)
                while len(data) < length and (more := os.pread(descriptor, length - len(data), start + len(data))):
                    data += more
            finally:
                os.close(descriptor)
        except OSError as error:
            self._fail(error, sha256)
        if len(data) < length:
            message = f"{self.path(sha256)} ends at byte {start + len(data)}, before {start + length}"
            raise BlobDamaged(message, hint="`flowkiln store check` lists all damage.", data={"sha256": sha256})
        return data

    def map(self, sha256: str) -> mmap.mmap:
        """A private copy-on-write mapping: writable, and no write ever reaches the blob.

        Raises ``BlobMissing``, and ``BlobDamaged`` for a file without content, which cannot be mapped.
        """
        path = self.path(sha256)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
            finally:
                os.close(descriptor)
        except ValueError as error:
            message = f"{path} is empty"
            raise BlobDamaged(message, data={"sha256": sha256}) from error
        except OSError as error:
            self._fail(error, sha256)

    def has(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return os.path.isfile(self.path(sha256))

    def path(self, sha256: str) -> str:
        """Where the blob lies or would lie. Raises ``BadKey`` when ``sha256`` is not 64 hex digits."""
        if _SHA256.fullmatch(sha256) is None:
            message = f"not a sha256: {sha256!r}"
            raise BadKey(message)
        return os.path.join(self._place.root, keys.blob(sha256))

    def _fail(self, error: OSError, sha256: str) -> NoReturn:
        if isinstance(error, FileNotFoundError):
            message = f"{self.path(sha256)} is not in the store"
            hint = "`flowkiln store check` lists what is missing."
            raise BlobMissing(message, hint=hint, data={"sha256": sha256}) from error
        fail(error, self.path(sha256))


class FolderBlobWriter:
    """A blob being written, hashed in the same pass; see ``interfaces.BlobWriter``."""

    def __init__(self, place: Place, path: Callable[[str], str]) -> None:
        self.sha256 = ""
        self.size = 0
        self._place = place
        self._path = path
        self._hash = hashlib.sha256()
        self._descriptor = -1
        self._scratch = ""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Adds all of ``data`` and returns its length in bytes. Raises ``NoSpace``, ``StoreUnusable``."""
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), CHUNK):
                piece = view[start : start + CHUNK]
                self._hash.update(piece)
                while piece:
                    piece = piece[os.write(self._descriptor, piece) :]
        except OSError as error:
            fail_to_write(error, self._scratch)
        self.size += len(view)
        return len(view)

    def __enter__(self) -> Self:
        try:
            self._descriptor, self._scratch = self._place.scratch(0o444)
        except OSError as error:
            fail_to_write(error, self._place.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sha256 = self._hash.hexdigest()
        target = self._path(self.sha256)
        try:
            os.close(self._descriptor)
            if kind is not None or _has_size(target, self.size):
                discard(self._scratch)
            else:
                self._place.replace(self._scratch, target)
        except OSError as trouble:
            fail_to_write(trouble, target)


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _fsync(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        fail(error, path)
