"""The folder of lock files beside the file that declares environments: ``train.locks/`` for ``train.py``.

``flowkiln.lock`` is the index (environments, steps, ids, bounds, the bases of images);
``pylock.<env>-<platform>.toml`` the wheels of a platform, ``<env>.conda-lock.yml`` the conda packages of all. A
change of several files is one change: the new files are gathered in a scratch folder, which one rename makes the
pending change; readers look there first, so that they see all of it or nothing. Moving the files into place can be
interrupted at any point and is finished by the next writer.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from flowkiln._base import digests, files, paths
from flowkiln.envs import builtwheels, condalock, lockbases, lockindex, pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import EnvLock, PlatformLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from flowkiln.envs.basepin import BasePin

INDEX = "flowkiln.lock"
_PENDING = ".pending"
_CONDA_LOCK = ".conda-lock.yml"
INCOMPLETE = "sha256:" + 64 * "0"
"""The ``spec_id`` of a lock of which a platform's file is gone: it is stale, whatever is asked for."""


class _Gone(BadLockFile):
    """A platform's file that the index names is not there."""


@dataclass(frozen=True, slots=True)
class LockFolder:
    """The locks of one declaring file. Reading needs no lock; writers hold ``hold()``."""

    path: Path
    _mendable: ClassVar[bool] = True

    @classmethod
    def beside(cls, declaring: Path) -> LockFolder:
        """The folder of ``declaring``: ``<stem>.locks`` beside it."""
        absolute = declaring.absolute()
        return cls(absolute.with_name(f"{absolute.stem}.locks"))

    @classmethod
    def in_cache(cls, identity: str) -> LockFolder:
        """A folder in the cache, for an ad hoc environment or a declaring folder that cannot be written."""
        return cls(paths.cache_root() / "locks" / identity.rpartition(":")[2][:32])

    @property
    def is_cached(self) -> bool:
        """Whether the folder is in the cache and not beside the declaring file."""
        return paths.cache_root() in self.path.parents

    @property
    def writable(self) -> bool:
        """Whether locks can be written here; tried out, since permissions alone do not tell."""
        existing = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        try:
            Path(tempfile.mkdtemp(prefix=".scratch-", dir=existing)).rmdir()
        except OSError:
            return False
        return True

    def or_cache(self) -> LockFolder:
        """This folder, or its stand-in in the cache when it cannot be written."""
        return self if self.writable else LockFolder.in_cache(digests.of_bytes(os.fsencode(self.path)))

    @contextlib.contextmanager
    def hold(self, waiting: Callable[[str, float], None] | None = None) -> Iterator[None]:
        """Keeps other writers of this folder out; ``waiting(holder, seconds)`` is called while waiting."""
        identity = digests.hexdigits(digests.of_bytes(os.fsencode(self.path.resolve())))
        with files.locked(paths.cache_root() / "held" / f"{identity[:32]}.lock", waiting=waiting):
            yield

    def read(self) -> dict[str, EnvLock]:
        """Every environment that is locked here, by name; empty when there is none.

        A lock that lost the file of a platform has the others, and ``INCOMPLETE`` as its ``spec_id``.
        Raises ``BadLockFile`` naming file and line, ``FormatTooNew`` for an index of a newer flowkiln.
        """
        alike, before, partly = 0, None, False
        while True:
            texts: dict[str, str | None] = {}
            try:
                return self._read(texts, partly=partly)
            except BadLockFile as error:
                # A writer may have been at work between two of the files: what is wrong stays as it is.
                alike = alike + 1 if texts == before else 0
                if alike == 2:
                    if partly or not (self._mendable and isinstance(error, _Gone)):
                        raise
                    alike, partly = 0, True
                before = texts
                time.sleep(0.01)

    def _read(self, texts: dict[str, str | None], *, partly: bool = False) -> dict[str, EnvLock]:
        """The locks at one look, ``partly`` those with fewer platforms too; ``texts`` gets what was read."""
        index = texts[INDEX] = self._text(INDEX)
        if index is None:
            return {}
        entries = lockindex.parse(index, self.path / INDEX).entries
        return {entry.name: self._lock(entry, texts, partly=partly) for entry in entries}

    def read_bases(self) -> tuple[BasePin, ...]:
        """Every base that is pinned here, by reference and platform. Raises as ``read`` does."""
        index = self._text(INDEX)
        return () if index is None else lockindex.parse(index, self.path / INDEX).bases

    def write(self, locks: Mapping[str, EnvLock], bases: Iterable[BasePin] | None = None) -> list[Path]:
        """Makes ``locks`` the content of the folder; the paths of the files that changed.

        ``bases`` are the pins that it has then, None for those that stand there. Files that no lock needs any more
        are removed, the folder with its last lock and pin; equal files are not touched.
        Call inside ``hold()``. Raises ``ReadOnly``, ``NoSpace``, and as ``read_bases`` does.
        """
        self._finish()
        pins = self.read_bases() if bases is None else tuple(bases)
        if not locks and not pins:
            return self._clear()
        wanted = texts_of(locks.values(), pins)
        changed = self._put(wanted)
        self._remove_others(set(wanted))
        return changed

    def write_bases(self, bases: Iterable[BasePin]) -> list[Path]:
        """Makes ``bases`` the pins of the folder and touches nothing else; the paths of the files that changed.

        Call inside ``hold()``. Raises ``ReadOnly``, ``NoSpace``, ``BadLockFile`` and ``FormatTooNew``.
        """
        self._finish()
        pins = tuple(bases)
        text = self._text(INDEX)
        if text is None:
            return self._put({INDEX: lockindex.serialise((), pins)}) if pins else []
        before = lockindex.parse(text, self.path / INDEX)
        if not before.entries and not pins:
            return self._clear()
        after = lockbases.replaced(text, pins)
        if lockindex.parse(after, self.path / INDEX).entries != before.entries:
            what = "its tables are not as flowkiln writes them"
            raise pylock.bad_file(self.path / INDEX, text, "bases", what)
        return self._put({INDEX: after})

    def _put(self, wanted: Mapping[str, str]) -> list[Path]:
        """Makes ``wanted`` the texts of those files, all at once; the paths of those that changed."""
        changed = {name: text for name, text in wanted.items() if self._text(name) != text}
        if changed:
            with files.disk_errors(self.path), files.scratch_folder(self.path) as scratch:
                for name, text in changed.items():
                    (scratch / name).write_text(text, encoding="utf-8")
                    (scratch / name).chmod(0o644)
                scratch.rename(self.path / _PENDING)
            self._finish()
        return [self.path / name for name in sorted(changed)]

    def _clear(self) -> list[Path]:
        """Removes every lock and pin, the index first, and the folder unless somebody else's files are in it."""
        index = self.path / INDEX
        if not index.exists():
            return []
        with files.disk_errors(self.path):
            index.unlink()
            self._remove_others(set())
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return [index]

    def _finish(self) -> None:
        """Moves the files of a pending change into place, the index last."""
        pending = self.path / _PENDING
        if not pending.is_dir():
            return
        with files.disk_errors(self.path):
            for name in sorted((path.name for path in pending.iterdir()), key=lambda one: (one == INDEX, one)):
                (pending / name).replace(self.path / name)
            pending.rmdir()

    def _remove_others(self, wanted: set[str]) -> None:
        for pattern, is_ours in (("pylock.*.toml", pylock.is_ours), (f"*{_CONDA_LOCK}", condalock.is_ours)):
            for path in self.path.glob(pattern):
                if path.name not in wanted and is_ours(path.read_text(errors="replace")):
                    path.unlink(missing_ok=True)
        for path in self.path.glob(".scratch-*"):
            files.remove_tree(path)

    def _text(self, name: str) -> str | None:
        """A file's text, a pending one first; None when there is none. Retries where a writer moves it."""
        for path in (self.path / _PENDING / name, self.path / name, self.path / _PENDING / name, self.path / name):
            try:
                return path.read_text(encoding="utf-8")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except UnicodeDecodeError as error:
                raise BadLockFile(f"{path} is not UTF-8 text: {error}", hint=pylock.AGAIN) from error
            except OSError as error:  # a folder of that name, links in a circle, no permission
                message = f"{path} cannot be read: {error.strerror}"
                raise BadLockFile(message, hint="Put the file back from version control.") from error
        return None

    def _lock(self, entry: lockindex.Entry, texts: dict[str, str | None], *, partly: bool) -> EnvLock:
        places = [one for one in entry.platforms if not partly or self._has(entry, one)]
        conda = self._conda(entry, texts) if any(place.conda for place in places) else None
        parts = tuple(self._part(entry, place, conda, texts) for place in places)
        whole = len(parts) == len(entry.platforms)
        lock = EnvLock(
            name=entry.name,
            spec_id=entry.spec_id if whole else INCOMPLETE,
            python=entry.python,
            platforms=parts,
            absent=entry.absent,
            steps=entry.steps,
            channels=conda.channels if conda is not None else (),
        )
        if whole and lock.lock_id != entry.lock_id:
            index = texts[INDEX] or ""
            raise pylock.bad_file(self.path / INDEX, index, entry.lock_id, "lock_id does not fit the platforms")
        return lock

    def _has(self, entry: lockindex.Entry, place: lockindex.PlatformEntry) -> bool:
        """Whether every file of a platform is there."""
        names = [_name_of(entry, place)] * place.pylock + [conda_name(entry.name)] * place.conda
        return all(self._text(name) is not None for name in names)

    def _needed(self, name: str, entry: lockindex.Entry, near: str, texts: dict[str, str | None]) -> str:
        """The text of a file that the index names, at the line with ``near``."""
        text = texts[name] = self._text(name)
        if text is None:
            where = f"{name} is missing, which environment {entry.name!r} needs"
            raise _Gone(pylock.bad_file(self.path / INDEX, texts[INDEX] or "", near, where).message)
        return text

    def _conda(self, entry: lockindex.Entry, texts: dict[str, str | None]) -> condalock.CondaLock:
        near = next(place.env_id for place in entry.platforms if place.conda)
        name = conda_name(entry.name)
        return condalock.parse(self._needed(name, entry, near, texts), self.path / name)

    def _part(
        self,
        entry: lockindex.Entry,
        place: lockindex.PlatformEntry,
        conda: condalock.CondaLock | None,
        texts: dict[str, str | None],
    ) -> PlatformLock:
        name = _name_of(entry, place) if place.pylock else conda_name(entry.name)
        text = self._needed(name, entry, place.env_id, texts)
        python, wheels = pylock.read_ours(text, self.path / name) if place.pylock else (entry.python, ())
        part = PlatformLock(
            platform=place.platform,
            python=python,
            wheels=tuple(builtwheels.based(wheel, self.path.parent) for wheel in wheels),
            glibc=place.glibc,
            python_minimum=place.python_minimum,
            python_below=place.python_below,
            winners=place.winners,
            conda=conda.platforms.get(place.platform, ()) if place.conda and conda is not None else (),
            virtual=place.virtual,
            link_scripts=place.linked.scripts if place.linked is not None else (),
            linked=place.linked,
        )
        if part.env_id != place.env_id or python != entry.python:
            if place.conda and place.pylock:
                name = f"{name} or {conda_name(entry.name)}"
            what = f"the content is not what {INDEX} records; it was edited by hand, or one of the two is older"
            raise pylock.bad_file(self.path / name, text, "[[packages]]" if place.pylock else "package:", what)
        return part


@dataclass(frozen=True, slots=True)
class CarriedLocks(LockFolder):
    """Locks as they stood in a folder that may be gone or have moved on since: what the record of a run keeps."""

    texts: Mapping[str, str]
    _mendable: ClassVar[bool] = False

    def _text(self, name: str) -> str | None:
        return self.texts.get(name)


def texts_of(locks: Iterable[EnvLock], bases: Iterable[BasePin] = ()) -> dict[str, str]:
    """The files of a folder that holds ``locks`` and ``bases``: names and texts, a function of those alone."""
    listed = list(locks)
    texts = {
        file_name(lock.name, part.platform.slug): pylock.serialise(part.python, part.wheels)
        for lock in listed
        for part in lock.platforms
        if lockindex.has_pylock(part)
    }
    conda = {
        conda_name(lock.name): condalock.serialise(lock)
        for lock in listed
        if any(part.conda for part in lock.platforms)
    }
    return {**texts, **conda, INDEX: lockindex.serialise(listed, bases)}


def _name_of(entry: lockindex.Entry, place: lockindex.PlatformEntry) -> str:
    return file_name(entry.name, place.platform.slug)


def file_name(environment: str, slug: str) -> str:
    """The name of a platform's file. PEP 751 allows no dot in its middle part."""
    return f"pylock.{environment.replace('.', '_')}-{slug}.toml"


def conda_name(environment: str) -> str:
    """The name of the file of an environment's conda packages."""
    return environment + _CONDA_LOCK
