"""What is asked of the solver of conda packages, and what it answers: values, so that nobody needs the solver."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.command import Limits
from flowkiln._base.report import Silent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln.envs.channels import ChannelPlan
    from flowkiln.envs.lock import LockedConda
    from flowkiln.envs.virtual import Virtual


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """A program that chooses conda packages in rattler's place: ``conda``, ``mamba`` or ``micromamba``.

    ``program`` is its file; None = wherever it is found.
    """

    solver: str
    program: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CondaSolver:
    """How conda packages are chosen: channels, limits, where words go. One per environment; threads may share it.

    ``folder`` keeps repodata and what is known of packages; it holds no credentials. ``driven`` is the program that
    chooses, None where rattler does.
    """

    plan: ChannelPlan
    limits: Limits = field(default_factory=Limits)
    offline: bool = False
    reporter: Reporter = field(default_factory=Silent)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path = field(default_factory=lambda: paths.cache_root() / "conda")
    driven: Driven | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaQuestion:
    """One solve: an environment on one platform.

    ``python`` is ``X.Y`` or ``X.Y.Z``. ``preferred`` are packages of an earlier lock, kept where they satisfy the
    request and a channel still has them, but for the names in ``upgrade`` (True: all). ``versions`` are
    versions of another platform, taken where this one has them and they can be together.
    """

    name: str
    specs: tuple[str, ...]
    platform: Platform
    python: str
    virtual: tuple[Virtual, ...]
    preferred: tuple[LockedConda, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    upgrade: bool | frozenset[str] = False
    exclude_newer: str | None = None
    steps: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What is being locked, for people."""
        return f"{self.name} for {self.platform}"

    @property
    def python_spec(self) -> str:
        """The match spec of the environment's Python."""
        return f"python {self.python}.*" if self.python.count(".") == 1 else f"python =={self.python}"


@dataclass(frozen=True, slots=True)
class CondaAnswer:
    """The packages by name, and the URLs of the channels that were asked, without credentials."""

    packages: tuple[LockedConda, ...]
    channels: tuple[str, ...]
