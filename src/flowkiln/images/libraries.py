"""Shared objects that an environment needs and its image will lack: found by reading, before a task fails.

The loader's rules, as far as they can be known without running anything: a library is found in the folders that
the file itself names, or because a package that the needing one depends on loads it first, or in the base.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.images import elf
from flowkiln.images.elf import Elf
from flowkiln.images.errors import ForeignProgram
from flowkiln.images.evidence import MACHINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import LockedWheel, PlatformLock
    from flowkiln.envs.wheel import Wheel, WheelFile

SCHEMA = 1
PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLU.so.1": "libglu1-mesa",
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libasound.so.2": "libasound2",
    "libatomic.so.1": "libatomic1",
    "libblas.so.3": "libblas3",
    "libcairo.so.2": "libcairo2",
    "libcurl.so.4": "libcurl4",
    "libdbus-1.so.3": "libdbus-1-3",
    "libexpat.so.1": "libexpat1",
    "libffi.so.8": "libffi8",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libgfortran.so.5": "libgfortran5",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgobject-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "liblapack.so.3": "liblapack3",
    "libltdl.so.7": "libltdl7",
    "libmariadb.so.3": "libmariadb3",
    "libnuma.so.1": "libnuma1",
    "libodbc.so.2": "libodbc2",
    "libopenblas.so.0": "libopenblas0",
    "libpango-1.0.so.0": "libpango-1.0-0",
    "libportaudio.so.2": "libportaudio2",
    "libpq.so.5": "libpq5",
    "libpython3.11.so.1.0": "libpython3.11",
    "libpython3.13.so.1.0": "libpython3.13",
    "librdmacm.so.1": "librdmacm1",
    "libsndfile.so.1": "libsndfile1",
    "libspatialindex.so.6": "libspatialindex6",
    "libssl.so.3": "libssl3",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
    "libtbb.so.12": "libtbb12",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libxcb.so.1": "libxcb1",
    "libxml2.so.2": "libxml2",
    "libz.so.1": "zlib1g",
}
"""Debian's package of a library that slim bases lack."""
DRIVERS = ("libcuda.so", "libnvidia-", "libnvcuvid.so", "libnvoptix.so")
"""Begins of names that the container runtime brings in from the machine, with the driver."""


class Program(NamedTuple):
    """A program or shared object of a wheel: ``scheme`` and ``path`` are those of its ``WheelFile``."""

    scheme: str
    path: str
    elf: Elf

    def to_json(self) -> list[object]:
        """As it is kept, the inverse of ``from_json``."""
        return [self.scheme, self.path, self.elf.machine, list(self.elf.needed), list(self.elf.search)]

    @classmethod
    def from_json(cls, row: Sequence[object]) -> Program:
        """What ``to_json`` kept. Raises ``ValueError`` and ``TypeError`` for anything else."""
        scheme, path, machine, needed, search = row
        if type(machine) is not int or not isinstance(needed, list) or not isinstance(search, list):
            message = f"{row!r} is no program"
            raise ValueError(message)
        found = Elf(machine, tuple(map(str, needed)), tuple(map(str, search)))
        return cls(str(scheme), str(path), found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A library that nothing has. ``package`` is Debian's, None where it is not known here.

    ``needed_by`` are the names of the distributions that need it, sorted.
    """

    library: str
    package: str | None
    needed_by: tuple[str, ...]

    def to_json(self) -> JSONObject:
        """As ``bake --json`` shows it."""
        return {"library": self.library, "package": self.package, "needed_by": list(self.needed_by)}

    @classmethod
    def from_json(cls, row: JSONObject) -> Missing:
        """The value that ``to_json`` wrote. Raises ``KeyError`` or ``TypeError`` for anything else."""
        return cls(library=row["library"], package=row["package"], needed_by=tuple(row["needed_by"]))


def read(wheel: Wheel, stored: Callable[[str], str]) -> tuple[Program, ...]:
    """The programs and shared objects of an unpacked wheel; ``stored`` gives the path of a stored file.

    Raises ``OSError``.
    """
    found = []
    for file in wheel.files:
        if _may_be_loaded(file):
            seen = elf.of_file(stored(file.stored))
            if seen is not None:
                found.append(Program(file.scheme, file.path, seen))
    return tuple(found)


def _may_be_loaded(file: WheelFile) -> bool:
    name = file.path.rpartition("/")[2]
    return file.size >= 52 and (file.executable or file.scheme == "scripts" or ".so" in name or "." not in name)


def check(wheel: LockedWheel, programs: Iterable[Program], arch: str) -> None:
    """Raises ``ForeignProgram`` for a wheel whose programs are all of other processors than ``arch``.

    A wheel for any platform may bring programs for several, and one for this platform data for others.
    """
    machines = [one.elf.machine for one in programs if one.elf.machine in elf.PROCESSORS]
    if not machines or wheel.filename.endswith("-any.whl") or MACHINES[arch] in machines:
        return
    one = next(one for one in programs if one.elf.machine in elf.PROCESSORS)
    names = {number: name for name, number in MACHINES.items()}
    theirs = names.get(one.elf.machine, f"ELF machine {one.elf.machine}")
    message = f"{wheel.filename} holds {one.path}, which is for {theirs}; the image is for {arch}"
    raise ForeignProgram(message, data={"path": one.path, "machine": one.elf.machine})


def missing(
    part: PlatformLock, programs: Mapping[str, Sequence[Program]], base: Iterable[str]
) -> tuple[Missing, ...]:
    """The libraries that ``programs``, by the sha256 of their wheels, need and nothing has, sorted by name.

    ``base`` are the names of the libraries that the base has.
    """
    machine = MACHINES[part.platform.arch]
    native = {
        wheel.name: [one for one in programs[wheel.sha256] if one.elf.machine == machine] for wheel in part.wheels
    }
    places = {_place(one, part.python) for found in native.values() for one in found}
    names = {name: {one.path.rpartition("/")[2] for one in found} for name, found in native.items()}
    requires = {wheel.name: wheel.requires for wheel in part.wheels}
    there = frozenset(base)
    lacking: dict[str, set[str]] = {}
    for name, found in native.items():
        near = set().union(*(names[one] for one in _closure(name, requires))) if found else set()
        for one in found:
            for library in one.elf.needed:
                plain = library.rpartition("/")[2]
                if plain in there or plain in near or plain.startswith(DRIVERS):
                    continue
                if not any(posixpath.join(folder, plain) in places for folder in _search(one, part.python)):
                    lacking.setdefault(plain, set()).add(name)
    return tuple(
        Missing(library=library, package=PACKAGES.get(library), needed_by=tuple(sorted(by)))
        for library, by in sorted(lacking.items())
    )


def _place(one: Program, python: str) -> str:
    folders = {"site": f"lib/python{python}/site-packages", "scripts": "bin", "data": ""}
    return posixpath.normpath(posixpath.join(folders.get(one.scheme, one.scheme), one.path))


def _search(one: Program, python: str) -> Iterable[str]:
    """The folders in which the loader looks for what a file needs, relative to the prefix."""
    origin = _place(one, python).rpartition("/")[0]
    for folder in one.elf.search:
        plain = folder.replace("${ORIGIN}", "$ORIGIN")
        if plain.startswith("$ORIGIN"):
            yield posixpath.normpath(f"{origin}/{plain.removeprefix('$ORIGIN')}")


def _closure(name: str, requires: Mapping[str, Sequence[str]]) -> set[str]:
    """The distribution with all that it depends on in this environment."""
    found: set[str] = set()
    pending = [name]
    while pending:
        one = pending.pop()
        if one not in found and one in requires:
            found.add(one)
            pending += requires[one]
    return found
