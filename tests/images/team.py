"""A team for tests: machines with caches of their own that bake the same environments for one registry."""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowkiln._base import digests
from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.images import oci, reference
from flowkiln.images import plan as plans
from flowkiln.images.bake import Baker, Workshop
from flowkiln.images.basing import Bases
from flowkiln.images.bytecode import HostCompiler
from flowkiln.images.catalog import Catalog
from flowkiln.images.errors import CompilerMissing
from flowkiln.images.pushing import Publisher
from tests.envs.made import PYTHON, VERSION, locked, part
from tests.images import registries
from tests.images.rootfs_layers import SYSTEM, config, layer, local
from tests.services import wheels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkiln.images.bytecode import Compiler
    from flowkiln.images.compress import Compression
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.registry import Registry
    from tests.services.index import PackageIndex
    from tests.services.wheels import Distribution

LINUX = Platform("linux", "amd64")
RUNTIME = {"flowkiln/__init__.py": b"VALUE = 1\n", "supervise.py": b"print('started')\n"}
RUNTIME_ID = "r" * 32
STDLIB = [("/usr/local/lib/python/thing.py", b"VALUE = 2\n")]


@dataclass
class Told(Silent):
    """Remembers warnings."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def large(name: str, version: str = "1.0", **more: object) -> Distribution:
    """A wheel of more than 1 MiB, whose layer is its own: with a module, an entry point and a script."""
    noise = random.Random(f"{name} {version}").randbytes(1_100_000)
    files: dict[str, bytes | str] = {
        f"{name}/__init__.py": f"NAME = {name!r}\n",
        f"{name}/data.bin": noise,
        f"{wheels.data_folder(name, version)}/scripts/{name}-script": "#!python\nprint('a script')\n",
    }
    return wheels.wheel(name, version, files=files, console={f"{name}-tool": f"{name}:main"}, **more)  # type: ignore[arg-type]


def small(name: str, version: str = "1.0") -> Distribution:
    """A wheel that shares a layer, without a file that compiles."""
    return wheels.wheel(name, version, files={f"{name}/data.txt": f"{name} {version}"})


def push_base(registry: Registry, repository: str) -> str:
    """The reference of a base with this Python, pushed to the registry."""
    layers = [b"".join(layer(SYSTEM)()), b"".join(layer(local(PYTHON))())]
    diff_ids = [digests.of_bytes(one + b"unpacked") for one in layers]
    about = config("amd64", f"PYTHON_VERSION={VERSION}", "PATH=/usr/local/bin:/usr/bin")
    about["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    made = registries.image(b"base")
    data = json.dumps(about).encode()
    rows = [{"mediaType": oci.LAYER_GZIP, "digest": digests.of_bytes(o), "size": len(o)} for o in layers]
    body = json.loads(made.document.data) | {"layers": rows}
    body["config"] = {"mediaType": oci.CONFIG, "digest": digests.of_bytes(data), "size": len(data)}
    for blob in (*layers, data):
        registries.put(registry, repository, blob)
    document = oci.Document(media_type=oci.MANIFEST, data=json.dumps(body).encode())
    registry.put_manifest(repository, document, tag="1")
    return f"{registry.host}/{repository}:1"


def without_compiler(plan: ImagePlan) -> Compiler:
    """Of a machine on which the Python of the lock is missing."""
    raise CompilerMissing(f"no Python {plan.base.bytecode} here")


@dataclass
class Machine:
    """One member's machine: ``folder`` is its cache."""

    folder: Path
    registry: Registry
    base: str
    repository: str
    compression: Compression = "gzip"
    compiles: bool = True
    team: str | None = None
    reporter: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.fetcher = Fetcher(retries=0)
        self.bases = Bases(lambda _: self.registry, self.folder, self.reporter)
        shop = Workshop(
            cache=self.folder,
            describer=Describer(self.folder, self.fetcher),
            runtime=RUNTIME,
            compiler=self._compiler,
            stdlib=lambda _: STDLIB,
            reporter=self.reporter,
            team=self._team,
        )
        self.baker = Baker(shop)

    def _compiler(self, plan: ImagePlan) -> Compiler:
        return HostCompiler(sys.executable, VERSION) if self.compiles else without_compiler(plan)

    def _team(self) -> tuple[Catalog, ...]:
        return () if self.team is None else (self.catalog(self.team),)

    def catalog(self, repository: str | None = None) -> Catalog:
        place = reference.parse(f"{self.registry.host}/{repository or self.repository}")
        return Catalog(lambda: self.registry, place, self.compression, self.reporter)

    def publisher(self, *others: str) -> Publisher:
        return Publisher(
            reference.parse(f"{self.registry.host}/{self.repository}"),
            lambda _: self.registry,
            self.bases,
            self.baker,
            compression=self.compression,
            reporter=self.reporter,
            locks=self.folder / "locks" / "images",
            catalogs=[self.catalog(), *map(self.catalog, others)],
        )

    def plan(self, index: PackageIndex, packages: Sequence[Distribution], *, name: str = "fit") -> ImagePlan:
        """The plan of an environment of these packages, which may not be in the index any more."""
        wheels_of = [locked(one, index.base) for one in packages]
        pin = replace(self.bases.pin(self.base, LINUX, python=PYTHON), bytecode=VERSION)
        lock_id = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        return plans.plan(name, lock_id, part(wheels_of, platform=LINUX, glibc=(2, 28)), pin, RUNTIME_ID)

    def wheels(self) -> list[str]:
        """The wheels whose bytes are here."""
        return sorted(path.name for path in (self.folder / "wheels").glob("*/*"))


def fresh(name: str) -> str:
    """A repository that no test has used."""
    return f"{name}/{os.urandom(6).hex()}"
