"""Proof that a tree on disk is what was locked, at two levels.

``stat`` compares size, mode, inode and mtime of every file with how they looked when they were written, and reads
only those that look different: a copied cache passes, a changed file does not. A file changed in place with its
size and mtime put back is found by ``full`` alone, which reads everything. The change time is not looked at: it
moves whenever another tree links to the same stored file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowkiln._base import relocate
from flowkiln._base.errors import BaseError
from flowkiln.envs import stamps, treefile
from flowkiln.envs.installerrors import EnvironmentMismatch
from flowkiln.envs.spread import spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowkiln._base.relocate import Rewritten
    from flowkiln.envs.stamps import Stamp
    from flowkiln.envs.treefile import Description

Level = Literal["stat", "full"]
REPAIR = "`flowkiln env verify --repair ENV` makes the environment anew."
_SHOWN = 6
_BATCH = 64
_BLOCK = 1 << 18


def verify(root: Path | str, expected_env_id: str, expected_tree_digest: str, level: Level = "stat") -> None:
    """Returns when the tree at ``root`` is the expected environment, whole and unchanged at ``level``.

    Raises EnvironmentMismatch (exit 17) naming the files that were changed, are missing or do not belong.
    """
    root = Path(root)
    description = _described(root, expected_env_id, expected_tree_digest)
    # The list of files is held against the digest before anything is compared with it.
    listed = treefile.listed(root, expected_tree_digest)
    seen = _seen(root)
    known = stamps.read(root / treefile.FOLDER / "stamps.json")
    if level == "stat" and known and seen == known:
        return
    expected = {**treefile.parsed(listed), **description.glue}
    found = _differences(description, expected, seen, known if level == "stat" else {})
    if any(found.values()):
        raise _mismatch(root, found)
    if seen != known:
        # Everything was read and is right: the next check need not read it again.
        with contextlib.suppress(BaseError):
            stamps.write(root / treefile.FOLDER / "stamps.json", seen)


def _described(root: Path, env_id: str, tree_digest: str) -> Description:
    description = treefile.read(root)
    if description is None:
        raise EnvironmentMismatch(f"the environment at {root} is gone", hint=REPAIR, data={"root": str(root)})
    for what, expected, found in (
        ("environment", env_id, description.env_id),
        ("tree", tree_digest, description.tree_digest),
        ("prefix", str(root), description.prefix),
    ):
        if expected != found:
            message = f"{root} holds another {what}\n  expected {expected}\n  found    {found}"
            data = {"root": str(root), "expected": expected, "found": found}
            raise EnvironmentMismatch(message, hint=REPAIR, data=data)
    if not os.access(root / "bin" / "python", os.X_OK):
        message = f"the interpreter of the environment at {root} is gone: {description.interpreter}"
        raise EnvironmentMismatch(message, hint=REPAIR, data={"root": str(root)})
    return description


def _seen(root: Path) -> dict[str, Stamp]:
    try:
        return stamps.survey(root, skip=[treefile.FOLDER])
    except OSError as error:
        message = f"the environment at {root} cannot be read: {error.strerror}: {error.filename}"
        raise EnvironmentMismatch(message, hint=REPAIR, data={"root": str(root)}) from error


def _differences(
    description: Description,
    expected: Mapping[str, tuple[int, str]],
    seen: Mapping[str, Stamp],
    known: Mapping[str, Stamp],
) -> dict[str, list[str]]:
    """Paths that are changed, missing, extra; files that look as ``known`` says are not read."""
    present = sorted(expected.keys() & seen.keys())
    changed = {path for path in present if _looks_wrong(seen[path], *expected[path])}
    doubtful = [
        path for path in present if path not in changed and not seen[path].is_link and seen[path] != known.get(path)
    ]
    changed |= {path for path, digest in _digests(description, doubtful) if digest != expected[path][1]}
    return {
        "changed": sorted(changed),
        "missing": sorted(expected.keys() - seen.keys()),
        "extra": sorted(seen.keys() - expected.keys()),
    }


def _looks_wrong(stamp: Stamp, mode: int, content: str) -> bool:
    """Whether a glance is enough: another mode, another link, a link in place of a file."""
    if stat.S_ISLNK(mode):  # of a package: listed with the sha256 of its target
        return not (stamp.is_link and hashlib.sha256(os.fsencode(stamp.target)).hexdigest() == content)
    link = content.startswith("-> ")
    if link or stamp.is_link:
        # A link's mode means nothing and differs between systems.
        return not (link and stamp.is_link and f"-> {stamp.target}" == content)
    return stamp.permissions != mode


def _digests(description: Description, paths: list[str]) -> Iterable[tuple[str, str]]:
    """The sha256 of each file; "" for one that cannot be read. In threads: hashing releases the interpreter.

    A file with the prefix in it counts as it was before that was written.
    """
    base, rewritten = description.prefix, description.rewritten

    def some(batch: list[str]) -> list[tuple[str, str]]:
        return [
            (path, _digest(f"{base}/{path}") if path not in rewritten else _stored(base, path, rewritten[path]))
            for path in batch
        ]

    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    for done in spread(some, batches):
        yield from done


def _digest(path: str) -> str:
    """By descriptor: a file object costs more than the hash of a small file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        digest = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
        return digest.hexdigest()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _stored(root: str, path: str, how: Rewritten) -> str:
    """The sha256 of the bytes that a file with the prefix in it was made of; "" where it is not what was made."""
    try:
        return relocate.stored_sha256(Path(root, path).read_bytes(), root, how)
    except OSError:
        return ""


def _mismatch(root: Path, found: Mapping[str, list[str]]) -> EnvironmentMismatch:
    counts = ", ".join(f"{len(paths)} {what}" for what, paths in found.items() if paths)
    lines = [f"  {what}: {path}" for what, paths in found.items() for path in paths[:_SHOWN]]
    for what, paths in found.items():
        if len(paths) > _SHOWN:
            lines.append(f"  ... and {len(paths) - _SHOWN} more {what}")
    message = f"the environment at {root} is not what was locked: {counts}\n" + "\n".join(lines)
    return EnvironmentMismatch(message, hint=REPAIR, data={"root": str(root), **found})
