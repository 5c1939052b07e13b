"""The Pythons that compile the bytecode of images: of this machine, of environments, in containers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from flowkiln._base.engineerrors import EngineError
from flowkiln._base.report import Silent
from flowkiln.envs.condaspec import name_of
from flowkiln.envs.installerrors import PlatformTooOld
from flowkiln.envs.interpreter import check_libc
from flowkiln.images import archive, bytecode, content, layers, places, reference
from flowkiln.images.compile_files import of_stdlib

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln._base.engine import Engine
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.describing import Describer
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.images.bytecode import Compiler, Sources
    from flowkiln.wiring.trees import Host


class Compilers:
    """Finds the interpreter of a version. ``engine`` and ``describer`` are called for when they are needed.

    ``pull`` has the engine get a base. An engine that is not there, or does not answer, has no interpreter.
    """

    def __init__(
        self,
        host: Host,
        engine: Callable[[], Engine],
        describer: Callable[[], Describer],
        pull: Callable[[str, BasePin], None],
    ) -> None:
        self._host = host
        self._engine = engine
        self._describer = describer
        self._pull = pull
        self._own: dict[str, PlatformLock] = {}

    def remember(self, lock: EnvLock) -> None:
        """Whatever environment brings a Python for this machine, it may compile for others too: by its version."""
        part = lock.on(self._host.platform)
        if part is not None and part.own_python is not None:
            with suppress(PlatformTooOld):
                check_libc(part)
                self._own.setdefault(part.own_python.version, interpreter_alone(part))

    def of_base(self, pin: BasePin, version: str) -> Compiler | None:
        """The Python of a base, or another of its version; None where there is none."""
        found = self._here(version)
        if found is None and pin.facts.interpreter is not None and version == pin.facts.python:
            image = self._image(pin)
            if image is not None:
                return bytecode.EngineCompiler(self._engine(), image, pin.facts.interpreter, version)
        return found

    def of_environment(self, pin: BasePin, part: PlatformLock, version: str) -> Compiler | None:
        """The Python that ``part`` brings, in containers of ``pin``, or another of its version; None for none."""
        found = self._here(version)
        if found is not None:
            return found
        image = self._image(pin)
        if image is None:
            return None
        path = f"{places.PREFIX}/bin/python{part.python}"
        brought = cache(lambda: self._packed(interpreter_alone(part)))
        return bytecode.EngineCompiler(self._engine(), image, path, version, brought)

    def _here(self, version: str) -> Compiler | None:
        known = [(one.path, one.version) for one in self._host.interpreters.all() if one.refusal() is None]
        found = bytecode.find_host(version, known)
        if found is None and version in self._own:
            return _TreeCompiler(self._host, self._own[version], version)
        return found

    def _image(self, pin: BasePin) -> str | None:
        """The base as the engine has it, pulled where it is missing; None where no engine can run it."""
        with suppress(EngineError):
            if self._engine().platform == str(pin.platform):
                image = str(reference.parse(pin.reference).at(pin.manifest))
                self._pull(image, pin)
                return image
        return None

    def _packed(self, part: PlatformLock) -> bytes:
        """An archive of what of ``part`` it takes to run its Python, in the place that it has in images."""
        describer = self._describer()
        described = describer.describe(part, Silent())
        everything = layers.LayerSpec(kind="packages", title="interpreter", key="sha256:", wheels=part.packages)
        found = content.package_members(everything, described, describer)
        prefix = places.PREFIX.lstrip("/") + "/"
        kept = [one for one in found if _runs(one.path.removeprefix(prefix), f"lib/python{part.python}/")]
        parts: list[bytes] = []
        archive.write(archive.complete(one for one in kept if one.kind != "folder"), parts.append)
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class _TreeCompiler:
    """The Python of an environment for this machine, in a tree of the cache that is made when it is needed."""

    host: Host
    part: PlatformLock
    version: str

    def compile(self, sources: Sources) -> dict[str, bytes]:
        """As ``Compiler.compile``; also raises the errors of installing."""
        tree = self.host.ensure([self.part], Silent())[self.part.env_id]
        return bytecode.HostCompiler(str(tree.python), self.version).compile(sources)


def interpreter_alone(part: PlatformLock) -> PlatformLock:
    """``part`` without all that its own Python does not depend on."""
    packages = {one.name: one for one in part.conda}
    found: set[str] = set()
    pending = ["python"]
    while pending:
        name = pending.pop()
        if name in packages and name not in found:
            found.add(name)
            pending += map(name_of, packages[name].depends)
    kept = tuple(one for one in part.conda if one.name in found)
    winners = tuple(pair for pair in part.winners if pair[1] in found)
    return replace(part, conda=kept, wheels=(), winners=winners, linked=None, link_scripts=())


def _runs(path: str, stdlib: str) -> bool:
    """Whether a file of an interpreter's packages is needed to compile: programs, libraries, standard library."""
    name = path.rpartition("/")[2]
    if path.startswith(stdlib):
        return of_stdlib(path.removeprefix(stdlib)) or path.endswith(".so")
    return path.startswith("bin/python") or (path.startswith("lib/") and path.count("/") == 1 and ".so" in name)
