"""Builds one tree in a scratch folder from wheels of the store."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from flowkiln._base import relocate
from flowkiln.envs import glue, installer, stamps, treefile
from flowkiln.envs.installerrors import PrefixTooLong
from flowkiln.envs.placing import Placer
from flowkiln.envs.spread import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from flowkiln._base.relocate import Rewritten
    from flowkiln.envs.condapackage import Relocation
    from flowkiln.envs.installer import Entry, Launcher, Unpacked
    from flowkiln.envs.interpreter import Interpreter
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.stamps import Stamp
    from flowkiln.envs.treefile import Description
    from flowkiln.envs.wheelstore import WheelStore

_BATCH = 128


class DamagedWheel(Exception):
    """A stored file is gone or is not what was unpacked: the wheel has to be made anew. Never leaves ``envs``."""


def build(
    scratch: Path,
    root: Path,
    part: PlatformLock,
    interpreter: Interpreter,
    unpacked: Iterable[Unpacked],
    store: WheelStore,
) -> Description:
    """Writes the tree of ``part`` to ``scratch`` as it is to stand at ``root``, and returns its description.

    Raises PathOwnedTwice, PrefixTooLong, LinkScripts, DamagedWheel and ``OSError``.
    """
    packages = [installer.package(one, part.python) for one in unpacked]
    tree = installer.combine(
        packages, dict(part.chosen), case_matters=part.platform.os != "darwin", link_scripts=part.link_scripts
    )
    for folder in _folders(tree, part.python):
        os.mkdir(f"{scratch}/{folder}")  # noqa: PTH102  hundreds
    placing = _Placing(scratch, root, store)
    placed = placing.place(tree.owners)
    glued = _glue(scratch, root, interpreter, tree.launchers, store)
    placed.update((one.path, stamps.of(f"{scratch}/{one.path}")) for one in glued)
    document = tree.document
    description = treefile.Description(
        env_id=part.env_id,
        tree_digest="sha256:" + hashlib.sha256(document).hexdigest(),
        platform=str(part.platform),
        version=interpreter.version,
        interpreter=interpreter.path,
        prefix=str(root),
        wheels=tuple(sorted(one.sha256 for one in part.packages)),
        glue=treefile.glue_rows(glued),
        rewritten=placing.rewritten,
    )
    inside = scratch / treefile.FOLDER
    inside.mkdir()
    (inside / "files.json").write_bytes(document)
    stamps.write(inside / "stamps.json", placed)
    (inside / "tree.json").write_bytes(description.to_bytes())
    return description


def _folders(tree: installer.Tree, python: str) -> list[str]:
    """Every folder of the prefix, parents first."""
    found = {entry.path.rpartition("/")[0] for entry, _ in tree.owners} - {""}
    found |= {"bin", f"lib/python{python}/site-packages"}
    return sorted(found | {folder[:at] for folder in found for at in range(len(folder)) if folder[at] == "/"})


class _Placing:
    """Puts stored files into a scratch tree, each held against what the store wrote.

    A step that runs as root can write through a hard link into the store: without this check its damage would
    spread to new trees and pass for right there.
    """

    def __init__(self, scratch: Path, root: Path, store: WheelStore) -> None:
        self.rewritten: dict[str, Rewritten] = {}
        self._base = str(scratch)
        self._prefix = str(root)
        self._store = store
        self._placer = Placer()
        self._known: dict[str, dict[str, Stamp]] = {}
        self._contents: dict[str, str] = {}
        self._renewed: set[str] = set()

    def place(self, owners: Sequence[tuple[Entry, str]]) -> dict[str, Stamp]:
        """Places all files and returns the stamps of what was placed. Raises DamagedWheel."""
        for sha256 in {sha256 for _, sha256 in owners}:
            self._known[sha256] = self._store.stamps(sha256)
            self._contents[sha256] = str(self._store.content(sha256))
        batches = [owners[start : start + _BATCH] for start in range(0, len(owners), _BATCH)]
        placed: dict[str, Stamp] = {}
        for done in spread(self._some, batches, threads=2):
            placed.update(done)
        for sha256 in self._renewed:
            self._store.renew_stamps(sha256)
        return placed

    def _some(self, owners: Sequence[tuple[Entry, str]]) -> list[tuple[str, Stamp]]:
        return [(entry.path, self._one(entry, sha256)) for entry, sha256 in owners]

    def _one(self, entry: Entry, sha256: str) -> Stamp:
        target = f"{self._base}/{entry.path}"
        if isinstance(entry.source, bytes):
            if entry.is_link:
                os.symlink(entry.source, target)  # noqa: PTH211  no Path per file
            else:
                _write(target, entry.source, entry.mode)
            return stamps.of(target)
        source = f"{self._contents[sha256]}/{entry.source}"
        try:
            stamp = stamps.of(source)
        except FileNotFoundError as error:
            raise DamagedWheel(sha256) from error
        if stamp != self._known[sha256].get(entry.source):
            self._check(source, stamp, entry, sha256)
        if entry.relocation is not None:
            return self._relocate(source, target, entry, entry.relocation)
        linked = self._placer.place(source, target, entry.mode)
        return stamp if linked else stamps.of(target)

    def _relocate(self, source: str, target: str, entry: Entry, relocation: Relocation) -> Stamp:
        """Writes a file with the prefix in the place of its placeholder: a copy, and never one of the store's."""
        with open(source, "rb") as stream:  # noqa: PTH123  no Path per file
            data = stream.read()
        try:
            written, offsets = relocate.written(data, relocation.placeholder, self._prefix, relocation.kind)
        except relocate.PrefixTooLong as error:
            message = f"{entry.path} cannot be made for this place: {error}"
            raise PrefixTooLong(message) from error
        _write(target, written, entry.mode)
        self.rewritten[entry.path] = (relocation.kind, relocation.placeholder, offsets)
        return stamps.of(target)

    def _check(self, source: str, stamp: Stamp, entry: Entry, sha256: str) -> None:
        """Reads a file that looks different: right after a copy of the cache, wrong after a change."""
        with open(source, "rb") as stream:  # noqa: PTH123  no Path per file
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != entry.sha256 or stamp.permissions != entry.mode:
            raise DamagedWheel(sha256)
        self._renewed.add(sha256)


def _glue(
    scratch: Path,
    root: Path,
    interpreter: Interpreter,
    launchers: Iterable[tuple[Launcher, str]],
    store: WheelStore,
) -> tuple[glue.Glue, ...]:
    def reader(launcher: Launcher, sha256: str) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                data = (store.content(sha256) / launcher.stored).read_bytes()
            except FileNotFoundError as error:
                raise DamagedWheel(sha256) from error
            if hashlib.sha256(data).hexdigest() != launcher.sha256:
                raise DamagedWheel(sha256)
            return data

        return read

    made = glue.all_of(
        str(root),
        interpreter.path,
        interpreter.version,
        [(one, reader(one, sha256)) for one, sha256 in launchers],
    )
    for one in made:
        target = scratch / one.path
        if one.target:
            target.symlink_to(one.target)
        else:
            _write(str(target), one.data, one.mode)
    return made


def _write(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:  # noqa: PTH123  a descriptor, not a path
        stream.write(data)
        os.fchmod(descriptor, mode)
