"""Bytecode for images: compiled by exactly the Python that will read it, on this machine or in the base.

A ``.pyc`` file of an image is a function of the source's final path, its content and the compiler's ``X.Y.Z``
(``compile_files`` sees to that), and is loaded without a look at the source (PEP 552, unchecked). So neither the
machine, nor the grouping of files into calls, moves a layer's digest.
"""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flowkiln._base import command
from flowkiln.images import archive, compile_files
from flowkiln.images.errors import CompilerFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.json import JSONObject

    Sources = Sequence[tuple[str, str | Path | bytes]]

_SCRIPT = Path(compile_files.__file__)
_LIMITS = command.Limits(total=3600.0, stall=3600.0)
_FOLDER = "flowkiln-compile"
_LABELS = {"io.flowkiln.kind": "compiler"}

__all__ = ["Compiler", "Containers", "EngineCompiler", "HostCompiler", "find_host", "pyc_path"]


class Compiler(Protocol):
    """An interpreter of exactly ``version``, somewhere. Safe to use from several threads."""

    @property
    def version(self) -> str:
        """``X.Y.Z``."""

    def compile(self, sources: Sources) -> dict[str, bytes]:
        """The ``.pyc`` files of ``sources``, (final absolute path, content or a file that holds it), by path.

        Files that do not compile have none. Each call is a process of its own. Raises ``CompilerFailed``.
        """


def pyc_path(source: str, cache_tag: str) -> str:
    """Where Python looks for the bytecode of ``source`` below its ``pycache_prefix``, with a leading slash."""
    stem, _, _ = source.rpartition(".")
    return f"{stem}.{cache_tag}.pyc"


@dataclass(frozen=True, slots=True)
class HostCompiler:
    """An interpreter of this machine: ``path`` is its executable."""

    path: str
    version: str

    def compile(self, sources: Sources) -> dict[str, bytes]:
        """As ``Compiler.compile``; also raises ``OSError`` for a source that cannot be read."""
        finished = command.run(
            [self.path, *compile_files.SWITCHES, _SCRIPT],
            environment=compile_files.environment(dict(os.environ)),
            folder=Path("/"),
            limits=_LIMITS,
            given=_request(sources),
        )
        if finished.code != 0:
            message = f"{self.path} could not compile (exit code {finished.code}): {_last(finished.stderr)}"
            raise CompilerFailed(message)
        return _answer(finished.output, self.version, self.path)


def find_host(version: str, candidates: Iterable[tuple[str, str]]) -> HostCompiler | None:
    """The first of ``candidates``, (path, ``X.Y.Z``), that is exactly ``version``."""
    return next((HostCompiler(path, found) for path, found in candidates if found == version), None)


class Containers(Protocol):
    """What of a container engine is needed here."""

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str:
        """The id of a new container."""

    def start(self, container: str) -> None:
        """The container runs, or has run."""

    def wait(self, container: str) -> int:
        """The exit code of the container, when it has ended."""

    def logs(self, container: str, *, follow: bool) -> Iterable[tuple[str, bytes]]:
        """What the container wrote."""

    def put_archive(self, container: str, path: str, data: bytes) -> None:
        """The tar ``data`` is unpacked in ``path``."""

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A tar of ``path``, in pieces."""

    def remove(self, container: str) -> bool:
        """The container is gone."""


@dataclass(frozen=True, slots=True)
class EngineCompiler:
    """The interpreter ``path`` of a base image, in containers without network and mounts, as root.

    The engine has ``image`` already and runs its platform. Nothing but the two archives goes in and out, and before
    them the one that ``brought`` makes, where the interpreter is none of the image's own.
    """

    engine: Containers
    image: str
    path: str
    version: str
    brought: Callable[[], bytes] | None = None

    def compile(self, sources: Sources) -> dict[str, bytes]:
        """As ``Compiler.compile``; also raises the engine's errors."""
        name = f"flowkiln-compile-{secrets.token_hex(6)}"
        container = self.engine.create(name, self._spec())
        try:
            if self.brought is not None:
                self.engine.put_archive(container, "/", self.brought())
            self.engine.put_archive(container, "/", _packed(_request(sources)))
            self.engine.start(container)
            code = self.engine.wait(container)
            if code != 0:
                told = b"".join(data for _, data in self.engine.logs(container, follow=False))
                last = _last(told.decode(errors="replace"))
                message = f"{self.path} of {self.image} could not compile (exit code {code}): {last}"
                raise CompilerFailed(message)
            made = _unpacked(self.engine.get_archive(container, f"/{_FOLDER}/answer"))
        finally:
            self.engine.remove(container)
        return _answer(made, self.version, f"{self.path} of {self.image}")

    def _spec(self) -> JSONObject:
        own = [f"/{_FOLDER}/{name}" for name in (_SCRIPT.name, "request", "answer")]
        return {
            "Image": self.image,
            "Entrypoint": [self.path],
            "Cmd": ["-I", "-S", "-B", *own],
            "User": "0:0",
            "WorkingDir": "/",
            "Labels": dict(_LABELS),
            "NetworkDisabled": True,
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {"NetworkMode": "none"},
        }


def _request(sources: Sources) -> bytes:
    parts = []
    for path, source in sorted(sources, key=lambda one: one[0]):
        parts.append(compile_files.frame(path, source if isinstance(source, bytes) else Path(source).read_bytes()))
    return b"".join(parts)


def _answer(data: bytes, version: str, where: str) -> dict[str, bytes]:
    """The files of an answer. Raises ``CompilerFailed`` where it is cut off or of another Python."""
    try:
        (who, _), *made = compile_files.frames(data)
    except ValueError as error:
        message = f"{where} broke off while compiling: {error}"
        raise CompilerFailed(message) from error
    if who != f"cpython {version}":
        message = f"{where} is {who}, and was to be cpython {version}"
        raise CompilerFailed(message)
    return dict(made)


def _packed(request: bytes) -> bytes:
    """An archive of a folder with the script and the request."""
    files: Mapping[str, bytes] = {_SCRIPT.name: _SCRIPT.read_bytes(), "request": request}
    parts: list[bytes] = []
    members = archive.complete(archive.made(f"{_FOLDER}/{name}", data) for name, data in files.items())
    archive.write(members, parts.append)
    return b"".join(parts)


def _unpacked(pieces: Iterator[bytes]) -> bytes:
    """The one file of an archive. Raises ``CompilerFailed`` where there is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as found:
            file = found.extractfile(found.getmembers()[0])
            data = file.read() if file is not None else b""
    except (tarfile.TarError, IndexError) as error:
        message = f"the engine's archive of the compiled files cannot be read: {error}"
        raise CompilerFailed(message) from error
    return data


def _last(text: str) -> str:
    """The last line of what a process said."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
