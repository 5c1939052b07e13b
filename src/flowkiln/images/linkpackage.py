"""The package of linked files: a conda package as old tools write them, its bytes a function of the files alone.

Where the prefix stands in a file, the package says so, and installing puts in the one that it is installed at.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import posixpath
from typing import TYPE_CHECKING

from flowkiln._base import relocate
from flowkiln.envs import condaunpack, linkedfiles
from flowkiln.envs.builderrors import BadLinking
from flowkiln.envs.installerrors import InstallError
from flowkiln.envs.lock import LINKED
from flowkiln.images import archive
from flowkiln.images.archive import Member
from flowkiln.images.linktree import PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import LinkedFiles
    from flowkiln.images.linktree import Change

_SHOWN = 8


def write(path: Path, changes: tuple[Change, ...], subdir: str, label: str) -> tuple[str, int]:
    """Writes the package of ``changes`` to ``path``; its sha256 and size. Raises ``BadLinking``."""
    unreadable = tuple(repr(one.path) for one in changes if not _is_text(f"{one.path}{one.target}"))
    if unreadable:
        raise refuse(label, "made names that are no UTF-8:", unreadable)
    found = [_entry(one, label) for one in changes]
    info = {
        "index.json": {
            "arch": None,
            "build": linkedfiles.BUILD,
            "build_number": 0,
            "depends": [],
            "name": LINKED,
            "platform": None,
            "subdir": subdir,
            "version": linkedfiles.VERSION,
        },
        "paths.json": {"paths": [row for row, _ in found], "paths_version": 1},
    }
    texts = {name: json.dumps(told, ensure_ascii=False, indent=1, sort_keys=True) for name, told in info.items()}
    members = [archive.made(f"info/{name}", f"{text}\n".encode(), 0o644) for name, text in texts.items()]
    digest, size = hashlib.sha256(), 0
    packer = bz2.BZ2Compressor(9)
    with path.open("wb") as stream:

        def sink(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += stream.write(data)

        archive.write([*members, *(member for _, member in found)], lambda data: sink(packer.compress(data)))
        sink(packer.flush())
    return digest.hexdigest(), size


def check(path: Path, locked: LinkedFiles, folder: Path, label: str) -> None:
    """Guarantees that the package can be installed; ``folder`` is of no use then. Raises ``BadLinking``."""
    try:
        condaunpack.unpack(path, locked, folder)
    except InstallError as error:
        message = f"{label}: what its link scripts left cannot be installed: {error.message}"
        raise BadLinking(message) from error


def refuse(label: str, what: str, paths: tuple[str, ...]) -> BadLinking:
    """The error of scripts that did ``what`` to ``paths``."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    message = f"{label}: its link scripts {what} {', '.join(paths[:_SHOWN])}{more}"
    return BadLinking(message, data={"paths": list(paths)})


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _entry(one: Change, label: str) -> tuple[JSONObject, Member]:
    """The row and the member of one file or link."""
    if one.file is None:
        target = _relative(one, label)
        row: JSONObject = {
            "_path": one.path,
            "path_type": "softlink",
            "sha256": hashlib.sha256(target.encode()).hexdigest(),
            "size_in_bytes": len(target.encode()),
        }
        return row, archive.link(one.path, target)
    data = one.file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    row = {"_path": one.path, "path_type": "hardlink", "sha256": sha256, "size_in_bytes": len(data)}
    if any(PREFIX.encode(encoding) in data for encoding in relocate.ENCODINGS):
        row |= {"file_mode": "binary" if b"\0" in data else "text", "prefix_placeholder": PREFIX}
    mode = 0o755 if one.executable else 0o644
    return row, Member(one.path, "file", mode, len(data), str(one.file), sha256)


def _relative(one: Change, label: str) -> str:
    """A link's target from where it lies. Raises ``BadLinking`` where it leaves the environment."""
    target, folder = one.target, posixpath.dirname(one.path)
    if target == PREFIX or target.startswith(f"{PREFIX}/"):
        inside = target.removeprefix(PREFIX).lstrip("/") or "."
        target = posixpath.relpath(inside, folder or ".")
    end = posixpath.normpath(posixpath.join(folder, target))
    if target.startswith("/") or end == ".." or end.startswith("../"):
        raise refuse(label, "made links that leave the environment:", (f"{one.path} -> {one.target}",))
    return target
