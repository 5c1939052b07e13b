"""Which files of a base say something about it, and what: programs, the C library, headers, package databases."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINES = {"amd64": 62, "arm64": 183}
"""ELF's number of an architecture."""


class Program(NamedTuple):
    """A program or library of 64 bits. ``loader`` is the path of its dynamic loader, None where it was not seen.

    ``versions`` are the texts of the form X.Y.Z in it: a Python has its own among them.
    """

    machine: int
    loader: str | None
    versions: frozenset[str]


class CLibrary(NamedTuple):
    """A glibc of 64 bits. ``version`` is (major, minor), None where it does not say."""

    machine: int
    version: tuple[int, int] | None


class Header(NamedTuple):
    """Python's ``patchlevel.h``. ``version`` is X.Y.Z of a release, None for anything else."""

    version: str | None


class Packages(NamedTuple):
    """Pythons in a package database: X.Y with X.Y.Z of a release."""

    pythons: tuple[tuple[str, str], ...]


class Reading(NamedTuple):
    """How a file is read: at most ``limit`` bytes, of which ``made`` makes what is remembered (None: nothing)."""

    limit: int
    made: Callable[[bytes], object] | None
    executable: bool = False


_SHARED = re.compile(r"(?:lib|ld-).+\.so(?:\.[0-9]+)*")
_INTERPRETER = 3
"""ELF's number of the segment that names the loader."""
_HEAD = 1 << 20
_LIBRARY = 1 << 25
_DATABASE = 1 << 26
_BANNER = re.compile(rb"GNU C Library [^\n]{0,200}release version (\d+)\.(\d+)")
_DEFINED = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\0])")
_VERSION = re.compile(rb"\0(3\.\d+\.\d+)(?=\0)")
_PATCHLEVEL = re.compile(rb'^\s*#\s*define\s+PY_VERSION\s+"(3\.\d+\.\d+)\+?"', re.MULTILINE)
_RELEASE = re.compile(r"(?:\d+:)?(3\.\d+)(\.\d+)(?![\d.]|[~]?(?:a|b|c|rc|dev)\d)")
_DEBIAN = re.compile(r"(?:lib)?python3\.\d+(?:-minimal|-stdlib)?")
_ALPINE = re.compile(r"python(?:3|-3\.\d+)(?:-base)?")


def reading(path: str) -> Reading | None:
    """How the file at ``path`` is read; None for one that says nothing."""
    folder, _, name = path.rpartition("/")
    if name in _BY_NAME:
        return _BY_NAME[name] if _BY_NAME[name].made is None or _fits(folder, name) else None
    for pattern, found in _BY_PATTERN:
        if pattern.fullmatch(name):
            return found
    return _STATUS if folder.endswith("var/lib/dpkg/status.d") else None


def is_library(name: str) -> bool:
    """Whether a file of that name may be what a program asks the loader for."""
    return _SHARED.fullmatch(name) is not None


def _fits(folder: str, name: str) -> bool:
    return name not in _FOLDERS or folder.endswith(_FOLDERS[name])


def program(data: bytes) -> Program | None:
    """The program or library that ``data`` is; None for a script and for 32 bits."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or data[4:6] != b"\x02\x01":
        return None
    (machine,) = struct.unpack_from("<H", data, 18)
    return Program(machine, _loader(data), frozenset(one.decode() for one in _VERSION.findall(data)))


def _loader(data: bytes) -> str | None:
    """The dynamic loader that an ELF file names."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        at = offset + number * size
        if at + 40 > len(data):
            break
        kind, _, where = struct.unpack_from("<IIQ", data, at)
        (length,) = struct.unpack_from("<Q", data, at + 32)
        if kind == _INTERPRETER and where + length <= len(data):
            return data[where : where + length].rstrip(b"\0").decode(errors="replace")
    return None


def c_library(data: bytes) -> CLibrary | None:
    """The glibc that ``data`` is: by what it says of itself, else by the highest version that it defines."""
    found = program(data)
    if found is None:
        return None
    banner = _BANNER.search(data)
    if banner is not None:
        return CLibrary(found.machine, (int(banner[1]), int(banner[2])))
    defined = [(int(major), int(minor)) for major, minor in _DEFINED.findall(data)]
    return CLibrary(found.machine, max(defined, default=None))


def header(data: bytes) -> Header:
    """What a ``patchlevel.h`` says."""
    found = _PATCHLEVEL.search(data)
    return Header(found[1].decode() if found else None)


def debian(data: bytes) -> Packages:
    """The Pythons among the installed packages of a dpkg database, or of a part of one."""
    return _packages(data, "Package: ", "Version: ", _DEBIAN)


def alpine(data: bytes) -> Packages:
    """The Pythons among the packages of an apk database."""
    return _packages(data, "P:", "V:", _ALPINE)


def _packages(data: bytes, name_key: str, version_key: str, wanted: re.Pattern[str]) -> Packages:
    found = {}
    for paragraph in data.decode(errors="replace").split("\n\n"):
        name = version = ""
        installed = True
        for line in paragraph.splitlines():
            if line.startswith(name_key):
                name = line[len(name_key) :].strip()
            elif line.startswith(version_key):
                version = line[len(version_key) :].strip()
            elif line.startswith("Status: "):
                installed = line.split()[-1] == "installed"
        release = _RELEASE.match(version)
        if installed and release is not None and wanted.fullmatch(name):
            found[release[1]] = release[1] + release[2]
    return Packages(tuple(sorted(found.items())))


_STATUS = Reading(_DATABASE, debian)
_PRESENT = Reading(0, None)
_BY_NAME = {
    "libc.so.6": Reading(_LIBRARY, c_library),
    "patchlevel.h": Reading(_HEAD, header),
    "status": _STATUS,
    "installed": Reading(_DATABASE, alpine),
    "os.py": _PRESENT,
    "os.pyc": _PRESENT,
}
_FOLDERS = {"status": "var/lib/dpkg", "installed": "lib/apk/db"}
_BY_PATTERN = (
    (re.compile(r"python[0-9.]*[a-z]?"), Reading(_LIBRARY, program, executable=True)),
    (re.compile(r"libpython3\.\d+\.so\.1\.0"), Reading(_LIBRARY, program)),
    (re.compile(r"libc-2\.\d+\.so"), Reading(_LIBRARY, c_library)),
    (re.compile(r"os\.cpython-3\d+\.pyc"), _PRESENT),
    (re.compile(r"ld-(?:linux|musl|2\.).*"), _PRESENT),
    (_SHARED, _PRESENT),
)
