"""The file system that layers make, as far as it is remembered: every folder and link, and some files.

Layers are put on each other as runtimes do it: a whiteout hides what lower layers have, never what its own layer
has, whatever the order in the archive; a path is entered through the links that stand there.
"""

from __future__ import annotations

import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flowkiln.images.decompress import Chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_MOST_LINKS = 40
_BUFFER = 1 << 16


@dataclass(slots=True)
class File:
    """A remembered file. ``content`` is what was made of its bytes, None where its presence is all."""

    layer: int
    content: object = None


@dataclass(slots=True)
class Link:
    """A symbolic link."""

    layer: int
    target: str


@dataclass(slots=True)
class Folder:
    """A folder. ``layer`` is the topmost one that has it as an entry of its own."""

    layer: int
    entries: dict[str, File | Link | Folder] = field(default_factory=dict)


class RootFS:
    """A file system to which layers are added from the lowest upward, entry by entry."""

    def __init__(self) -> None:
        self._root = Folder(0)
        self._layer = 0

    def next_layer(self) -> None:
        """What is added from now on belongs to the next layer."""
        self._layer += 1

    # -- adding ------------------------------------------------------------------------------------------------

    def put_folder(self, path: str) -> None:
        """Adds a folder. One that is there stays with what is in it."""
        place = self._place(path)
        if place is None:
            return
        parent, name = place
        found = parent.entries.get(name)
        if isinstance(found, Folder):
            found.layer = self._layer
        else:
            parent.entries[name] = Folder(self._layer)

    def put_link(self, path: str, target: str) -> None:
        """Adds a symbolic link in place of what is there."""
        self._put(path, Link(self._layer, target))

    def put_file(self, path: str, content: object = None) -> None:
        """Adds a file that is remembered, in place of what is there."""
        self._put(path, File(self._layer, content))

    def put_hard_link(self, path: str, target: str) -> None:
        """Adds a file that is another name of ``target``; remembered if that is."""
        place = self._place(target, make=False)
        found = place[0].entries.get(place[1]) if place else None
        if isinstance(found, File):
            self._put(path, File(self._layer, found.content))
        elif isinstance(found, Link):
            self._put(path, Link(self._layer, found.target))
        else:
            self.put_other(path)

    def put_other(self, path: str) -> None:
        """Adds something that is not remembered: what was there is gone."""
        place = self._place(path, make=False)
        if place is not None:
            place[0].entries.pop(place[1], None)

    def enter(self, member: tarfile.TarInfo, above: str = "") -> bool:
        """Adds what ``member`` of an archive below ``above`` says; False for a file, which is not added."""
        path = posixpath.join(above, member.name)
        if "/.wh." in f"/{path}" and self.whiteout(path):
            return True
        if member.isdir():
            self.put_folder(path)
        elif member.issym():
            self.put_link(path, member.linkname)
        elif member.islnk():
            self.put_hard_link(path, posixpath.join(above, member.linkname))
        else:
            return False
        return True

    def whiteout(self, path: str) -> bool:
        """Whether ``path`` says what is hidden and is no entry itself; what it hides is hidden then."""
        parts = _split(path)
        if not any(part.startswith(_WHITEOUT) for part in parts):
            return False
        name = parts[-1]
        if any(part.startswith(_META) for part in parts[:-1]):
            return True
        above = "/".join(parts[:-1])
        if name == _OPAQUE:
            found = self.find(above)
            if found is not None and isinstance(found[1], Folder):
                self._hide(found[1])
        elif name.startswith(_WHITEOUT) and not name.startswith(_META):
            place = self._place(f"{above}/{name[len(_WHITEOUT) :]}", make=False)
            if place is not None and self._hidden(place[0].entries.get(place[1])):
                place[0].entries.pop(place[1], None)
        return name.startswith(_WHITEOUT)

    def _put(self, path: str, node: File | Link) -> None:
        place = self._place(path)
        if place is not None:
            place[0].entries[place[1]] = node

    def _hide(self, folder: Folder) -> None:
        """Takes what lower layers have out of ``folder``."""
        for name in [name for name, node in folder.entries.items() if self._hidden(node)]:
            del folder.entries[name]

    def _hidden(self, node: File | Link | Folder | None) -> bool:
        """Whether nothing of ``node`` is of this layer; what is of lower ones below it is gone afterwards."""
        if node is None:
            return True
        if isinstance(node, Folder):
            self._hide(node)
            return node.layer < self._layer and not node.entries
        return node.layer < self._layer

    def _place(self, path: str, *, make: bool = True) -> tuple[Folder, str] | None:
        """The folder that holds ``path`` and the last name; missing folders are made, or the answer is None.

        None too for the root, and for a path through links that lead nowhere.
        """
        parts = _split(path)
        if not parts:
            return None
        *above, name = parts
        found = self._walk(above, make=make)
        return None if found is None or not isinstance(found[1], Folder) else (found[1], name)

    # -- looking -----------------------------------------------------------------------------------------------

    def find(self, path: str) -> tuple[str, File | Folder] | None:
        """What ``path`` leads to through all links, with its absolute path there; None for nothing remembered."""
        return self._walk(_split(path), make=False)

    def names(self, path: str) -> list[str]:
        """The names in the folder ``path``, sorted; none when there is no such folder."""
        found = self.find(path)
        return sorted(found[1].entries) if found is not None and isinstance(found[1], Folder) else []

    def every(self) -> Iterator[str]:
        """The name of every remembered file, and of every link, in any folder."""
        pending = [self._root]
        while pending:
            for name, node in pending.pop().entries.items():
                if isinstance(node, Folder):
                    pending.append(node)
                else:
                    yield name

    def _walk(self, parts: list[str], *, make: bool) -> tuple[str, File | Folder] | None:
        pending = parts[::-1]
        names: list[str] = []
        folders = [self._root]
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                del names[-1:]
                del folders[len(names) + 1 :]
                continue
            node = folders[-1].entries.get(name)
            if isinstance(node, Link):
                links += 1
                if links > _MOST_LINKS:
                    return None
                if node.target.startswith("/"):
                    names, folders = [], [self._root]
                pending += [part for part in node.target.split("/") if part not in ("", ".")][::-1]
                continue
            if isinstance(node, File) and not pending and not make:
                return "/" + "/".join([*names, name]), node
            if not isinstance(node, Folder):
                if not make:
                    return None
                node = folders[-1].entries[name] = Folder(self._layer)
            names.append(name)
            folders.append(node)
        return "/" + "/".join(names), folders[-1]


def _split(path: str) -> list[str]:
    """The parts of a path in an archive, which never leads out of the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def members(chunks: Iterable[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of an archive as it streams by, each with the archive to read it from.

    All of ``chunks`` is taken: what lies behind the archive belongs to the layer's digest. Raises
    ``tarfile.TarError``.
    """
    stream = Chunks(chunks)
    if stream.ended:
        return
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=_BUFFER) as archive:
        while (member := archive.next()) is not None:
            yield archive, member
            archive.members = []  # type: ignore[attr-defined]  # it keeps every member otherwise
    while stream.read(_BUFFER):
        pass
