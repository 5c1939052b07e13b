"""What a base image is, read from its config and its layers as they stream by; nothing of it runs.

``survey`` reads all that an image says, once; ``Survey.facts`` are the facts for the Python that is wanted.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flowkiln.envs.basepin import BaseFacts
from flowkiln.images import evidence
from flowkiln.images.decompress import decompressed
from flowkiln.images.errors import BaseUnreadable, BaseVersionUnknown
from flowkiln.images.evidence import CLibrary, Header, Packages, Program
from flowkiln.images.rootfs import File, RootFS, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.basepin import Libc
    from flowkiln.images.evidence import Reading

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAM = re.compile(r"python3\.(\d+)")
_VERSION = re.compile(r"3\.\d+\.\d+")
_LOADERS = {
    "amd64": ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"),
    "arm64": ("/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-aarch64.so.1"),
}
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_DATABASES = ("/var/lib/dpkg/status", "/lib/apk/db/installed", "/usr/lib/apk/db/installed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A C library: which, and the version of glibc as (major, minor) where it is known."""

    libc: Libc
    glibc: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """An interpreter of a base. ``python`` is X.Y, ``version`` X.Y.Z or None where nothing says it."""

    python: str
    version: str | None
    interpreter: str
    runtime: Runtime
    stdlib: str | None
    stdlib_bytecode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that was read of a base. ``pythons`` come in the order of preference.

    ``libraries`` are the names of its shared objects, sorted.
    """

    pythons: tuple[Python, ...]
    runtime: Runtime
    path: str
    user: str
    entrypoint: tuple[str, ...]
    libraries: tuple[str, ...]

    def facts(self, python: str | None = None, *, name: str = "the base") -> BaseFacts:
        """The facts with the interpreter for ``python``, X.Y or X.Y.Z, or the preferred one where there is none.

        X.Y.Z serves as the version where the base does not say it. Raises ``BaseVersionUnknown`` when neither does.
        """
        wanted = ".".join((python or "").split(".")[:2])
        fitting = [one for one in self.pythons if one.python == wanted]
        chosen = next(iter([*fitting, *self.pythons]), None)
        if chosen is None:
            return self._facts(BaseFacts(), self.runtime)
        version = chosen.version
        if version is None and fitting and python is not None and _VERSION.fullmatch(python):
            version = python
        if version is None:
            message = f"{name} has {chosen.interpreter}, and nothing says which release {chosen.python}.Z it is"
            raise BaseVersionUnknown(message)
        found = BaseFacts(
            python=version,
            interpreter=chosen.interpreter,
            stdlib=chosen.stdlib,
            stdlib_bytecode=chosen.stdlib_bytecode,
        )
        return self._facts(found, chosen.runtime)

    def _facts(self, python: BaseFacts, runtime: Runtime) -> BaseFacts:
        return BaseFacts(
            python=python.python,
            interpreter=python.interpreter,
            libc=runtime.libc,
            glibc=runtime.glibc,
            path=self.path,
            user=self.user,
            entrypoint=self.entrypoint,
            stdlib=python.stdlib,
            stdlib_bytecode=python.stdlib_bytecode,
        )

    def to_json(self) -> JSONObject:
        """As it is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: JSONObject) -> Survey:
        """What ``to_json`` kept. Raises ``KeyError``, ``TypeError`` and ``ValueError`` for anything else."""
        pythons = tuple(Python(**{**one, "runtime": _runtime(one["runtime"])}) for one in document["pythons"])
        rest = {"runtime": _runtime(document["runtime"]), "entrypoint": tuple(document["entrypoint"])}
        rest["libraries"] = tuple(document["libraries"])
        return cls(**{**document, **rest, "pythons": pythons})


def _runtime(document: dict[str, Any]) -> Runtime:
    glibc = document["glibc"]
    return Runtime(libc=document["libc"], glibc=None if glibc is None else (int(glibc[0]), int(glibc[1])))


def survey(
    config: JSONObject, layers: Iterable[Callable[[], Iterator[bytes]]], *, name: str = "the base"
) -> Survey:
    """All that the config and the layers of an image say; the lowest layer first, compressed as they may be.

    Raises ``BaseUnreadable`` and what the layers raise.
    """
    files = RootFS()
    for number, opened in enumerate(layers, 1):
        files.next_layer()
        try:
            add_layer(files, opened(), evidence.reading)
        except (tarfile.TarError, ValueError) as error:
            message = f"layer {number} of {name} is no archive of files: {error}"
            raise BaseUnreadable(message) from error
    return _Image(files, config).survey()


def add_layer(files: RootFS, chunks: Iterator[bytes], reading: Callable[[str], Reading | None]) -> None:
    """Puts a layer on ``files``, to the last byte: what lies behind the archive belongs to the layer's digest.

    ``reading`` says what of a path is remembered. Raises ``tarfile.TarError`` and ``ValueError``.
    """
    for archive, member in members(decompressed(chunks)):
        if not files.enter(member):
            _file(files, archive, member, reading(member.name) if member.isreg() else None)


def _file(files: RootFS, archive: tarfile.TarFile, member: tarfile.TarInfo, reading: Reading | None) -> None:
    path = member.name
    if reading is None or (reading.executable and not member.mode & 0o111):
        files.put_other(path)
    elif reading.made is None:
        files.put_file(path)
    else:
        content = archive.extractfile(member)
        size = min(reading.limit, member.size)  # a buffer of that size is made, whatever there is to read
        files.put_file(path, reading.made(content.read(size) if content is not None else b""))


class _Image:
    """The files and the config of an image, and what they say together."""

    def __init__(self, files: RootFS, config: JSONObject) -> None:
        inner = config.get("config") or {}
        variables = dict(str(one).partition("=")[::2] for one in inner.get("Env") or ())
        self._files = files
        self._arch = str(config.get("architecture") or "")
        self._machine = evidence.MACHINES.get(self._arch)
        self._inner = inner
        self._path = _clean(variables.get("PATH", ""))
        self._declared = variables.get("PYTHON_VERSION", "")

    def survey(self) -> Survey:
        return Survey(
            pythons=tuple(self._pythons()),
            runtime=self._runtime(None),
            path=self._path,
            user=_clean(str(self._inner.get("User") or "")).removesuffix(":"),
            entrypoint=tuple(_clean(str(word)) for word in self._inner.get("Entrypoint") or ()),
            libraries=tuple(sorted({_clean(name) for name in self._files.every() if evidence.is_library(name)})),
        )

    def _content(self, path: str) -> object:
        found = self._files.find(path)
        return found[1].content if found is not None and isinstance(found[1], File) else None

    def _present(self, path: str) -> bool:
        found = self._files.find(path)
        return found is not None and isinstance(found[1], File)

    # -- interpreters ------------------------------------------------------------------------------------------

    def _pythons(self) -> Iterator[Python]:
        """The interpreters by folder, and in a folder first what ``python3`` is, then from the newest down."""
        seen: set[str] = set()
        for folder in dict.fromkeys(["/usr/local/bin", "/usr/bin", *(self._path or _PATH).split(":")]):
            names = [name for name in self._files.names(folder) if _PROGRAM.fullmatch(name)]
            usual = self._files.find(f"{folder}/python3")
            ranked = sorted(
                names,
                key=lambda name: (self._files.find(f"{folder}/{name}") != usual, -int(name.partition(".")[2])),
            )
            for name in ranked:
                found = self._python(f"{folder}/{name}", name.removeprefix("python"))
                if found is not None and found.python not in seen:
                    seen.add(found.python)
                    yield found

    def _python(self, path: str, python: str) -> Python | None:
        found = self._files.find(path)
        program = self._content(path)
        if found is None or not isinstance(program, Program) or program.machine != self._machine:
            return None
        interpreter = found[0]
        own = interpreter.rpartition("/")[2]
        if own[-1].isalpha() and _PROGRAM.match(own):  # python3.13t: a build without the GIL, or for debugging
            return None
        prefix = interpreter.rpartition("/")[0].rpartition("/")[0]
        stdlib, bytecode = self._stdlib(prefix, python)
        return Python(
            python=python,
            version=self._version(prefix, python, program),
            interpreter=interpreter,
            runtime=self._runtime(program.loader),
            stdlib=stdlib,
            stdlib_bytecode=bytecode,
        )

    def _version(self, prefix: str, python: str, program: Program) -> str | None:
        """X.Y.Z by the config, else by the package database for what it installs, by the header, by the program."""
        if _VERSION.fullmatch(self._declared) and self._declared.rpartition(".")[0] == python:
            return self._declared
        if prefix == "/usr":
            for path in self._databases():
                packages = self._content(path)
                if isinstance(packages, Packages) and python in dict(packages.pythons):
                    return dict(packages.pythons)[python]
        header = self._content(f"{prefix}/include/python{python}/patchlevel.h")
        version = header.version if isinstance(header, Header) else None
        if version is not None and version.rpartition(".")[0] == python:
            return version
        return self._compiled(prefix, python, program)

    def _compiled(self, prefix: str, python: str, program: Program) -> str | None:
        """The one X.Y.Z that stands in the program, or in the library that has most of it; None for several."""
        triplet = _TRIPLETS.get(self._arch, "")
        for folder in ("", f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/lib/{triplet}"):
            found = self._content(f"{folder}/libpython{python}.so.1.0") if folder else program
            if isinstance(found, Program) and found.machine == self._machine:
                versions = [one for one in found.versions if one.rpartition(".")[0] == python]
                if versions:
                    return versions[0] if len(versions) == 1 else None
        return None

    def _databases(self) -> Iterator[str]:
        yield from _DATABASES
        parts = "/var/lib/dpkg/status.d"
        yield from (f"{parts}/{name}" for name in self._files.names(parts))

    def _stdlib(self, prefix: str, python: str) -> tuple[str | None, bool]:
        """The folder of the standard library, and whether there is bytecode in it."""
        for lib in ("lib", "lib64"):
            folder = f"{prefix}/{lib}/python{python}"
            tag = python.replace(".", "")
            bytecode = self._present(f"{folder}/__pycache__/os.cpython-{tag}.pyc")
            if self._present(f"{folder}/os.py"):
                return folder, bytecode
            if self._present(f"{folder}/os.pyc"):
                return folder, True
        return None, False

    # -- the C library -----------------------------------------------------------------------------------------

    def _runtime(self, loader: str | None) -> Runtime:
        """The C library that programs with ``loader`` use, None for those of the system."""
        glibc, musl = _LOADERS.get(self._arch, ("", ""))
        if loader is not None and "/ld-musl-" in loader:
            return Runtime(libc="musl", glibc=None)
        version = self._glibc(loader or glibc)
        if loader is None and version is None:
            if self._present(musl):
                return Runtime(libc="musl", glibc=None)
            if not self._present(glibc):
                return Runtime(libc="none", glibc=None)
        return Runtime(libc="glibc", glibc=version)

    def _glibc(self, loader: str) -> tuple[int, int] | None:
        """The version of the glibc beside ``loader``, else of one in the usual folders."""
        found = self._files.find(loader)
        folders = [] if found is None else [found[0].rpartition("/")[0]]
        triplet = _TRIPLETS.get(self._arch, "")
        folders += [f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
        for folder in folders:
            library = self._content(f"{folder}/libc.so.6")
            if isinstance(library, CLibrary) and library.machine == self._machine:
                return library.version
        return None


def _clean(text: str) -> str:
    """``text`` without lone surrogates, which JSON can hold and files cannot."""
    return text.encode(errors="replace").decode()
