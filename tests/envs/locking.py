"""What the tests of locking share: a solver for the test index, and a request in short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flowkiln._base.command import Limits
from flowkiln._base.platforms import Platform
from flowkiln.envs import indexes
from flowkiln.envs.resolve import Resolution, Upgrade, resolve
from flowkiln.envs.sources import spec
from flowkiln.envs.uv import Solver

if TYPE_CHECKING:
    from flowkiln._base.report import Reporter
    from flowkiln.envs.lock import EnvLock
    from flowkiln.envs.spec import EnvSpec

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
MAC = Platform("darwin", "arm64")


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> Heard:
        return self

    def advance(self, amount: int = 1, *, item: str = "") -> None: ...

    def tick(self, item: str = "") -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def solver(
    *urls: str,
    offline: bool = False,
    limits: Limits | None = None,
    reporter: Reporter | None = None,
    **environ: str,
) -> Solver:
    """A solver for the indexes ``urls``, or for those that the environment names when there are none."""
    variables = {**os.environ, **environ}
    return Solver(
        plan=indexes.plan(urls, environ=variables),
        offline=offline,
        limits=limits or Limits(total=60, stall=30),
        reporter=reporter or Heard(),
        environ=variables,
    )


def request(*packages: str, **options: object) -> EnvSpec:
    """The request for ``packages`` on Python 3.11."""
    return spec({"python": "3.11", "packages": list(packages), **options}, folder=Path.cwd())


def lock(
    wanted: EnvSpec,
    index: str | Solver,
    *,
    host: Platform = AMD64,
    previous: EnvLock | None = None,
    upgrade: Upgrade = False,
) -> Resolution:
    """``wanted`` resolved as environment ``fit`` of step ``train``."""
    asked = solver(index) if isinstance(index, str) else index
    return resolve("fit", wanted, asked, host=host, previous=previous, upgrade=upgrade, steps=("train",))


def versions(made: Resolution | EnvLock, platform: Platform = AMD64) -> dict[str, str]:
    """Name -> version on ``platform``."""
    whole = made.lock if isinstance(made, Resolution) else made
    part = whole.on(platform)
    assert part is not None, f"nothing for {platform}"
    return {wheel.name: wheel.version for wheel in part.wheels}
