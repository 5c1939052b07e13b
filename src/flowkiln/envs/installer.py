"""The installer: (package, X.Y) -> what it writes, as sorted entries. Pure: it reads and writes no file.

Entries know nothing of the prefix, so that host trees and image layers are made of the same bytes. Launchers,
``pyvenv.cfg`` and interpreter links name the prefix: they are glue (``envs.glue``), and RECORD leaves launchers
blank. A file of a conda package in which the prefix stands counts with the bytes that it is stored with, before its
placeholder is replaced: that is how environments at two prefixes have one identity.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import stat
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from flowkiln.envs import links
from flowkiln.envs.condapackage import CondaPackage, Relocation
from flowkiln.envs.installerrors import HostileConda, LinkScripts, PathOwnedTwice
from flowkiln.envs.lock import LINKED
from flowkiln.envs.names import collision_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flowkiln.envs.condapackage import CondaFile
    from flowkiln.envs.wheel import EntryPoint, Wheel, WheelFile

    Unpacked = Wheel | CondaPackage

INSTALLER = b"flowkiln\n"
FILE_MODE = 0o444
EXECUTABLE_MODE = 0o555
LINK_MODE = stat.S_IFLNK | 0o777
TREE_SCHEMA = 1
_NO_CHANNEL = "https://channel.invalid"


class Entry(NamedTuple):
    """One file that installing writes. ``path`` is relative to the prefix, ``sha256`` hex, ``size`` in bytes.

    ``source`` is the stored path inside the unpacked package, or the bytes themselves where installing makes them.
    A link has ``LINK_MODE`` and its target as its bytes. With a ``relocation`` the file is written with the prefix
    in it, and ``sha256`` and ``size`` are those of the stored one.
    """

    path: str
    mode: int
    sha256: str
    size: int
    source: str | bytes
    relocation: Relocation | None = None

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode == LINK_MODE


class Launcher(NamedTuple):
    """A file below ``bin/`` that names the prefix's interpreter. Written with the prefix, not with the package.

    ``entry_point`` is what it calls; for a script of the wheel it is None and ``stored`` names the script.
    """

    path: str
    entry_point: EntryPoint | None
    stored: str
    sha256: str

    @property
    def meaning(self) -> tuple[str, ...]:
        """Equal for launchers that would be equal files in one prefix."""
        return (self.sha256,) if self.entry_point is None else (self.entry_point.module, self.entry_point.attr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package as it is installed: ``of`` what was unpacked; ``entries`` and ``launchers``, sorted by path."""

    of: Unpacked
    entries: tuple[Entry, ...]
    launchers: tuple[Launcher, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Several packages in one prefix, every path owned by one of them.

    ``owners`` are (entry, sha256 of the artefact it comes from) sorted by path, ``launchers`` likewise.
    """

    owners: tuple[tuple[Entry, str], ...]
    launchers: tuple[tuple[Launcher, str], ...] = field(default=())

    @property
    def document(self) -> bytes:
        """The canonical bytes that ``tree_digest`` is the sha256 of."""
        return document([(entry.path, entry.mode, entry.sha256) for entry, _ in self.owners])

    @property
    def tree_digest(self) -> str:
        """Identity of what is written, without glue and bytecode: ``sha256:...``."""
        return "sha256:" + hashlib.sha256(self.document).hexdigest()


def document(rows: Iterable[tuple[str, int, str]]) -> bytes:
    """The canonical bytes of a tree whose files are ``rows`` of (path, mode, sha256), in any order."""
    # As ``_base.json.canonical`` writes it, without its check of tens of thousands of values that fit for sure.
    ordered = {"files": sorted(rows), "schema": TREE_SCHEMA}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()


def package(one: Unpacked, python: str) -> Package:
    """What installing a wheel or a conda package for Python ``X.Y`` writes. Depends on nothing else."""
    return _of_conda(one, python) if isinstance(one, CondaPackage) else _of_wheel(one, python)


def _of_wheel(wheel: Wheel, python: str) -> Package:
    folders = {
        "site": f"lib/python{python}/site-packages",
        "scripts": "bin",
        "headers": f"include/site/python{python}/{wheel.name}",
    }
    entries = [_entry(file, folders) for file in wheel.files if not file.launcher]
    launchers = _launchers(wheel)
    taken = {launcher.path for launcher in launchers}
    if taken:
        # A script that a wheel ships under the name of its own entry point gives way, as in other installers.
        entries = [entry for entry in entries if entry.path not in taken]
    site = folders["site"] + "/"
    record = f"{site}{wheel.dist_info}/RECORD"
    if not any(entry.path == record for entry in entries):
        entries.append(_made(record, _record(entries, launchers, record, site)))
    entries.sort(key=itemgetter(0))
    return Package(of=wheel, entries=tuple(entries), launchers=launchers)


def _of_conda(one: CondaPackage, python: str) -> Package:
    folders = {"prefix": "", "site": f"lib/python{python}/site-packages/", "scripts": "bin/"}
    launchers = tuple(Launcher(f"bin/{point.name}", point, "", "") for point in one.entry_points)
    taken = {launcher.path for launcher in launchers}
    entries = [_conda_entry(file, folders[file.place] + file.path) for file in one.files]
    entries = [entry for entry in entries if entry.path not in taken]
    stem = f"{one.name}-{one.version}-{one.build}"
    paths = sorted({*taken, *(entry.path for entry in entries)})
    entries.append(_made(f"conda-meta/{stem}.json", _conda_record(one, paths)))
    entries.sort(key=itemgetter(0))
    return Package(of=one, entries=tuple(entries), launchers=launchers)


def _conda_entry(file: CondaFile, path: str) -> Entry:
    if file.target:
        return Entry(path, LINK_MODE, file.sha256, file.size, file.target.encode())
    mode = EXECUTABLE_MODE if file.executable else FILE_MODE
    relocation = Relocation(file.placeholder, "binary" if file.kind == "binary" else "text") if file.kind else None
    return Entry(path, mode, file.sha256, file.size, file.stored, relocation)


def _conda_record(one: CondaPackage, paths: Sequence[str]) -> bytes:
    """What conda's tools read of an installed package, without host paths and times.

    They want a URL. The true one may name a private host, and would make two environments of one: this one is
    equal everywhere and resolves nowhere.
    """
    subdir = one.record.get("subdir") or "noarch"
    document = {
        **one.record,
        "build_number": one.record.get("build_number", 0),
        "depends": one.record.get("depends", []),
        "subdir": subdir,
        "name": one.name,
        "version": one.version,
        "build": one.build,
        "fn": one.filename,
        "sha256": one.sha256,
        "channel": _NO_CHANNEL,
        "url": f"{_NO_CHANNEL}/{quote(subdir)}/{quote(one.filename)}",
        "files": list(paths),
    }
    return (json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def record_of(wheel: Wheel) -> bytes | None:
    """RECORD as installing writes it, where it is the same for every Python; None for a wheel with headers.

    Their folder has X.Y in its name. ``wheel`` holds INSTALLER and no RECORD yet.
    """
    if any(file.scheme == "headers" for file in wheel.files):
        return None
    made = [entry.source for entry in package(wheel, "3").entries if isinstance(entry.source, bytes)]
    return made[0]


def combine(
    packages: Sequence[Package],
    winners: Mapping[str, str] | None = None,
    *,
    case_matters: bool = True,
    link_scripts: Collection[str] = (),
) -> Tree:
    """All ``packages`` in one prefix. ``winners`` maps a path to the distribution whose file is taken.

    Equal files at one path belong to the first distribution by name. Without case (macOS) names that differ in
    case alone are one path. Raises PathOwnedTwice, HostileConda for a link that leads out of the prefix, and
    LinkScripts where a package needs to run something and is none of ``link_scripts``.
    """
    _check_scripts((one.of for one in packages), link_scripts)
    choose = winners or {}
    files: dict[str, tuple[Entry, Unpacked]] = {}
    scripts: dict[str, tuple[Launcher, Unpacked]] = {}
    # First what link scripts left: two others may bring a path that is neither's then.
    for one in sorted(
        packages, key=lambda package: (package.of.name != LINKED, package.of.name, package.of.sha256)
    ):
        wheel = one.of
        for entry in one.entries:
            held = files.setdefault(entry.path, (entry, wheel))
            if held[0] is not entry and _takes(
                entry.path, _content(held[0]), held[1], _content(entry), wheel, choose
            ):
                files[entry.path] = (entry, wheel)
        for launcher in one.launchers:
            kept = scripts.setdefault(launcher.path, (launcher, wheel))
            if kept[0] is not launcher and _takes(
                launcher.path, kept[0].meaning, kept[1], launcher.meaning, wheel, choose
            ):
                scripts[launcher.path] = (launcher, wheel)
    _settle(files, scripts, choose)
    names = {path: wheel.name for path, (_, wheel) in (*files.items(), *scripts.items())}
    _check_folders(names, case_matters=case_matters)
    if not case_matters:
        _check_case(names)
    _check_links(files)
    return Tree(
        owners=tuple((files[path][0], files[path][1].sha256) for path in sorted(files)),
        launchers=tuple((scripts[path][0], scripts[path][1].sha256) for path in sorted(scripts)),
    )


def _check_scripts(unpacked: Iterable[Unpacked], allowed: Collection[str]) -> None:
    """Guarantees that no other package needs to run something when it is linked. Raises LinkScripts."""
    wanting = [one for one in unpacked if isinstance(one, CondaPackage) and one.link_scripts]
    refused = sorted((one for one in wanting if one.name not in allowed), key=lambda one: one.name)
    if refused:
        shown = [f"{one.name} {one.version} ({script})" for one in refused for script in one.link_scripts]
        message = f"scripts of conda packages run only where they are allowed by name: {', '.join(shown)}"
        names = ", ".join(f'"{name}"' for name in sorted({*allowed, *(one.name for one in refused)}))
        hint = f"Take another build, or the library from PyPI, or allow it: link_scripts=[{names}] in @conda."
        raise LinkScripts(message, hint=hint, data={"packages": shown})


def _content(entry: Entry) -> tuple[object, ...]:
    """Equal for entries that would be equal files in one prefix."""
    return (*entry[1:3], entry.relocation)


def _takes(
    path: str,
    held: tuple[object, ...],
    holder: Unpacked,
    new: tuple[object, ...],
    wheel: Unpacked,
    winners: Mapping[str, str],
) -> bool:
    """Whether ``wheel`` takes ``path`` from its ``holder``. Raises PathOwnedTwice where nobody decides."""
    if held == new:
        return False
    winner = winners.get(path)
    if winner not in (wheel.name, holder.name):
        raise _conflict(path, holder.name, wheel.name)
    return winner == wheel.name


def _settle(
    files: dict[str, tuple[Entry, Unpacked]],
    scripts: dict[str, tuple[Launcher, Unpacked]],
    winners: Mapping[str, str],
) -> None:
    """A file and a launcher at one path: never the same content, so that only a winner decides."""
    for path in sorted(files.keys() & scripts.keys()):
        holder, wheel = files[path][1], scripts[path][1]
        if _takes(path, ("file",), holder, ("launcher",), wheel, winners):
            del files[path]
        else:
            del scripts[path]


def _conflict(path: str, *names: str) -> PathOwnedTwice:
    one, other = sorted(names)
    message = f"{one} and {other} both install {path}, with different content"
    hint = f'Drop one of them, or choose: winners = {{"{path}" = "{one}"}} in the environment\'s declaration.'
    return PathOwnedTwice(message, hint=hint, data={"path": path, "packages": [one, other]})


def _check_folders(names: Mapping[str, str], *, case_matters: bool) -> None:
    """No file or link of one distribution stands where another has a folder."""
    held = names if case_matters else {collision_key(path): names[path] for path in names}
    below: dict[str, str] = {}
    for path in names:
        folder = (path if case_matters else collision_key(path)).rpartition("/")[0]
        while folder and folder not in below:
            below[folder] = path
            folder = folder.rpartition("/")[0]
    for folder in sorted(below.keys() & held.keys()):
        raise _conflict(folder, held[folder], names[below[folder]])


def _check_links(files: Mapping[str, tuple[Entry, Unpacked]]) -> None:
    """No link leads out of the prefix, not through the links of other packages either. Raises HostileConda."""
    targets = {
        path: entry.source.decode()
        for path, (entry, _) in files.items()
        if entry.is_link and isinstance(entry.source, bytes)
    }
    for path, target in targets.items():
        if links.leaves(path, targets):
            name = files[path][1].filename
            message = f"{name}: {path!r}: a link to {target!r}, outside of the environment"
            raise HostileConda(message, data={"package": name, "member": path})


def _check_case(names: Mapping[str, str]) -> None:
    """No two paths that are one on a file system without case; equal names were settled before."""
    seen: dict[str, str] = {}
    for path in sorted(names):
        held = seen.setdefault(collision_key(path), path)
        if held != path:
            raise _conflict(path, names[held], names[path])


def _entry(file: WheelFile, folders: Mapping[str, str]) -> Entry:
    folder = folders.get(file.scheme)
    path = f"{folder}/{file.path}" if folder else file.path
    mode = EXECUTABLE_MODE if file.executable else FILE_MODE
    return Entry(path, mode, file.sha256, file.size, file.stored)


def _made(path: str, data: bytes) -> Entry:
    return Entry(path, FILE_MODE, hashlib.sha256(data).hexdigest(), len(data), data)


def _launchers(wheel: Wheel) -> tuple[Launcher, ...]:
    found = {
        f"bin/{file.path}": Launcher(f"bin/{file.path}", None, file.stored, file.sha256)
        for file in wheel.files
        if file.launcher
    }
    for point in wheel.entry_points:
        found[f"bin/{point.name}"] = Launcher(f"bin/{point.name}", point, "", "")
    return tuple(found[path] for path in sorted(found))


def _record(entries: Iterable[Entry], launchers: Iterable[Launcher], record: str, site: str) -> bytes:
    """RECORD in sorted order, paths relative to site-packages, launchers and itself without hash and size."""
    rows = [(_relative(entry.path, site), _hash(entry.sha256), str(entry.size)) for entry in entries]
    rows += [(_relative(launcher.path, site), "", "") for launcher in launchers]
    rows.append((_relative(record, site), "", ""))
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(sorted(rows))
    return stream.getvalue().encode()


def _relative(path: str, site: str) -> str:
    return path[len(site) :] if path.startswith(site) else f"../../../{path}"


def _hash(sha256: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
