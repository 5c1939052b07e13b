"""The Python of an environment compiles alike on this machine and in a container of the image's base."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from flowkiln._base.endpoints import Endpoint
from flowkiln._base.engine import Engine
from flowkiln.envs.basepin import BaseFacts, BasePin
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.envs.lock import LockedConda
from flowkiln.images.bytecode import EngineCompiler, HostCompiler
from flowkiln.wiring.compilers import Compilers, interpreter_alone
from tests import stack
from tests.envs.condatrees import AMD64, materialise, part, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowkiln.wiring.trees import Host
    from tests.services.channel import Channel

SOURCES = [
    ("/opt/env/lib/python3.11/one.py", b"class A:\n    def a(self):\n        return {1, 'x'}\n"),
    ("/opt/env/lib/python3.11/site-packages/two.py", b"import os\nname = os.name\n"),
    ("/opt/env/lib/python3.11/none.py", b"def ("),
]
BARE = cast("Host", SimpleNamespace(interpreters=SimpleNamespace(all=list), platform=AMD64))
"""A machine without a Python."""


def conda(name: str, *depends: str) -> LockedConda:
    return LockedConda(
        name=name,
        version="1",
        build="0",
        depends=depends,
        filename=f"{name}-1-0.conda",
        url=f"https://x.test/linux-64/{name}-1-0.conda",
        sha256="0" * 64,
    )


def test_an_interpreter_alone_is_what_it_depends_on() -> None:
    everything = part(
        conda("python", "libffi >=3", "tzdata", "__glibc >=2.17"),
        conda("libffi", "main::libgcc"),
        conda("libgcc"),
        conda("tzdata", "python"),
        conda("numpy", "python", "libblas"),
        conda("libblas"),
    )
    everything = replace(everything, winners=(("bin/a", "numpy"), ("bin/b", "libffi")))
    found = interpreter_alone(everything)
    assert [one.name for one in found.conda] == ["python", "libffi", "libgcc", "tzdata"]
    assert found.winners == (("bin/b", "libffi"),)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    found = Engine(Endpoint(stack.engine("overlay2").host, "test"))
    yield found
    found.close()


@pytest.mark.e2e
def test_a_container_compiles_as_a_tree_does(conda_channel: Channel, engine: Engine, tmp_path: Path) -> None:
    base = stack.base("slim-python:3.11")
    engine.pull(base)
    told: dict[str, Any] = engine.image(base) or {}
    manifest = next(one for one in told["RepoDigests"]).partition("@")[2]
    pin = BasePin(reference=base, platform=AMD64, manifest=manifest, config=manifest, facts=BaseFacts())
    own = python(conda_channel)
    locked = part(own)
    describer = Describer(tmp_path, Fetcher())
    found = Compilers(BARE, lambda: engine, lambda: describer, lambda image, _: engine.pull(image))
    compiler = found.of_environment(pin, locked, own.version)
    assert isinstance(compiler, EngineCompiler)
    made = compiler.compile(SOURCES)
    assert set(made) == {path for path, _ in SOURCES[:2]}
    assert made == HostCompiler(str(materialise(tmp_path, locked).python), own.version).compile(SOURCES)


@pytest.mark.e2e
def test_an_engine_of_another_platform_compiles_nothing(engine: Engine, tmp_path: Path) -> None:
    arm = replace(AMD64, arch="arm64")
    pin = BasePin(reference="x.test/a:1", platform=arm, manifest="sha256:0", config="sha256:0", facts=BaseFacts())
    found = Compilers(BARE, lambda: engine, lambda: Describer(tmp_path), lambda *_: None)
    assert found.of_environment(pin, part(conda("python")), "3.11.2") is None
