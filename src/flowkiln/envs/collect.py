"""Garbage collection of all that the cache holds and can be made again: a plan as a value, then its doing.

What is in use is kept: a tree by its lease or a user's link, a wheel by a tree that is kept, anything by having
been used just now. Lock files stay, empty as they are: without them two could hold the same lock. Locks that lie
in the cache because their folder cannot be written stay too: they cannot be made again as they are.
Trees go before the wheels that they were made of, and everything is renamed away before it is removed, so that an
interrupted collection leaves whole entries only. uv's cache is never looked at. What lies elsewhere, such as images
in a container engine, comes from a ``Source``, so that one plan covers everything.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from flowkiln._base import files
from flowkiln._base.report import Silent
from flowkiln.envs import roots, treefile
from flowkiln.envs.installerrors import EnvironmentMismatch
from flowkiln.envs.running import bytecode_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.report import Reporter

Kind = Literal[
    "container",
    "work",
    "image",
    "tree",
    "wheel",
    "layer",
    "record",
    "partial",
    "bytecode",
    "code",
    "runtime",
    "index",
    "log",
    "memory",
    "built",
    "source",
    "scratch",
]
ORDER: tuple[Kind, ...] = get_args(Kind)
"""In which they go: containers before their images, trees before what they were made of."""
DAY = 86400.0
GRACE = 600.0
"""Seconds for which whatever was used is kept, whatever else is asked: a run may be about to take its lease."""
_SCRATCH_AGE = 3600.0
_AGEING: dict[str, Kind] = {
    "code": "code",
    "runtime": "runtime",
    "index": "index",
    "logs": "log",
    "bounds": "memory",
    "passed": "memory",
    "built": "built",
    "git": "source",
    "sources/archives": "source",
    "sources/folders": "memory",
}
"""Folders whose entries go when nobody used them for long: each is made again when it is needed."""
_WHOLE: tuple[Kind, ...] = ("image", "tree")
_FADING: tuple[Kind, ...] = ("work", "record", *dict.fromkeys(_AGEING.values()))
_SCRATCH = re.compile(r"\.scratch-(\d+)-[0-9a-f]+")


class Item(NamedTuple):
    """One entry of the cache: ``used`` is the time of its last use (seconds since 1970), ``size`` in bytes.

    ``size`` counts what removing it together with the rest of the plan sets free on disk. ``path`` is the name of
    what is no file.
    """

    kind: Kind
    path: Path
    used: float
    size: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to keep. ``keep``: so many trees, the last used; ``max_size``: bytes on disk; ``unused``: seconds.

    Without ``keep``, trees are kept for ``unused`` seconds after their last use.
    """

    keep: int | None = None
    max_size: int | None = None
    unused: float = 30 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a collection would remove, in that order. ``size`` is the bytes on disk now, ``freed`` the gain."""

    items: tuple[Item, ...]
    size: int
    freed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection did: ``removed``, and ``in_use`` which it left because somebody held it."""

    removed: tuple[Item, ...]
    in_use: tuple[Item, ...]


class Entry:
    """One entry with what it takes on disk: ``blocks`` maps an identity, the inode of a file, to bytes.

    What two entries share counts once. ``held`` says that it is in use, and by what. An entry that is of no use
    any more goes when it was left for ``left`` seconds.
    """

    def __init__(
        self,
        kind: Kind,
        path: Path,
        used: float,
        blocks: Mapping[int | str, int] | None = None,
        *,
        wheels: frozenset[str] = frozenset(),
        held: str = "",
        left: float | None = None,
    ) -> None:
        self.kind = kind
        self.path = path
        self.used = used
        self.wheels = wheels
        self.held = held
        self.left = left
        self.blocks: Mapping[int | str, int] = dict(_blocks(path)) if blocks is None else blocks


class Source(Protocol):
    """Entries that are not files of the cache."""

    def entries(self) -> Iterable[Entry]:
        """What is there now."""

    def remove(self, item: Item) -> bool | None:
        """Whether ``item`` is gone; False while it is in use, None for one of somebody else."""


class Collector:
    """Collects garbage in one cache folder, and in ``sources``."""

    def __init__(self, cache: Path, sources: Sequence[Source] = ()) -> None:
        self._sources = sources
        self._cache = Path(os.path.abspath(cache))  # noqa: PTH100  as in Trees

    def entries(self) -> list[Item]:
        """Everything in the cache that collection knows of, for showing; a shared file counts where first met."""
        seen: set[int | str] = set()
        shown = []
        for entry in self._entries():
            size = sum(size for inode, size in entry.blocks.items() if inode not in seen)
            seen.update(entry.blocks)
            shown.append(Item(entry.kind, entry.path, entry.used, size, entry.held))
        return shown

    def plan(self, policy: Policy, *, now: float | None = None) -> Plan:
        """What ``policy`` would remove at ``now``. Changes nothing."""
        return _Planning(self._entries(), policy, time.time() if now is None else now).plan()

    def collect(self, plan: Plan, reporter: Reporter | None = None) -> Collected:
        """Removes what ``plan`` names unless it is in use. Waits for installations that are going on."""
        told = reporter or Silent()
        removed: list[Item] = []
        in_use: list[Item] = []

        def waiting(holder: str, seconds: float) -> None:
            told.say(f"waiting for {holder}, which installs an environment ({seconds:.0f} s)")

        with files.locked(self._cache / "locks" / "cache", waiting=waiting):
            for item in plan.items:
                (removed if self._remove(item) else in_use).append(item)
            roots.forget_gone(self._cache)
        return Collected(removed=tuple(removed), in_use=tuple(in_use))

    def _remove(self, item: Item) -> bool:
        for source in self._sources:
            done = source.remove(item)
            if done is not None:
                return done
        if item.kind != "tree":
            self._discard(item.path)
            if item.kind in ("code", "runtime"):
                self._discard(self._bytecode_of(item.path))
            return True
        lease = files.try_lock(self._cache / "locks" / "leases" / item.path.name)
        if lease is None:
            return False
        try:
            self._discard(item.path)
            self._discard(self._bytecode_of(item.path))
        finally:
            os.close(lease)
        return True

    def _discard(self, path: Path) -> None:
        """Away from its name at once, then gone."""
        gone_already = contextlib.suppress(FileNotFoundError)
        with files.scratch_folder(self._cache / "scratch") as scratch, files.disk_errors(path), gone_already:
            path.rename(scratch / "gone")

    def _entries(self) -> list[Entry]:
        known = (
            self._trees,
            self._wheels,
            self._partial,
            self._scratch,
            self._bytecode,
            self._ageing,
            self._images,
        )
        places = (*known, *(source.entries for source in self._sources))
        return [entry for entries in places for entry in entries()]

    def _trees(self) -> Iterator[Entry]:
        links = roots.linked(self._cache)
        for root in _children(self._cache / "trees"):
            try:
                description = treefile.read(root)
            except EnvironmentMismatch:
                description = None
            wheels = frozenset(description.wheels) if description else frozenset()
            used = _used(root / treefile.FOLDER, root)
            held = f"linked from {links[root]}" if root in links else ""
            yield Entry("tree", root, used, wheels=wheels, held=held)

    def _wheels(self) -> Iterator[Entry]:
        for group in _children(self._cache / "wheels"):
            for entry in _children(group):
                yield Entry("wheel", entry, _used(entry))

    def _partial(self) -> Iterator[Entry]:
        for path in _children(self._cache / "partial"):
            yield Entry("partial", path, _used(path))

    def _scratch(self) -> Iterator[Entry]:
        for folder in ("scratch", "code", "runtime", "docker"):
            for path in _children(self._cache / folder):
                match = _SCRATCH.fullmatch(path.name)
                if match and not _alive(int(match[1])):
                    yield Entry("scratch", path, _used(path))

    def _bytecode(self) -> Iterator[Entry]:
        """Bytecode of what is gone; that of a tree or of a flow's code goes with it."""
        for folder in (self._cache / name for name in ("trees", "code", "runtime")):
            for path in _children(self._bytecode_of(folder)):
                if not (folder / path.name).exists():
                    yield Entry("bytecode", path, _used(path))

    def _ageing(self) -> Iterator[Entry]:
        for folder, kind in _AGEING.items():
            paths = [path for path in _children(self._cache / folder) if not path.name.startswith(".")]
            for path in paths:
                # SQLite keeps what was written last in a file beside the database: they age as one.
                whole = path.name.partition(".sqlite")[0]
                together = [one for one in paths if one.name.startswith(whole)] if kind == "index" else [path]
                yield Entry(kind, path, max(map(_used, together)))

    def _images(self) -> Iterator[Entry]:
        """Layers that were made for pushes, and what is known of layers, bases and pushed images."""
        for path in _files(self._cache / "images"):
            name = path.relative_to(self._cache / "images")
            match = _SCRATCH.fullmatch(path.name)
            if match and not _alive(int(match[1])):
                yield Entry("scratch", path, _used(path))
            elif not path.name.startswith(".") and path.suffix != ".lock":
                yield Entry("layer" if name.parts[0] == "blobs" else "record", path, _used(path))

    def _bytecode_of(self, path: Path) -> Path:
        """Where Python puts the bytecode of ``path``: the whole path again, below the prefix for bytecode."""
        return bytecode_folder(self._cache) / path.relative_to("/")


class _Planning:
    """Chooses entries until the policy holds, least recently used first."""

    def __init__(self, entries: list[Entry], policy: Policy, now: float) -> None:
        self._policy = policy
        self._now = now
        self._entries = entries
        self._links = Counter(inode for entry in entries for inode in entry.blocks)
        self._sizes = {inode: size for entry in entries for inode, size in entry.blocks.items()}
        self._size = sum(self._sizes.values())
        self._freed = 0
        self._items: list[Item] = []
        self._gone: set[Path] = set()

    def plan(self) -> Plan:
        for entry in self._entries:
            if entry.left is not None and self._old(entry, entry.left):
                self._take(entry, f"left for {self._days(entry)}")
        for kind in _WHOLE:
            self._take_old(kind)
        self._take_wheels()
        for kind in _FADING:
            for entry in self._of(kind):
                if kind == "record" and self._policy.keep == 0:
                    self._take(entry, "nothing is to be kept")
                elif self._old(entry, self._policy.unused):
                    self._take(entry, f"unused for {self._days(entry)}")
        for entry in (*self._of("partial"), *self._of("bytecode"), *self._of("layer")):
            if self._old(entry, 7 * DAY):
                self._take(entry, f"left for {self._days(entry)}")
        for entry in self._of("scratch"):
            if self._old(entry, _SCRATCH_AGE):
                self._take(entry, "left by a process that ended")
        self._shrink()
        items = sorted(self._items, key=lambda item: ORDER.index(item.kind))
        return Plan(items=tuple(items), size=self._size, freed=self._freed)

    def _take_old(self, kind: Kind) -> None:
        """Environments of one kind: all but the last used with ``keep``, else those unused for long."""
        keep = self._policy.keep
        for place, entry in enumerate(sorted(self._of(kind), key=lambda entry: -entry.used)):
            if keep is not None and place >= keep:
                self._take(entry, f"not among the {keep} last used")
            elif keep is None and self._old(entry, self._policy.unused):
                self._take(entry, f"unused for {self._days(entry)}")

    def _take_wheels(self) -> None:
        """Wheels that no kept tree is made of: all with ``keep``, else those unused for long."""
        needed = {sha256 for tree in self._of("tree") for sha256 in tree.wheels}
        for wheel in self._of("wheel"):
            if wheel.path.name in needed:
                continue
            if self._policy.keep is not None:
                self._take(wheel, "no kept environment uses it")
            elif self._old(wheel, self._policy.unused):
                self._take(wheel, f"unused for {self._days(wheel)}")

    def _shrink(self) -> None:
        """Until it fits: what nothing needs, then images and trees, with the wheels that only these need."""
        limit = self._policy.max_size
        if limit is None:
            return
        reason = "the cache is larger than asked for"
        loose = (*self._of("partial"), *self._of("layer"), *self._loose_wheels())
        whole = [entry for kind in _WHOLE for entry in self._of(kind)]
        order = [sorted(entries, key=lambda entry: entry.used) for entries in (loose, whole)]
        for entry in (one for entries in order for one in entries):
            if self._size - self._freed <= limit:
                return
            self._take(entry, reason)
            for wheel in self._loose_wheels() if entry.kind == "tree" else ():
                self._take(wheel, reason)

    def _loose_wheels(self) -> list[Entry]:
        needed = {sha256 for tree in self._of("tree") for sha256 in tree.wheels}
        return [wheel for wheel in self._of("wheel") if wheel.path.name not in needed]

    def _of(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self._entries if entry.kind == kind and entry.path not in self._gone]

    def _take(self, entry: Entry, reason: str) -> None:
        if entry.path in self._gone or entry.held or self._now - entry.used < GRACE:
            return
        self._gone.add(entry.path)
        freed = 0
        for inode in entry.blocks:
            self._links[inode] -= 1
            if not self._links[inode]:
                freed += self._sizes[inode]
        self._freed += freed
        self._items.append(Item(entry.kind, entry.path, entry.used, freed, reason))

    def _old(self, entry: Entry, seconds: float) -> bool:
        return self._now - entry.used >= seconds

    def _days(self, entry: Entry) -> str:
        days = int((self._now - entry.used) / DAY)
        return f"{days} day{'' if days == 1 else 's'}"


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``."""
    for path in _children(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _used(*paths: Path) -> float:
    """The time of last use: that of the first path that exists."""
    for path in paths:
        try:
            return path.lstat().st_mtime
        except OSError:
            continue
    return 0.0


def _blocks(path: Path) -> Iterator[tuple[int | str, int]]:
    """Inode and bytes on disk of every file below ``path``, or of the file that it is."""
    pending = [str(path)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        seen = entry.stat(follow_symlinks=False)
                        yield seen.st_ino, seen.st_blocks * 512
        except NotADirectoryError:
            seen = path.lstat()
            yield seen.st_ino, seen.st_blocks * 512
        except FileNotFoundError:
            continue


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
