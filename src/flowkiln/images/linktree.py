"""An environment's files as they are written at a prefix where link scripts run, and what these changed of them.

The prefix is long and its name occurs nowhere else, so that it can be told from other text in what scripts write,
and a binary file that holds it has room for any other.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flowkiln._base import relocate
from flowkiln.envs import glue
from flowkiln.images import archive, content

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterable, Mapping

    from flowkiln.envs.describing import Described
    from flowkiln.envs.installer import Entry, Launcher
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.images.archive import Member

PREFIX = ("/opt/flowkiln-linked-files" + "_placehold" * 20)[:200]
"""Where scripts find their environment. Short enough for the first line of a program, as Linux reads it."""
MESSAGES = ".messages.txt"
"""What a script wants people to read, by conda's convention."""
_FILE, _PROGRAM = 0o644, 0o755

_MESSAGES = 1 << 14
_PIECE = 1 << 20


class Seen(NamedTuple):
    """A file or link: the sha256 of its content or the link's target, and whether it can be executed."""

    sha256: str
    target: str
    executable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A file or link that scripts made or changed, by its path below the prefix; ``file`` has a file's content."""

    path: str
    executable: bool = False
    target: str = ""
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What scripts left of an environment. ``odd`` are neither files, links nor folders."""

    changes: tuple[Change, ...]
    deleted: tuple[str, ...]
    odd: tuple[str, ...]
    messages: str


def members(part: PlatformLock, described: Described, stored: Callable[[str, str], str]) -> dict[str, Member]:
    """All files of an environment with conda's Python below ``PREFIX``, by path; scripts may write to each."""
    own = part.own_python
    assert own is not None, "an environment with conda packages has conda's Python"

    def reader(launcher: Launcher, sha256: str) -> Callable[[], bytes]:
        return lambda: content.checked(stored(sha256, launcher.stored), launcher.sha256)

    found = {entry.path: _member(entry, sha256, stored) for entry, sha256 in described.tree.owners}
    launchers = [(one, reader(one, sha256)) for one, sha256 in described.tree.launchers]
    for one in glue.all_of(PREFIX, "", own.version, launchers):
        where = _below(one.path)
        made = archive.made(where, one.data, _PROGRAM if one.mode & 0o111 else _FILE)
        found[one.path] = archive.link(where, one.target) if one.target else made
    return found


def seen(member: Member) -> Seen:
    """How a file is found again where nothing changed it."""
    if member.kind == "link":
        return Seen("", str(member.source), executable=False)
    data = member.source
    sha256 = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else member.sha256
    return Seen(sha256, "", bool(member.mode & 0o111))


def compared(
    before: Mapping[str, Member], after: Iterable[tuple[tarfile.TarFile, tarfile.TarInfo]], folder: Path
) -> Left:
    """What differs between an environment as it was made and the archive of ``PREFIX``; contents go to ``folder``.

    Bytecode counts as neither: nothing installs it from packages.
    """
    comparing = _Comparing(before, folder)
    for opened, info in after:
        comparing.take(opened, info)
    return comparing.left()


class _Comparing:
    """One comparison on its way."""

    def __init__(self, before: Mapping[str, Member], folder: Path) -> None:
        self._before = before
        self._folder = folder
        self._found: dict[str, Change | None] = {}
        self._odd: list[str] = []
        self._messages = ""

    def take(self, opened: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        path = _inside(info.name)
        if info.isdir() or not path or path.endswith(".pyc"):
            return
        stream = opened.extractfile(info) if info.isreg() else None
        if path == MESSAGES:
            self._messages = stream.read(_MESSAGES).decode(errors="replace") if stream is not None else ""
        elif info.issym():
            self._see(path, Seen("", info.linkname, executable=False), None)
        elif stream is not None:
            kept = self._folder / str(len(self._found))
            with kept.open("wb") as target:
                shutil.copyfileobj(stream, target, _PIECE)
            with kept.open("rb") as source:
                sha256 = hashlib.file_digest(source, "sha256").hexdigest()
            self._see(path, Seen(sha256, "", bool(info.mode & 0o111)), kept)
        elif info.islnk():
            self._again(path, _inside(info.linkname), executable=bool(info.mode & 0o111))
        else:
            self._odd.append(path)

    def _see(self, path: str, now: Seen, kept: Path | None) -> None:
        known = self._before.get(path)
        if known is not None and seen(known) == now:
            self._found[path] = None
            if kept is not None:
                kept.unlink()
        else:
            self._found[path] = Change(path=path, executable=now.executable, target=now.target, file=kept)

    def _again(self, path: str, other: str, *, executable: bool) -> None:
        """A second name of a file that came before it."""
        first = self._found.get(other)
        kept = self._folder / str(len(self._found))
        if first is not None and first.file is not None:
            shutil.copyfile(first.file, kept)
        else:
            source = self._before[other].source
            kept.write_bytes(source if isinstance(source, bytes) else Path(source).read_bytes())
        with kept.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        self._see(path, Seen(sha256, "", executable), kept)

    def left(self) -> Left:
        changes = sorted((one for one in self._found.values() if one is not None), key=lambda one: one.path)
        deleted = sorted(path for path in self._before.keys() - self._found.keys() if not path.endswith(".pyc"))
        return Left(
            changes=tuple(changes), deleted=tuple(deleted), odd=tuple(self._odd), messages=self._messages.strip()
        )


def _member(entry: Entry, sha256: str, stored: Callable[[str, str], str]) -> Member:
    path, mode = _below(entry.path), _PROGRAM if entry.mode & 0o111 else _FILE
    if isinstance(entry.source, bytes):
        if entry.is_link:
            return archive.link(path, entry.source.decode())
        return archive.made(path, entry.source, mode)
    source = stored(sha256, entry.source)
    if entry.relocation is None:
        return archive.Member(path, "file", mode, entry.size, source, entry.sha256)
    placeholder, kind = entry.relocation
    data, _ = relocate.written(content.checked(source, entry.sha256), placeholder, PREFIX, kind)
    return archive.made(path, data, mode)


def _below(path: str) -> str:
    return f"{PREFIX.lstrip('/')}/{path}"


def _inside(name: str) -> str:
    """A path below the prefix, from its name in the archive of it, which begins with the folder's own."""
    return name.removeprefix("./").partition("/")[2]
