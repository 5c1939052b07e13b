"""Verifying a store: records against checksums, blobs against names, references against blobs, and completeness."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowkiln._base.report import Silent
from flowkiln.store import complete, formats, packs, references
from flowkiln.store.errors import BlobDamaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.report import Phase, Reporter
    from flowkiln.store.folder import FolderStore

SETTLED_SECONDS = 86_400.0
"""Files younger than this may belong to a writer at work: they are not called left over or unreferenced."""

_PIECE = 1 << 20
_MENTION = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_RECORDS = ("flows", "r")
_OWN = {".gitignore", "store.json", "tmp", "blobs", *_RECORDS}

Kind = Literal[
    "damaged-record",
    "damaged-blob",
    "missing-blob",
    "journal-gap",
    "lost-record",
    "missing-record",
    "unreferenced",
    "left-over",
    "foreign",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``where`` is a path below the store; ``harmless`` ones lose nothing and need no action."""

    kind: Kind
    where: str
    text: str
    harmless: bool = False


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was checked and found."""

    problems: list[Problem] = field(default_factory=list)
    records: int = 0
    blobs: int = 0
    size: int = 0
    unreferenced: list[str] = field(default_factory=list)
    """Blobs, by sha256, that nothing refers to."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged or missing."""
        return all(problem.harmless for problem in self.problems)


@dataclass(slots=True)
class _References:
    """``needed`` maps a sha256 to its expected size and to who needs it; ``mentioned`` is any text like one."""

    needed: dict[str, tuple[int, str]] = field(default_factory=dict)
    mentioned: set[str] = field(default_factory=set)

    def add(self, data: bytes | memoryview, where: str) -> None:
        self.mentioned.update(match.decode() for match in _MENTION.findall(data))
        try:
            document = json.loads(bytes(data))
        except ValueError:
            return
        for sha256, size in references.blobs_in(document):
            self.needed.setdefault(sha256, (size, where))


def check(store: FolderStore, reporter: Reporter | None = None) -> Checked:
    """What is wrong with ``store``. Reads everything in it once; changes nothing; the store may be in use."""
    checked = Checked()
    found = _References()
    with (reporter or Silent()).phase("check", unit="bytes") as phase:
        _check_records(store, checked, found, phase)
        present = _check_blobs(store, checked, found, phase)
    for sha256, (size, where) in sorted(found.needed.items()):
        if sha256 not in present:
            checked.problems.append(Problem("missing-blob", where, f"refers to blob {sha256}, which is not there"))
        elif present[sha256][0] != size:
            text = f"refers to blob {sha256} of {size} bytes, which has {present[sha256][0]}"
            checked.problems.append(Problem("damaged-blob", where, text))
    for where, text in complete.missing(store):
        checked.problems.append(Problem("missing-record", where, text))
    _add_garbage(store, checked, found, present)
    return checked


def _check_records(store: FolderStore, checked: Checked, found: _References, phase: Phase) -> None:
    for top in _RECORDS:
        for path in _files(Path(store.root, top)):
            where = path.relative_to(store.root).as_posix()
            stored = path.read_bytes()
            checked.records += 1
            checked.size += len(stored)
            phase.advance(len(stored), item=where)
            data = formats.unframed(stored)
            if not stored:
                text = "is empty: a power loss took it before it was complete"
                checked.problems.append(Problem("lost-record", where, text, harmless=True))
            elif data is None:
                checked.problems.append(Problem("damaged-record", where, "does not match its checksum"))
            else:
                found.add(data, where)
    for folder in sorted(Path(store.root, "r").glob("*/journal")):
        numbers = sorted(int(name) for name in os.listdir(folder) if name.isdecimal())  # noqa: PTH208
        if numbers and numbers != list(range(len(numbers))):
            gap = next(position for position, number in enumerate(numbers) if position != number)
            where = folder.relative_to(store.root).as_posix()
            checked.problems.append(Problem("journal-gap", where, f"entry {gap} is missing"))


def _check_blobs(
    store: FolderStore, checked: Checked, found: _References, phase: Phase
) -> dict[str, tuple[int, float]]:
    """Size and time of every sound blob."""
    present: dict[str, tuple[int, float]] = {}
    for path in _files(Path(store.root, "blobs")):
        where = path.relative_to(store.root).as_posix()
        if not references.is_sha256(path.name) or path.parent.name != path.name[:2]:
            checked.problems.append(Problem("foreign", where, "is not a file of the store", harmless=True))
            continue
        checked.blobs += 1
        status = path.stat()
        checked.size += status.st_size
        if _hash(path, where, phase) != path.name:
            checked.problems.append(Problem("damaged-blob", where, "does not match its sha256"))
        else:
            _look_inside(path, where, found)
        present[path.name] = (status.st_size, status.st_mtime)
    return present


def _hash(path: Path, where: str, phase: Phase) -> str:
    digest = hashlib.sha256()
    piece = bytearray(_PIECE)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            digest.update(memoryview(piece)[:count])
            phase.advance(count, item=where)
    return digest.hexdigest()


def _look_inside(path: Path, where: str, found: _References) -> None:
    """Blobs that refer to others are packs of documents and documents."""
    with path.open("rb") as stream:
        head = stream.read(8)
        if head[:1] in (b"{", b"["):
            found.add(head + stream.read(), where)
        elif packs.is_pack(head):
            whole = memoryview(head + stream.read())
            try:
                offsets = packs.verify(whole)
            except BlobDamaged:
                return  # its bytes are what was stored: another file that begins like a pack
            for begin, end in pairwise(offsets):
                if bytes(whole[begin : begin + 1]) == b"{":
                    found.add(whole[begin:end], where)


def _add_garbage(
    store: FolderStore, checked: Checked, found: _References, present: dict[str, tuple[int, float]]
) -> None:
    settled = time.time() - SETTLED_SECONDS
    for sha256, (size, modified) in sorted(present.items()):
        if sha256 not in found.mentioned and sha256 not in found.needed and modified < settled:
            checked.unreferenced.append(sha256)
            where = f"blobs/{sha256[:2]}/{sha256}"
            checked.problems.append(
                Problem("unreferenced", where, f"{size} bytes that nothing uses", harmless=True)
            )
    for scratch in store.scratch_files():
        path = Path(scratch)
        if path.exists() and path.stat().st_mtime < settled:
            text = "was left by a writer that was killed"
            checked.problems.append(Problem("left-over", f"tmp/{path.name}", text, harmless=True))
    for name in sorted(os.listdir(store.root) if Path(store.root).exists() else ()):  # noqa: PTH208
        if name not in _OWN:
            checked.problems.append(Problem("foreign", name, "is not part of the store", harmless=True))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)
