"""A store in a folder, by plain operating system calls: no locks, no daemon, safe under ``kill -9``.

A record is written to the scratch folder and hard-linked to its name, so that it appears whole and only one of
many creators makes it. Where hard links fail, an exclusive rename takes their place. Nothing is synced to disk
here except by :meth:`FolderRecords.sync`.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import mmap
import os
import re
import time
from typing import TYPE_CHECKING

from flowkiln.store import formats, keys
from flowkiln.store.errors import BadKey, BlobDamaged, BlobMissing, RecordDamaged, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import NoReturn, Self

STORE_SCHEMA = 1
SCRATCH = "tmp"
ABOUT = "store.json"
CHUNK = 1 << 20

_KEY = re.compile(r"[\w=-][\w.=-]*(?:/[\w=-][\w.=-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class FolderStore:
    """Records and blobs below ``root``, which is made on the first write with a ``.gitignore`` of ``*``.

    Raises ``FormatTooNew`` when a newer flowkiln made the folder in another format.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(root)
        place = _Place(self.root)
        place.check_format()
        self.records = FolderRecords(place)
        self.blobs = FolderBlobs(place)

    def scratch_files(self) -> list[str]:
        """Paths of half-written files: those of writers at work and what killed ones left behind."""
        folder = os.path.join(self.root, SCRATCH)
        try:
            return sorted(os.path.join(folder, name) for name in os.listdir(folder))
        except FileNotFoundError:
            return []

    def sweep(self, older_than: float = 86_400.0) -> int:
        """Removes scratch files last written more than ``older_than`` seconds ago and returns how many."""
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

    def __init__(self, place: _Place) -> None:
        self._place = place

    def create(self, key: str, data: bytes) -> bool:
        """Stores ``data`` unless the key exists; True when this call made it. Raises ``StoreUnusable``."""
        target = self._place.path(key)
        try:
            scratch = self._place.fill(formats.framed(data))
            try:
                return self._place.publish(scratch, target)
            finally:
                _discard(scratch)
        except OSError as error:
            fail(error, target)

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
            fail(error, target)

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
            fail(error, path)

    def sync(self, keys: Iterable[str]) -> None:
        """Returns once these records, and the folders they lie in, have reached the disk (``fsync``)."""
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

    def __init__(self, place: _Place) -> None:
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
            fail(error, target)
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

    def size(self, sha256: str) -> int:
        """Length in bytes. Raises ``BlobMissing``."""
        try:
            return os.stat(self.path(sha256)).st_size
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

    def __init__(self, place: _Place, path: Callable[[str], str]) -> None:
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
            fail(error, self._scratch)
        self.size += len(view)
        return len(view)

    def __enter__(self) -> Self:
        try:
            self._descriptor, self._scratch = self._place.scratch(0o444)
        except OSError as error:
            fail(error, self._place.root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        if kind is not None:
            _discard(self._scratch)
            return
        self.sha256 = self._hash.hexdigest()
        target = self._path(self.sha256)
        try:
            if _has_size(target, self.size):
                _discard(self._scratch)
            else:
                self._place.replace(self._scratch, target)
        except OSError as trouble:
            fail(trouble, target)


class _Place:
    """The folder itself: scratch files and the two ways in which they get their name."""

    _token = os.urandom(6).hex()
    _counter = itertools.count()

    def __init__(self, root: str) -> None:
        self.root = root
        self._links = True

    def path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            message = f"not a key of the store: {key!r}"
            raise BadKey(message, hint="Names consist of letters, digits and `_ - . =`.")
        return f"{self.root}/{key}"

    def check_format(self) -> None:
        try:
            with open(f"{self.root}/{ABOUT}", "rb") as stream:
                about = stream.read()
        except FileNotFoundError:
            return
        except OSError as error:
            fail(error, self.root)
        if about:
            formats.document_of(about, STORE_SCHEMA, f"the store {self.root}")

    def scratch(self, mode: int) -> tuple[int, str]:
        """An open, new file for writing and its path."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = f"{self.root}/{SCRATCH}/{self._token}-{os.getpid():x}-{next(self._counter):x}"
            try:
                return os.open(path, flags, mode), path
            except FileNotFoundError:
                self._prepare()
            except FileExistsError:  # left by a killed process that had the same id
                continue

    def fill(self, data: bytes | bytearray | memoryview, *, mode: int = 0o644) -> str:
        """The path of a new scratch file that holds ``data``."""
        descriptor, path = self.scratch(mode)
        try:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            _discard(path)
            raise
        finally:
            os.close(descriptor)
        return path

    def replace(self, scratch: str, target: str) -> None:
        """Gives ``scratch`` the name ``target``, replacing what had it."""
        try:
            os.replace(scratch, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(scratch, target)
        except BaseException:
            _discard(scratch)
            raise

    def publish(self, scratch: str, target: str) -> bool:
        """Gives ``scratch`` the name ``target`` unless it is taken; True when this call gave it."""
        made = False
        while True:
            try:
                self._name(scratch, target)
            except FileNotFoundError:
                if made:
                    raise
                os.makedirs(os.path.dirname(target), exist_ok=True)
                made = True
            except FileExistsError:
                if self._links and os.stat(scratch).st_nlink > 1:
                    return True  # a network file system answered a repeated request: the first one was ours
                if not self._emptied(target):
                    return False
            else:
                return True

    def _name(self, scratch: str, target: str) -> None:
        if self._links:
            try:
                os.link(scratch, target)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._links = False
            else:
                return
        from flowkiln.store.renaming import rename_exclusive  # noqa: PLC0415  ctypes, needed on few systems

        rename_exclusive(scratch, target)

    def _emptied(self, target: str) -> bool:
        """Whether ``target`` was without content and has been removed, as a power loss leaves a new file."""
        try:
            if os.stat(target).st_size > 0:
                return False
        except FileNotFoundError:
            return True
        import fcntl  # noqa: PLC0415  only after a power loss

        lock = os.open(f"{self.root}/{SCRATCH}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two who mend must not remove each other's record
            if os.path.exists(target) and os.stat(target).st_size == 0:
                os.unlink(target)
        finally:
            os.close(lock)
        return True

    def _prepare(self) -> None:
        os.makedirs(f"{self.root}/{SCRATCH}", exist_ok=True)
        about = b'{"schema":%d,"kind":"flowkiln store"}\n' % STORE_SCHEMA
        for name, content in ((".gitignore", b"*\n"), (ABOUT, about)):
            target = f"{self.root}/{name}"
            if not os.path.exists(target):
                os.replace(self.fill(content), target)


def fail(error: OSError, path: str) -> NoReturn:
    """Raises ``error`` as ``NoSpace``, ``ReadOnly`` or ``StoreUnusable``, naming ``path``."""
    from flowkiln._base.files import disk_errors  # noqa: PLC0415  kept out of a step's start

    try:
        with disk_errors(path, setting="store"):  # type: ignore[arg-type]
            raise error
    except OSError:
        reason = error.strerror or str(error)
        message = f"the store cannot be used: {path}: {reason}"
        raise StoreUnusable(message, hint="Check the disk, or choose another folder.") from error


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _fsync(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        fail(error, path)
