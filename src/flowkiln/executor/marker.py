"""Proof that the environment of an image is the one that was locked, from what lies in the image.

``.flowkiln/tree.json`` says what was installed; the files in ``.flowkiln/parts`` list what each layer of packages
holds: together they are what the tree's digest is taken over. Runs before ``.pth`` files and ``sitecustomize`` do,
and before any user code; needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from flowkiln._base.relocate import stored_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln._base.relocate import Rewritten

    Rows = dict[str, tuple[int, str]]

LEVELS = ("digest", "stat", "full")
FOLDER = ".flowkiln"
PARTS = "parts"
"""The folder of the descriptions that the layers of packages bring, one each."""
_NOTHING = "sha256:43f19692c1217d4b953d831b0d0bf6cf8e1dcd1dfab5a7211b3153bd3af8cb15"
"""The tree's digest of an environment without packages, which has no such folder."""
_BLOCK = 1 << 18
_SHOWN = 6
_WATCHED = ("bin", "site-packages")
_MOST_THREADS = 16


class Mismatch(Exception):
    """The environment is not the expected one; the text says how."""


def verify(root: str, env_id: str, tree_digest: str, level: str) -> None:
    """Returns when the environment at ``root`` is the expected one as far as ``level`` looks. Raises ``Mismatch``.

    ``digest`` reads the marker alone: that the image is the one that was baked is the engine's word. ``stat``
    compares size and mode of every file, ``full`` reads every byte.
    """
    marker = _marker(root)
    for what, expected, found in (
        ("environment", env_id, marker.get("env_id")),
        ("tree", tree_digest, marker.get("tree_digest")),
    ):
        if expected != found:
            message = f"{root} holds another {what}\n  expected {expected}\n  found    {found}"
            raise Mismatch(message)
    if level == "digest":
        return
    listed, sizes, rewritten = _listed(root, tree_digest)
    glue = {path: (mode, content) for path, (mode, content) in marker.get("glue", {}).items()}
    changed = _changed(root, {**listed, **glue}, sizes, rewritten, reads=level == "full")
    extra = _extra(root, {*listed, *glue})
    if changed or extra:
        raise Mismatch(_told(root, changed, extra))


def _marker(root: str) -> JSONObject:
    path = f"{root}/{FOLDER}/tree.json"
    try:
        data = _read(path)
    except OSError as error:
        message = f"the image has no marker of an environment: {path}: {error.strerror}"
        raise Mismatch(message) from error
    told, _, body = data.partition(b"\n")
    if told != hashlib.sha256(body).hexdigest().encode():
        message = f"the marker of the environment was changed: {path}"
        raise Mismatch(message)
    marker: JSONObject = json.loads(body)
    return marker


def _listed(root: str, tree_digest: str) -> tuple[Rows, dict[str, int], dict[str, Rewritten]]:
    """The installed files, their sizes, and how the prefix came into some of them.

    They are what all parts say together, which the tree's digest is the identity of.
    """
    rows: dict[str, tuple[Any, Any, Any, Any]] = {}
    rewritten: dict[str, Rewritten] = {}
    folder = f"{root}/{FOLDER}/{PARTS}"
    try:
        for name in sorted(os.listdir(folder)) if tree_digest != _NOTHING else ():
            for path, mode, sha256, size, *how in json.loads(_read(f"{folder}/{name}"))["files"]:
                rows[path] = (path, mode, sha256, size)
                if how:
                    kind, placeholder, offsets = how
                    rewritten[path] = (kind, placeholder, offsets)
        document = {"files": sorted(row[:3] for row in rows.values()), "schema": 1}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"the list of files of the environment cannot be read: {folder}: {error}"
        raise Mismatch(message) from error
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != tree_digest:
        message = f"the list of files of the environment was changed: {folder}\n  expected {tree_digest}"
        raise Mismatch(f"{message}\n  found    {found}")
    listed = {path: (mode, sha256) for path, mode, sha256, _ in rows.values()}
    return listed, {path: size for path, _, _, size in rows.values()}, rewritten


def _changed(
    root: str, rows: Rows, sizes: dict[str, int], rewritten: dict[str, Rewritten], *, reads: bool
) -> list[str]:
    """The paths that do not look, or read, as ``rows`` say, sorted."""
    paths = list(rows)

    def looks(path: str) -> bool:
        how = rewritten.get(path)
        plain = _is(f"{root}/{path}", *rows[path], sizes.get(path), reads=reads and how is None)
        return plain and (how is None or not reads or _stored(root, path, how) == rows[path][1])

    if not reads:
        return sorted(path for path in paths if not looks(path))
    return sorted(path for path, right in zip(paths, _in_threads(looks, paths), strict=True) if not right)


def _in_threads(judge: Callable[[str], bool], paths: list[str]) -> list[bool]:
    """What ``judge`` says of each path; hashing lets other threads run."""
    from threading import Thread  # noqa: PLC0415  the level that most tasks are proved at needs none

    found = [False] * len(paths)
    numbers = iter(range(len(paths)))  # the next number is taken by one thread at a time

    def work() -> None:
        for number in numbers:
            found[number] = judge(paths[number])

    threads = [Thread(target=work) for _ in range(min(_MOST_THREADS, os.cpu_count() or 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _is(path: str, mode: int, content: str, size: int | None, *, reads: bool) -> bool:
    try:
        facts = os.lstat(path)
        if stat.S_ISLNK(mode):  # of a package: listed with the sha256 of its target
            return stat.S_ISLNK(facts.st_mode) and _of_text(os.readlink(path)) == content
        if content.startswith("-> "):
            return stat.S_ISLNK(facts.st_mode) and os.readlink(path) == content[3:]
        if not stat.S_ISREG(facts.st_mode) or stat.S_IMODE(facts.st_mode) != mode:
            return False
        if size is not None and facts.st_size != size:
            return False
        return not reads or _digest(path) == content
    except OSError:
        return False


def _of_text(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _stored(root: str, path: str, how: Rewritten) -> str:
    """The sha256 of the bytes that a file with the prefix in it was made of; "" where it is not what was made."""
    try:
        return stored_sha256(_read(f"{root}/{path}"), root, how)
    except OSError:
        return ""


def _extra(root: str, known: set[str]) -> list[str]:
    """Files where Python finds modules or people programs that belong to neither the environment nor its glue."""
    return sorted(path for folder in _folders(root) for path in _files(root, folder) if path not in known)


def _folders(root: str) -> Iterator[str]:
    yield _WATCHED[0]
    for lib in ("lib", "lib64"):
        if os.path.islink(f"{root}/{lib}"):
            continue
        try:
            names = os.listdir(f"{root}/{lib}")
        except OSError:
            continue
        for name in names:
            if name.startswith("python"):
                yield f"{lib}/{name}/{_WATCHED[1]}"


def _files(root: str, folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(f"{root}/{folder}"):
        inside = parent[len(root) + 1 :]
        for name in names:
            yield f"{inside}/{name}"
        for name in folders:
            if os.path.islink(f"{parent}/{name}"):
                yield f"{inside}/{name}"


def _told(root: str, changed: list[str], extra: list[str]) -> str:
    parts: list[str] = []
    lines: list[str] = []
    missing = [path for path in changed if not os.path.lexists(f"{root}/{path}")]
    different = [path for path in changed if path not in set(missing)]
    for what, paths in (("changed", different), ("missing", missing), ("extra", extra)):
        if paths:
            parts.append(f"{len(paths)} {what}")
            lines += [f"  {what}: {path}" for path in paths[:_SHOWN]]
        if len(paths) > _SHOWN:
            lines.append(f"  ... and {len(paths) - _SHOWN} more {what}")
    return "\n".join([f"the environment at {root} is not what was locked: {', '.join(parts)}", *lines])


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as stream:
        return stream.read()


def _digest(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        digest = hashlib.sha256()
        while block := os.read(descriptor, _BLOCK):
            digest.update(block)
        return digest.hexdigest()
    finally:
        os.close(descriptor)
