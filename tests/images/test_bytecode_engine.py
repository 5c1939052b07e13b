"""Bytecode compiled in a container of the base is what this machine's interpreter of that version compiles."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.endpoints import Endpoint
from flowkiln._base.engine import Engine
from flowkiln._base.engineerrors import EngineRefused
from flowkiln.images import compile_files
from flowkiln.images.bytecode import EngineCompiler
from flowkiln.images.compile_files import of_stdlib
from flowkiln.images.errors import CompilerFailed
from tests import stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject

pytestmark = pytest.mark.e2e

PYTHON = "/usr/local/bin/python3.11"
STDLIB = "/usr/local/lib/python3.11"
COMPILERS = {"io.flowkiln.kind": "compiler"}


class Recorded(Engine):
    """An engine that remembers what it was asked to create."""

    specs: list[JSONObject]

    def create(self, name: str, spec: JSONObject, *, platform: str | None = None) -> str:
        self.specs = [*getattr(self, "specs", []), spec]
        return super().create(name, spec, platform=platform)


@pytest.fixture(scope="module")
def image() -> str:
    return stack.base("slim-python:3.11")


@pytest.fixture(scope="module")
def engine(image: str) -> Iterator[Recorded]:
    found = Recorded(Endpoint(stack.engine("overlay2").host, "test"))
    found.pull(image)
    yield found
    assert found.containers(labels=COMPILERS) == []
    found.close()


@pytest.fixture(scope="module")
def version(engine: Engine, image: str) -> str:
    told = engine.image(image)
    assert told is not None
    (found,) = [line for line in told["Config"]["Env"] if line.startswith("PYTHON_VERSION=")]
    return str(found.partition("=")[2])


def library(engine: Engine, image: str) -> dict[str, bytes]:
    """The sources of the base's standard library."""
    container = engine.create("", {"Image": image})
    try:
        data = b"".join(engine.get_archive(container, STDLIB))
    finally:
        engine.remove(container)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            file = archive.extractfile(member) if member.isreg() and of_stdlib(path) else None
            if file is not None:
                found[f"{STDLIB}/{path}"] = file.read()
    return found


def test_the_library_of_the_base_is_compiled_without_network_or_mounts(
    engine: Recorded, image: str, version: str
) -> None:
    sources = library(engine, image)
    made = EngineCompiler(engine, image, PYTHON, version).compile(list(sources.items()))
    assert len(sources) > 300
    assert set(made) == set(sources)
    spec = engine.specs[-1]
    assert spec["NetworkDisabled"]
    assert "Mounts" not in spec
    assert spec["HostConfig"] == {"NetworkMode": "none"}


def test_bases_of_one_python_give_one_bytecode(engine: Engine, image: str, version: str) -> None:
    """The other base has a user, an entrypoint and its Python elsewhere."""
    other = stack.base("distroless-python:3.11")
    engine.pull(other)
    source = b"class A:\n    class B:\n        x = 'p' in {'p', 'q.r'}\n        def f(self, key=1.5): return key\n"
    sources = [("/opt/env/a.py", source), ("/opt/env/b.py", b"print 1"), ("/opt/env/c.py", b"")]
    made = EngineCompiler(engine, image, PYTHON, version).compile(sources)
    assert set(made) == {"/opt/env/a.py", "/opt/env/c.py"}
    assert EngineCompiler(engine, other, "/usr/bin/python3.11", version).compile(sources) == made


def test_another_version_than_promised(engine: Engine, image: str, version: str) -> None:
    with pytest.raises(CompilerFailed, match=rf"python3\.11 of .* is cpython {version}, and was to be"):
        EngineCompiler(engine, image, PYTHON, "3.11.999").compile([("/a.py", b"")])


def test_no_such_interpreter(engine: Engine, image: str, version: str) -> None:
    with pytest.raises(EngineRefused, match=r"python3\.12"):
        EngineCompiler(engine, image, "/usr/local/bin/python3.12", version).compile([("/a.py", b"")])


def test_a_process_that_fails_says_why(
    engine: Engine, image: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_files, "frame", lambda path, data: b"\xff" * 9)
    with pytest.raises(CompilerFailed, match=r"exit code 1\): ValueError: the last file is cut off"):
        EngineCompiler(engine, image, PYTHON, version).compile([("/a.py", b"")])
