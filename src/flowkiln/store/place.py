"""The folder a store lives in: scratch files, and the ways in which they get their name.

A scratch file is hard-linked to its name, so that it appears whole and only one of many creators makes it. Where
hard links fail, an exclusive rename takes their place.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
from typing import TYPE_CHECKING

from flowkiln.store import formats
from flowkiln.store.errors import BadKey, RecordDamaged, StoreUnusable

if TYPE_CHECKING:
    from typing import NoReturn

STORE_SCHEMA = 1
SCRATCH = "tmp"
ABOUT = "store.json"

_KEY = re.compile(r"[\w=-][\w.=-]*(?:/[\w=-][\w.=-]*)*")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


class Place:
    """The folder ``root``, made on the first write. Methods raise ``OSError``; ``fail`` translates it."""

    _token = os.urandom(6).hex()
    _counter = itertools.count()

    def __init__(self, root: str) -> None:
        self.root = root
        self._links = True

    def path(self, key: str) -> str:
        """Where the record ``key`` lies. Raises ``BadKey``: a key never leads out of the store."""
        if _KEY.fullmatch(key) is None:
            message = f"not a key of the store: {key!r}"
            raise BadKey(message, hint="Names consist of letters, digits and `_ - . =`.")
        return f"{self.root}/{key}"

    def check_format(self) -> None:
        """Raises ``FormatTooNew`` when a newer flowkiln made the folder, ``RecordDamaged`` when none can tell."""
        try:
            with open(f"{self.root}/{ABOUT}", "rb") as stream:
                about = stream.read()
        except FileNotFoundError:
            return
        except OSError as error:
            fail(error, self.root)
        if not about:
            return
        try:
            formats.document_of(about, STORE_SCHEMA, f"the store {self.root}")
        except (ValueError, RecursionError) as error:
            message = f"{self.root}/{ABOUT} is not what flowkiln wrote: {error}"
            hint = f'Restore it; what this flowkiln wrote is {{"schema":{STORE_SCHEMA},"kind":"flowkiln store"}}.'
            raise RecordDamaged(message, hint=hint) from error

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
            discard(path)
            raise
        finally:
            os.close(descriptor)
        return path

    def replace(self, scratch: str, target: str) -> None:
        """Gives ``scratch`` the name ``target``, replacing what had it."""
        try:
            os.replace(scratch, target)
        except FileNotFoundError:
            _make_folder(os.path.dirname(target))
            os.replace(scratch, target)
        except BaseException:
            discard(scratch)
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
                _make_folder(os.path.dirname(target))
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


def fail_to_write(error: OSError, path: str) -> NoReturn:
    """Raises ``error`` as ``NoSpace``, ``ReadOnly`` or ``StoreUnusable``, naming ``path``."""
    from pathlib import Path  # noqa: PLC0415  kept out of a step's start

    from flowkiln._base.files import disk_errors  # noqa: PLC0415

    try:
        with disk_errors(Path(path), setting="store"):
            raise error
    except OSError:
        fail(error, path)


def fail(error: OSError, path: str) -> NoReturn:
    """Raises ``error`` as ``StoreUnusable``, naming ``path``."""
    message = f"the store cannot be used: {path}: {error.strerror or error}"
    raise StoreUnusable(message, hint="Check the disk and its permissions, or choose another folder.") from error


def _make_folder(path: str) -> None:
    """``os.makedirs`` without asking first: most often one call."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(os.path.dirname(path))
        _make_folder(path)


def discard(path: str) -> None:
    """Removes a file. Absent is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
