"""Shared objects that an environment needs and its image will lack: found by reading, before a task fails.

The loader's rules, as far as they can be known without running anything: a library is found in the folders that
the file itself names, or because a package that the needing one depends on loads it first, or in the base.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.envs.lock import LockedConda
from flowkiln.envs.spec import normal_name
from flowkiln.images import elf
from flowkiln.images.elf import Elf
from flowkiln.images.errors import ForeignProgram
from flowkiln.images.evidence import MACHINES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.condapackage import CondaPackage
    from flowkiln.envs.lock import Locked, PlatformLock
    from flowkiln.envs.wheel import Wheel

SCHEMA = 2
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


_LINK = 0
"""The processor of a link, which may lead into another package: ELF's number for none."""
PREFIX = "$PREFIX"
"""Stands for the environment's prefix in the folders that a file names."""


class Program(NamedTuple):
    """A program or shared object of a package: ``scheme`` and ``path`` are those of its ``WheelFile``.

    Those of a ``CondaFile`` below the prefix have the scheme ``data``. Folders to search are as in the file, those
    that name the prefix with ``PREFIX`` for it.
    """

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
        if _may_be_loaded(file.scheme, file.path, file.size, executable=file.executable):
            seen = elf.of_file(stored(file.stored))
            if seen is not None:
                found.append(Program(file.scheme, file.path, seen))
    return tuple(found)


def read_conda(package: CondaPackage, stored: Callable[[str], str]) -> tuple[Program, ...]:
    """``read`` of an unpacked conda package. A link to a library counts as one of that name that needs nothing.

    Raises ``OSError``.
    """
    found = []
    for file in package.files:
        scheme = {"prefix": "data"}.get(file.place, file.place)
        if file.target:
            if ".so" in file.path:
                found.append(Program(scheme, file.path, Elf(_LINK)))
        elif _may_be_loaded(scheme, file.path, file.size, executable=file.executable):
            seen = elf.of_file(stored(file.stored))
            if seen is not None:
                search = tuple(_prefixed(folder, file.placeholder) for folder in seen.search)
                found.append(Program(scheme, file.path, seen._replace(search=search)))
    return tuple(found)


def _prefixed(folder: str, placeholder: str) -> str:
    inside = placeholder and (folder == placeholder or folder.startswith(f"{placeholder}/"))
    return PREFIX + folder.removeprefix(placeholder) if inside else folder


def _may_be_loaded(scheme: str, path: str, size: int, *, executable: bool) -> bool:
    name = path.rpartition("/")[2]
    return size >= 52 and (executable or scheme == "scripts" or ".so" in name or "." not in name)


def check(package: Locked, programs: Iterable[Program], arch: str) -> None:
    """Raises ``ForeignProgram`` for a package whose programs are all of other processors than ``arch``.

    One for any platform may bring programs for several, and one for this platform data for others.
    """
    machines = [one.elf.machine for one in programs if one.elf.machine in elf.PROCESSORS]
    if not machines or _for_any(package) or MACHINES[arch] in machines:
        return
    one = next(one for one in programs if one.elf.machine in elf.PROCESSORS)
    names = {number: name for name, number in MACHINES.items()}
    theirs = names.get(one.elf.machine, f"ELF machine {one.elf.machine}")
    message = f"{package.filename} holds {one.path}, which is for {theirs}; the image is for {arch}"
    raise ForeignProgram(message, data={"path": one.path, "machine": one.elf.machine})


def _for_any(package: Locked) -> bool:
    return package.subdir == "noarch" if isinstance(package, LockedConda) else package.filename.endswith("-any.whl")


def missing(
    part: PlatformLock, programs: Mapping[str, Sequence[Program]], base: Iterable[str]
) -> tuple[Missing, ...]:
    """The libraries that ``programs``, by the sha256 of their packages, need and nothing has, sorted by name.

    ``base`` are the names of the libraries that the base has.
    """
    machine = MACHINES[part.platform.arch]
    native = {
        one.sha256: [each for each in programs[one.sha256] if each.elf.machine in (machine, _LINK)]
        for one in part.packages
    }
    label = {one.sha256: one.name for one in part.packages}
    places = {_place(one, part.python) for found in native.values() for one in found}
    names = {name: {one.path.rpartition("/")[2] for one in found} for name, found in native.items()}
    requires = _requires(part)
    shared = _interpreters(part, native)
    there = frozenset(base)
    lacking: dict[str, set[str]] = {}
    for name, found in native.items():
        near = set().union(*(names[one] for one in _closure(name, requires))) if found else set()
        for one in found:
            for library in one.elf.needed:
                plain = library.rpartition("/")[2]
                if plain in there or plain in near or plain.startswith(DRIVERS):
                    continue
                if not any(
                    posixpath.join(folder, plain) in places for folder in (*_search(one, part.python), *shared)
                ):
                    lacking.setdefault(plain, set()).add(label[name])
    return tuple(
        Missing(library=library, package=PACKAGES.get(library), needed_by=tuple(sorted(by)))
        for library, by in sorted(lacking.items())
    )


def _requires(part: PlatformLock) -> dict[str, tuple[str, ...]]:
    """The packages that each needs directly, by sha256."""
    conda = {normal_name(one.name): one.sha256 for one in part.conda}
    brought = {name: one.sha256 for one in part.conda for name, _ in one.provides}
    wheels = {one.name: one.sha256 for one in part.wheels}
    found = {
        one.sha256: tuple({**brought, **wheels}[name] for name in one.requires if name in brought | wheels)
        for one in part.wheels
    }
    for one in part.conda:
        names = (normal_name(re.split(r"[\s=<>!~\[]", spec, maxsplit=1)[0]) for spec in one.depends)
        found[one.sha256] = tuple(conda[name] for name in names if name in conda)
    return found


def _interpreters(part: PlatformLock, native: Mapping[str, Sequence[Program]]) -> set[str]:
    """The folders that conda's own interpreter searches: for all that it loads, where they stand as RPATH."""
    python = part.own_python
    programs = native[python.sha256] if python is not None else ()
    name = f"bin/python{part.python}"
    return {folder for one in programs if _place(one, part.python) == name for folder in _search(one, part.python)}


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
        elif plain == PREFIX or plain.startswith(f"{PREFIX}/"):
            yield posixpath.normpath(plain.removeprefix(PREFIX).lstrip("/"))


def _closure(name: str, requires: Mapping[str, Sequence[str]]) -> set[str]:
    """The package with all that it depends on in this environment."""
    found: set[str] = set()
    pending = [name]
    while pending:
        one = pending.pop()
        if one not in found and one in requires:
            found.add(one)
            pending += requires[one]
    return found
