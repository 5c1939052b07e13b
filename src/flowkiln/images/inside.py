"""The files of an environment as they lie in an image: read from its layers, or from a container's archive.

Layers are put on each other as runtimes do it, and every one of them is held against the digest that the config has
of it. Of the environment every file is hashed as it streams by; of all other files it is known that they are there.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.images import places
from flowkiln.images.decompress import decompressed
from flowkiln.images.errors import BaseUnreadable, LayerDiffers
from flowkiln.images.rootfs import File, Folder, Link, RootFS, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_BLOCK = 1 << 20
_LARGEST_KEPT = 1 << 27
_PREFIX = places.PREFIX.lstrip("/") + "/"
_KEPT = places.DESCRIPTION.lstrip("/") + "/"


@dataclass(frozen=True, slots=True)
class Found:
    """A file or link of an image: ``content`` is the sha256 in hex, or ``-> `` and the target of a link.

    ``data`` are the bytes of files that describe the environment, None for all others.
    """

    mode: int
    content: str
    data: bytes | None = field(default=None, repr=False)


def of_layers(name: str, layers: Iterable[tuple[str, Callable[[], Iterator[bytes]]]]) -> dict[str, Found]:
    """The environment's files by path below its prefix; ``layers`` come lowest first, each with its diff id.

    Raises ``LayerDiffers`` for a layer that is not what the config says, ``BaseUnreadable`` for one that is no
    archive, and what the layers raise.
    """
    files = RootFS()
    for number, (diff_id, opened) in enumerate(layers, 1):
        files.next_layer()
        hashed = _Hashed(opened())
        try:
            _add(files, hashed, "")
        except (tarfile.TarError, ValueError) as error:
            message = f"layer {number} of {name} is no archive of files: {error}"
            raise BaseUnreadable(message) from error
        if hashed.digest != diff_id:
            message = f"layer {number} of {name} is {hashed.digest}, and the image's config says {diff_id}"
            raise LayerDiffers(message, hint="Do not use the image; bake it again with --rebuild.")
    return _environment(files)


def of_archive(pieces: Iterable[bytes]) -> dict[str, Found]:
    """The environment's files by path below its prefix, from a tar of that folder as an engine gives it."""
    files = RootFS()
    _add(files, pieces, posixpath.dirname(places.PREFIX))
    return _environment(files)


class _Hashed:
    """The bytes of a layer's archive, hashed on their way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = decompressed(chunks)
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            yield chunk

    @property
    def digest(self) -> str:
        """``sha256:...`` of what was taken."""
        return f"sha256:{self._digest.hexdigest()}"


def _add(files: RootFS, chunks: Iterable[bytes], above: str) -> None:
    """Adds an archive to the last byte; its paths are below the folder ``above``."""
    for archive, member in members(chunks):
        if files.enter(member, above):
            continue
        path = posixpath.join(above, member.name)
        inside = posixpath.normpath(f"/{path}").lstrip("/")
        ours = member.isreg() and inside.startswith(_PREFIX)
        files.put_file(path, _read(archive, member, inside) if ours else None)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, inside: str) -> Found:
    content = archive.extractfile(member)
    assert content is not None
    digest = hashlib.sha256()
    kept: bytes | None = None
    if inside.startswith(_KEPT) and member.size <= _LARGEST_KEPT:
        kept = content.read()
        digest.update(kept)
    while block := content.read(_BLOCK):
        digest.update(block)
    return Found(member.mode & 0o7777, digest.hexdigest(), kept)


def _environment(files: RootFS) -> dict[str, Found]:
    place = files.find(places.PREFIX)
    if place is None or place[0] != places.PREFIX or not isinstance(place[1], Folder):
        return {}
    return dict(_walk(place[1], ""))


def _walk(folder: Folder, above: str) -> Iterator[tuple[str, Found]]:
    for name, node in sorted(folder.entries.items()):
        path = f"{above}{name}"
        if isinstance(node, Folder):
            yield from _walk(node, f"{path}/")
        elif isinstance(node, Link):
            yield path, Found(0o777, f"-> {node.target}")
        elif isinstance(node, File):
            # What came here by another name than its own was not hashed: it is no file of ours.
            yield path, node.content if isinstance(node.content, Found) else Found(0, "not a file of its own")
