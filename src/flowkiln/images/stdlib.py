"""The source of a base's standard library, read from its layers as they stream by."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from flowkiln.images import evidence, facts
from flowkiln.images.compile_files import of_stdlib
from flowkiln.images.errors import BaseUnreadable
from flowkiln.images.evidence import Reading
from flowkiln.images.rootfs import File, Folder, RootFS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LARGEST = 8 << 20


def read(
    layers: Iterable[Callable[[], Iterator[bytes]]], folder: str
) -> tuple[list[tuple[str, bytes]], frozenset[str]]:
    """The Python files below ``folder``, (absolute path, content), sorted, of those that get bytecode.

    And the names of the base's shared objects, as its layers stream by anyway. ``layers`` are those of the base,
    lowest first, compressed as they may be. Raises ``BaseUnreadable``.
    """
    files = RootFS()
    name = folder.rpartition("/")[2]

    def wanted(path: str) -> Reading | None:
        _, found, inside = f"/{path.lstrip('./')}".partition(f"/{name}/")
        if found and of_stdlib(inside):
            return Reading(_LARGEST, bytes)
        return Reading(0, None) if evidence.is_library(path.rpartition("/")[2]) else None

    for opened in layers:
        files.next_layer()
        try:
            facts.add_layer(files, opened(), wanted)
        except (tarfile.TarError, ValueError) as error:
            message = f"a layer of the base is no archive of files: {error}"
            raise BaseUnreadable(message) from error
    found = files.find(folder)
    sources = sorted(_files(found[1], folder)) if found is not None and isinstance(found[1], Folder) else []
    return sources, frozenset(name for name in files.every() if evidence.is_library(name))


def _files(folder: Folder, path: str) -> Iterator[tuple[str, bytes]]:
    for name, node in folder.entries.items():
        if isinstance(node, Folder):
            yield from _files(node, f"{path}/{name}")
        elif isinstance(node, File) and isinstance(node.content, bytes):
            yield f"{path}/{name}", node.content
