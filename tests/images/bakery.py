"""Everything that baking needs: generated wheels in a folder, a compiler of this machine, a small base."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln.envs.basepin import BaseFacts, BasePin
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.images import plan as plans
from flowkiln.images.bake import Baker, Workshop
from flowkiln.images.bytecode import HostCompiler
from tests.envs.made import PYTHON, VERSION, locked
from tests.envs.made import part as part_of
from tests.images import registries
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.images.plan import ImagePlan
    from tests.services.wheels import Distribution

RUNTIME = {"flowkiln/__init__.py": b'"""The runtime."""\n', "supervise.py": b"import sys\n"}
STDLIB = [("/usr/local/lib/python/os.py", b"name = 'posix'\n"), ("/usr/local/lib/python/re.py", b"import os\n")]
BASE = registries.image(b"a base")
AMD64 = Platform("linux", "amd64")


@dataclass
class Kitchen:
    """A cache folder with a baker; ``counted`` are the kinds of layers whose sources were asked for."""

    cache: Path
    wheels: Path
    counted: list[str] = field(default_factory=list)
    offline: bool = False

    def baker(self) -> Baker:
        """A baker that knows nothing but what the cache has."""
        return Baker(
            Workshop(
                cache=self.cache,
                describer=Describer(self.cache, Fetcher(offline=self.offline)),
                runtime=RUNTIME,
                compiler=self._compiler,
                stdlib=self._stdlib,
                reporter=Silent(),
            )
        )

    def part(self, *distributions: Distribution, **changes: object) -> PlatformLock:
        """A lock of distributions that lie in a folder."""
        folder = str(self.wheels)
        return part_of((locked(one, folder) for one in distributions), platform=AMD64, **changes)

    def _compiler(self, plan: ImagePlan) -> HostCompiler:
        self.counted.append("compiler")
        assert plans.bytecode_of(plan.part, plan.base) == VERSION
        return HostCompiler(str(Path(sys._base_executable).resolve()), VERSION)  # type: ignore[attr-defined]

    def _stdlib(self, pin: BasePin) -> list[tuple[str, bytes]]:
        assert pin.reference
        self.counted.append("stdlib")
        return STDLIB


def pin(reference: str = "127.0.0.1:1/team/base:1", *, bytecode: bool = True) -> BasePin:
    """A pin of ``BASE``."""
    facts = BaseFacts(
        python=VERSION,
        interpreter=f"/usr/local/bin/python{PYTHON}",
        libc="glibc",
        glibc=(2, 36),
        path="/usr/local/bin:/usr/bin",
        stdlib=f"/usr/local/lib/python{PYTHON}",
    )
    return BasePin(
        reference=reference,
        platform=AMD64,
        manifest=BASE.document.digest,
        config=registries.digest_of(BASE.config),
        facts=facts,
        bytecode=VERSION if bytecode else None,
    )


def plan(one: PlatformLock, base: BasePin | None = None, *, name: str = "fit") -> ImagePlan:
    """The plan of an image of ``one``."""
    return plans.plan(name, "sha256:" + "7" * 64, one, base or pin(), "f" * 32)


def base_config() -> dict[str, object]:
    """The config of ``BASE``."""
    found: dict[str, object] = json.loads(BASE.config)
    return found


def large(name: str, version: str = "1.0", *, seed: int = 1) -> Distribution:
    """A wheel of more than 1 MiB, which has a layer of its own."""
    data = random.Random(seed).randbytes(1_100_000)
    return wheel(name, version, files={f"{name}/__init__.py": f"version = {version!r}\n", f"{name}/data.bin": data})
