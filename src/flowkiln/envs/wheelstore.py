"""Verified wheels, unpacked once per machine: ``<cache>/wheels/<aa>/<sha256>/``.

An entry holds ``files/`` (read-only, linked into trees), ``wheel.json`` (its description, with its own digest) and
``stamps.json`` (how the files looked when they were written). It is made in a scratch folder and renamed into
place: an entry that has a name is whole. The store does not know how to fetch; it is given a function.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from flowkiln._base import files
from flowkiln.envs import stamps
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.wheel import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.lock import Locked
    from flowkiln.envs.stamps import Stamp
    from flowkiln.envs.wheel import WheelFile

FILES = "files"
L = TypeVar("L", bound="Locked")


class WheelStore:
    """The wheels of one cache folder. Safe for any number of processes and threads."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "wheels"
        self._locks = cache / "locks" / "wheels"
        self._scratch = cache / "scratch"

    def entry(self, sha256: str) -> Path:
        """The folder of a wheel, present or not."""
        return self.root / sha256[:2] / sha256

    def content(self, sha256: str) -> Path:
        """The folder of a wheel's unpacked files."""
        return self.entry(sha256) / FILES

    def get(self, sha256: str) -> Unpacked | None:
        """The wheel's description, or None when it is not here or its description is damaged. Reads one file."""
        try:
            data = (self.entry(sha256) / "wheel.json").read_bytes()
            told, _, body = data.partition(b"\n")
            if told.decode() != hashlib.sha256(body).hexdigest():
                return None
            wheel = unpacked_of(json.loads(body))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return wheel if wheel.sha256 == sha256 else None

    def stamps(self, sha256: str) -> dict[str, Stamp]:
        """How the wheel's files looked when they were last known to be right, by stored path."""
        return stamps.read(self.entry(sha256) / "stamps.json")

    def add(self, locked: L, fetch: Callable[[L], Path], *, threads: int = 2) -> Unpacked:
        """The wheel, fetched and unpacked unless it is here. One process does it, the others wait.

        ``fetch`` returns the path of the verified artefact, which is removed once it is unpacked. Raises what
        ``fetch`` and ``unpack`` raise, NoSpace and ReadOnly.
        """
        with self._locked(locked.sha256):
            wheel = self.get(locked.sha256)
            if wheel is not None:
                return wheel
            self._remove(locked.sha256)
            artefact = fetch(locked)
            wheel = self._make(artefact, locked, threads)
            artefact.unlink(missing_ok=True)
            return wheel

    def verify(self, wheel: Unpacked) -> list[str]:
        """Stored paths whose content is not what was unpacked, by reading every file; empty when all is well."""
        content = self.content(wheel.sha256)
        found = stamps.survey(content) if content.is_dir() else {}
        stored = {file.stored: file.sha256 for file in wheel.files if not is_link(file)}
        wrong = [path for path, sha256 in stored.items() if not _holds(content / path, sha256)]
        return sorted({*wrong, *(found.keys() - stored.keys())})

    def evict(self, sha256: str) -> None:
        """Removes a wheel; absent is fine. Trees made from it keep their files."""
        with self._locked(sha256):
            self._remove(sha256)

    def touch(self, sha256: str) -> None:
        """Notes that the wheel was used now, for garbage collection."""
        try:
            os.utime(self.entry(sha256))
        except OSError:
            return

    def renew_stamps(self, sha256: str) -> None:
        """Takes how the files look now as right. Only after their content was read and compared."""
        stamps.write(self.entry(sha256) / "stamps.json", stamps.survey(self.content(sha256)))

    def _make(self, artefact: Path, locked: Locked, threads: int) -> Unpacked:
        from flowkiln.envs import condaunpack  # noqa: PLC0415  reading the store stays cheap
        from flowkiln.envs.unpack import unpack  # noqa: PLC0415  likewise

        with files.scratch_folder(self._scratch) as scratch, files.disk_errors(self.root):
            content = scratch / FILES
            content.mkdir()
            if isinstance(locked, LockedConda):
                with _UNPACKING:
                    wheel: Unpacked = condaunpack.unpack(artefact, locked, content)
            else:
                wheel = unpack(artefact, locked, content, threads=threads)
            body = json.dumps(wheel.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
            data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
            (scratch / "wheel.json").write_bytes(data)
            stamps.write(scratch / "stamps.json", stamps.survey(content))
            entry = self.entry(locked.sha256)
            entry.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(entry)
        return wheel

    def _remove(self, sha256: str) -> None:
        """Renames the entry away first: half an entry never has its name."""
        entry = self.entry(sha256)
        if not entry.exists():
            return
        with files.scratch_folder(self._scratch) as scratch, files.disk_errors(entry):
            entry.rename(scratch / "gone")

    @contextmanager
    def _locked(self, sha256: str) -> Iterator[None]:
        # A bounded number of lock files, which are never removed; two wheels that share one just wait a little.
        with _IN_PROCESS[int(sha256[:3], 16) % len(_IN_PROCESS)], files.locked(self._locks / sha256[:3]):
            yield


_IN_PROCESS = tuple(threading.Lock() for _ in range(64))
"""Threads of one process wait here rather than polling the OS lock."""

_UNPACKING = threading.BoundedSemaphore(os.cpu_count() or 1)
"""More conda packages at once would take turns, and 128 MiB each."""


def unpacked_of(document: JSONObject) -> Unpacked:
    """The wheel or conda package that a description is of. Raises ``KeyError`` or ``TypeError``."""
    return CondaPackage.from_json(document) if document.get("manager") == "conda" else Wheel.from_json(document)


def is_link(file: WheelFile | CondaFile) -> bool:
    """Whether it is described alone: links are not stored."""
    return isinstance(file, CondaFile) and bool(file.target)


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False
