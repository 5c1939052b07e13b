"""One wheel file -> its unpacked files and their description, verified against the lock and its RECORD."""

from __future__ import annotations

import base64
import configparser
import hashlib
import re
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING

from installer.records import InvalidRecordEntry, parse_record_file
from installer.utils import parse_entrypoints
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from flowkiln.envs import archive as archives
from flowkiln.envs import installer
from flowkiln.envs.installerrors import HostileWheel, RecordMismatch, WheelMismatch, WheelUnreadable
from flowkiln.envs.names import check_path, collision_key
from flowkiln.envs.spread import spread
from flowkiln.envs.wheel import EntryPoint, Wheel, WheelFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln.envs.archive import Archive, Member
    from flowkiln.envs.lock import LockedWheel
    from flowkiln.envs.wheel import Scheme

_NEVER_INSTALLED = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"})
_UNRECORDED = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s"})
_INTERPRETER = re.compile(r"pythonw?(\d+(\.\d+)*)?t?(\.exe)?", re.IGNORECASE)
_SHOWN = 8
_SCHEMES: dict[str, Scheme] = {
    "purelib": "site",
    "platlib": "site",
    "scripts": "scripts",
    "data": "data",
    "headers": "headers",
}
Row = tuple[str, str]
"""Hash and size of a file as RECORD writes them."""


def unpack(path: Path, locked: LockedWheel, folder: Path, *, threads: int = 2) -> Wheel:
    """Unpacks the wheel at ``path`` into ``folder`` and describes it. Its sha256 was verified by the caller.

    Files are written read-only, without those that installing replaces and without bytecode. Raises
    HostileWheel, RecordMismatch, WheelMismatch, WheelUnreadable; ``folder`` is then of no use.
    """
    with archives.opened(path, locked.filename) as archive:
        return _Unpacking(archive, locked).into(folder, threads)


class _Unpacking:
    """One wheel on its way to the disk."""

    def __init__(self, archive: Archive, locked: LockedWheel) -> None:
        self._archive = archive
        self._locked = locked
        self._by_path = {member.path: member for member in archive.members}
        self._dist_info = self._find_dist_info()
        self._data = self._dist_info.removesuffix(".dist-info") + ".data"

    def into(self, folder: Path, threads: int) -> Wheel:
        self._check_identity()
        record = self._record()
        members = [
            # Scripts are executable whatever the archive says.
            member._replace(executable=True) if member.path.startswith(f"{self._data}/scripts/") else member
            for member in self._archive.members
            if self._installed(member.path)
        ]
        for parent in sorted({member.path.rpartition("/")[0] for member in members}):
            (folder / parent).mkdir(parents=True, exist_ok=True)
        digests = self._write(members, folder, threads)
        self._check_record(record, digests)
        wheel = Wheel(
            sha256=self._locked.sha256,
            name=self._locked.name,
            version=self._locked.version,
            filename=self._locked.filename,
            dist_info=self._dist_info,
            files=tuple(self._file(member, digests[member.path]) for member in members),
            entry_points=self._entry_points(),
        )
        wheel = self._with(wheel, folder, "INSTALLER", installer.INSTALLER)
        made = installer.record_of(wheel)
        return wheel if made is None else self._with(wheel, folder, "RECORD", made)

    def _with(self, wheel: Wheel, folder: Path, name: str, data: bytes) -> Wheel:
        """``wheel`` with one more metadata file, which installing makes and every prefix shares."""
        path = f"{self._dist_info}/{name}"
        target = folder / path
        target.write_bytes(data)
        target.chmod(installer.FILE_MODE)
        made = WheelFile("site", path, path, len(data), hashlib.sha256(data).hexdigest(), False, False)
        return replace(wheel, files=tuple(sorted((*wheel.files, made), key=lambda file: file.stored)))

    def _write(self, members: list[Member], folder: Path, threads: int) -> dict[str, str]:
        """Writes ``members`` and returns their sha256 by path. zlib, sha256 and write release the interpreter."""
        root = str(folder)

        def one(member: Member) -> tuple[str, str]:
            return member.path, self._archive.write(member, Path(f"{root}/{member.path}"))

        small = sum(member.size for member in members) < 1 << 20
        largest_first = sorted(members, key=lambda member: -member.size)
        return dict(spread(one, largest_first, threads=1 if small else threads))

    def _text(self, name: str, *, needed: bool = True) -> str:
        member = self._by_path.get(f"{self._dist_info}/{name}")
        if member is None:
            if needed:
                raise WheelUnreadable(f"{self._archive.name}: has no {self._dist_info}/{name}")
            return ""
        try:
            return self._archive.read(member).decode()
        except UnicodeDecodeError as error:
            message = f"{self._archive.name}: {name} is not UTF-8"
            raise WheelUnreadable(message) from error

    # -- identity --------------------------------------------------------------------------------------------

    def _find_dist_info(self) -> str:
        found = sorted({path.partition("/")[0] for path in self._by_path})
        found = [name for name in found if name.endswith(".dist-info")]
        if len(found) != 1:
            message = f"{self._archive.name}: needs one .dist-info folder, has {found or 'none'}"
            raise WheelUnreadable(message)
        return found[0]

    def _check_identity(self) -> None:
        locked = self._locked
        self._same("file name", *_filename_identity(locked.filename))
        name, _, version = self._dist_info.removesuffix(".dist-info").partition("-")
        self._same("metadata folder", name, version)
        metadata = HeaderParser().parsestr(self._text("METADATA"))
        self._same("METADATA", metadata.get("Name", ""), metadata.get("Version", ""))
        wheel = HeaderParser().parsestr(self._text("WHEEL"))
        if wheel.get("Wheel-Version", "").partition(".")[0] != "1":
            message = f"{self._archive.name}: wheel format {wheel.get('Wheel-Version')!r} is not known (known: 1.x)"
            raise WheelUnreadable(message)

    def _same(self, where: str, name: str, version: str) -> None:
        locked = self._locked
        if canonicalize_name(name) != locked.name or not _equal_versions(version, locked.version):
            told = f"its {where} says {name} {version}, locked is {locked.name} {locked.version}"
            message = f"{self._archive.name}: {told}"
            raise WheelMismatch(message, hint=f"Lock it anew: `flowkiln env lock --upgrade {locked.name}`.")

    # -- RECORD ----------------------------------------------------------------------------------------------

    def _record(self) -> dict[str, Row]:
        try:
            rows = list(parse_record_file(self._text("RECORD").splitlines()))
        except InvalidRecordEntry as error:
            message = f"{self._archive.name}: RECORD cannot be read: {error}"
            raise RecordMismatch(message) from error
        record = {path.removeprefix("./"): (digest, size) for path, digest, size in rows}
        folder = f"{self._dist_info}/"
        unrecorded = {folder + name for name in _UNRECORDED}
        lacking = sorted(path for path in self._by_path if path not in record and path not in unrecorded)
        missing = sorted(path for path in record if path not in self._by_path and path not in unrecorded)
        problems = [f"not in RECORD: {path}" for path in lacking] + [f"only in RECORD: {path}" for path in missing]
        self._complain(problems)
        return record

    def _check_record(self, record: dict[str, Row], digests: dict[str, str]) -> None:
        problems = []
        for path, digest in digests.items():
            told, size = record[path]
            algorithm, _, value = told.partition("=")
            if algorithm != "sha256":
                # sha384 and sha512 are allowed too; md5 and sha1 are not.
                if not _other_hash_holds(algorithm, value, self._archive.read(self._by_path[path])):
                    problems.append(f"hash {told or 'missing'!s} does not hold: {path}")
            elif value.rstrip("=") != _encoded(bytes.fromhex(digest)):
                problems.append(f"another hash in RECORD: {path}")
            elif size and size != str(self._by_path[path].size):
                problems.append(f"another size in RECORD: {path}")
        self._complain(sorted(problems))

    def _complain(self, problems: list[str]) -> None:
        if problems:
            more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
            lines = "".join(f"\n  {line}" for line in problems[:_SHOWN] + more)
            raise RecordMismatch(f"{self._archive.name}: files and RECORD disagree:{lines}")

    # -- where files go --------------------------------------------------------------------------------------

    def _installed(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder == self._dist_info and name in _NEVER_INSTALLED:
            return False
        # Bytecode in a tree would never be read: PYTHONPYCACHEPREFIX points elsewhere.
        return not (name.endswith(".pyc") and folder.rpartition("/")[2] == "__pycache__")

    def _file(self, member: Member, sha256: str) -> WheelFile:
        top, _, rest = member.path.partition("/")
        if top != self._data:
            self._check_top(top, member)
            return WheelFile("site", member.path, member.path, member.size, sha256, member.executable, False)
        key, _, path = rest.partition("/")
        if key not in _SCHEMES or not path:
            raise self._refuse(member.path, f"unknown data folder {key!r}")
        scheme = _SCHEMES[key]
        self._check_claims(scheme, path, member)
        launcher = scheme == "scripts" and next(self._archive.blocks(member), b"").startswith(b"#!python")
        return WheelFile(scheme, path, member.path, member.size, sha256, member.executable, launcher)

    def _check_top(self, top: str, member: Member) -> None:
        if top.endswith(".data"):
            raise self._refuse(member.path, "the data folder of another distribution")

    def _check_claims(self, scheme: Scheme, path: str, member: Member) -> None:
        """Refuses files that would replace what makes the prefix a Python environment."""
        if scheme == "scripts":
            path = f"bin/{path}"
        elif scheme != "data":
            return
        folded = collision_key(path)
        top, _, rest = folded.partition("/")
        claims = (
            folded == "pyvenv.cfg"
            or top in (".flowkiln", "lib64")
            or (top == "bin" and _INTERPRETER.fullmatch(rest))
            or (top == "lib" and rest.endswith("/externally-managed") and rest.count("/") == 1)
        )
        if claims:
            raise self._refuse(member.path, f"claims {path}, which belongs to the environment")

    def _refuse(self, path: str, reason: str) -> HostileWheel:
        name = self._archive.name
        return HostileWheel(f"{name}: {path!r}: {reason}", data={"wheel": name, "member": path})

    def _entry_points(self) -> tuple[EntryPoint, ...]:
        text = self._text("entry_points.txt", needed=False)
        try:
            found = [EntryPoint(name, module, attr, kind == "gui") for name, module, attr, kind in _entries(text)]
        except (configparser.Error, AssertionError, AttributeError) as error:
            message = f"{self._archive.name}: entry_points.txt cannot be read: {error}"
            raise WheelUnreadable(message) from error
        for point in found:
            check_path(point.name, lambda reason: self._refuse("entry_points.txt", reason))
            if "/" in point.name or _INTERPRETER.fullmatch(point.name):
                raise self._refuse("entry_points.txt", f"a script may not be called {point.name!r}")
        unique = {point.name: point for point in sorted(found)}
        return tuple(unique[name] for name in sorted(unique))


def _entries(text: str) -> Iterable[tuple[str, str, str, str]]:
    yield from parse_entrypoints(text)


def _filename_identity(filename: str) -> tuple[str, str]:
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion) as error:
        message = f"{filename}: not a wheel's file name: {error}"
        raise WheelMismatch(message) from error
    return name, str(version)


def _equal_versions(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return False


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _other_hash_holds(algorithm: str, value: str, data: bytes) -> bool:
    if algorithm not in ("sha384", "sha512"):
        return False
    return _encoded(hashlib.new(algorithm, data).digest()) == value.rstrip("=")
