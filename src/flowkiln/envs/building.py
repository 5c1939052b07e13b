"""Builds one tree in a scratch folder from wheels of the store."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from flowkiln.envs import glue, installer, stamps, treefile
from flowkiln.envs.placing import Placer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from flowkiln.envs.installer import Entry, Launcher
    from flowkiln.envs.interpreter import Interpreter
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.treefile import Description
    from flowkiln.envs.wheel import Wheel
    from flowkiln.envs.wheelstore import WheelStore


def build(
    scratch: Path,
    root: Path,
    part: PlatformLock,
    interpreter: Interpreter,
    wheels: Iterable[Wheel],
    store: WheelStore,
) -> Description:
    """Writes the tree of ``part`` to ``scratch`` as it is to stand at ``root``, and returns its description.

    Raises PathOwnedTwice and ``OSError``.
    """
    packages = [installer.package(wheel, part.python) for wheel in wheels]
    tree = installer.combine(packages, dict(part.winners), case_matters=part.platform.os != "darwin")
    for folder in _folders(tree, part.python):
        (scratch / folder).mkdir(parents=True)
    _place(scratch, tree.owners, store)
    glued = _glue(scratch, root, interpreter, tree.launchers, store)
    document = tree.document
    description = treefile.Description(
        env_id=part.env_id,
        tree_digest=tree.tree_digest,
        platform=str(part.platform),
        version=interpreter.version,
        interpreter=interpreter.path,
        prefix=str(root),
        wheels=tuple(sorted(wheel.sha256 for wheel in part.wheels)),
        glue=treefile.glue_rows(glued),
    )
    inside = scratch / treefile.FOLDER
    inside.mkdir()
    (inside / "files.json").write_bytes(document)
    stamps.write(inside / "stamps.json", stamps.survey(scratch, skip=[treefile.FOLDER]))
    (inside / "tree.json").write_bytes(description.to_bytes())
    return description


def _folders(tree: installer.Tree, python: str) -> list[str]:
    """Every folder of the prefix that is no other's parent."""
    found = {entry.path.rpartition("/")[0] for entry, _ in tree.owners} - {""}
    found |= {"bin", f"lib/python{python}/site-packages"}
    parents = {folder[:at] for folder in found for at in range(len(folder)) if folder[at] == "/"}
    return sorted(found - parents)


def _place(scratch: Path, owners: Iterable[tuple[Entry, str]], store: WheelStore) -> None:
    placer = Placer()
    contents: dict[str, str] = {}
    base = str(scratch)

    def one(owner: tuple[Entry, str]) -> None:
        entry, sha256 = owner
        target = f"{base}/{entry.path}"
        if isinstance(entry.source, bytes):
            _write(target, entry.source, entry.mode)
            return
        content = contents.get(sha256) or contents.setdefault(sha256, str(store.content(sha256)))
        placer.place(f"{content}/{entry.source}", target, entry.mode)

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(one, owners):
            pass


def _glue(
    scratch: Path,
    root: Path,
    interpreter: Interpreter,
    launchers: Iterable[tuple[Launcher, str]],
    store: WheelStore,
) -> tuple[glue.Glue, ...]:
    def reader(stored: str, sha256: str) -> Callable[[], bytes]:
        return (store.content(sha256) / stored).read_bytes

    made = glue.all_of(
        str(root),
        interpreter.path,
        interpreter.version,
        [(one, reader(one.stored, sha256)) for one, sha256 in launchers],
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
