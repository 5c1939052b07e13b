"""Wheels of sources: what builds them as the settings say, pinned sources, the team's shelf of built wheels."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import paths, platforms
from flowkiln._base.engineerrors import EngineError
from flowkiln._base.errors import concerning
from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln.envs import scmversions, sourcearchives
from flowkiln.envs.builderrors import NowhereToBuild
from flowkiln.envs.builds import Builder, Means
from flowkiln.envs.spec import EnvSpec

if TYPE_CHECKING:
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.builds import Job, Runner, Shelf
    from flowkiln.envs.builtwheels import BuiltWheel
    from flowkiln.envs.direct import DirectReference
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.handing import HandedWheel
    from flowkiln.envs.lock import EnvLock, LinkedFiles, LockedBuild, LockedSource, LockedWheel, PlatformLock
    from flowkiln.envs.uv import Solver
    from flowkiln.images.linking import ContainerLinker
    from flowkiln.wiring.baking import Bakery

_HINT = (
    "Start a container engine such as Docker, or allow builds on this machine itself with the setting "
    'build.where = "host": their code can then do what you can do.'
)


class Building:
    """Everything that building needs, as the settings of one project say. What is not needed is not made.

    ``spec`` is the request that builds are for: its indexes and its cut-off hold for build requirements too.
    ``folder`` is where relative sources start.
    """

    def __init__(
        self, settings: Settings, reporter: Reporter, *, spec: EnvSpec | None = None, folder: Path | None = None
    ) -> None:
        self._settings = settings
        self._reporter = reporter
        self._spec = spec or EnvSpec()
        self._folder = folder
        self._bases: dict[tuple[str, Platform], str] = {}

    @cached_property
    def builder(self) -> Builder:
        """What builds wheels."""
        from flowkiln.envs.elfversions import glibc_of

        means = Means(
            cache=paths.cache_root(),
            runner=self._runner,
            native=self._native,
            lock=self._lock,
            archive=self._archive,
            glibc=glibc_of,
            reporter=self._reporter,
            shelf=self._shelf,
            version=self._version,
        )
        return Builder(means)

    @cached_property
    def linker(self) -> ContainerLinker:
        """What runs link scripts of conda packages."""
        from flowkiln.wiring.linking import link_scripts

        return link_scripts(self._settings, self._reporter, lambda: self._bakery, self._base_of)

    def close(self) -> None:
        """Ends the connections to engine and servers; it can be used again."""
        if "_bakery" in self.__dict__:
            self._bakery.close()
        if "_fetcher" in self.__dict__:
            self._fetcher.close()

    # -- as envs.sourcebuilds.Sources ----------------------------------------------------------------------------

    def pin(self, reference: DirectReference, previous: LockedSource | None, *, upgrade: bool) -> LockedSource:
        """Where the source of ``reference`` is now; where ``previous`` says unless ``upgrade`` frees it."""
        source = sourcearchives.pin(
            reference,
            previous=previous,
            upgrade=upgrade,
            folder=self._start,
            cache=paths.cache_root(),
            fetcher=self._fetcher,
            environ=os.environ,
        )
        return source if "://" in source.url else replace(source, base=self._start)

    def wheel(self, reference: DirectReference, source: LockedSource) -> HandedWheel | None:
        """The wheel that ``source`` is, None where it has to be built."""
        if not sourcearchives.is_wheel(source):
            return None
        return sourcearchives.wheel_of_archive(reference.name, source, self._archive(reference.name, source))

    def builds_for(self, platform: Platform) -> bool:
        """Whether something here builds for ``platform`` itself."""
        return platform in self._native()

    def build(
        self, name: str, source: LockedSource, *, platform: Platform, python: str, glibc: tuple[int, int] | None
    ) -> BuiltWheel:
        """The wheel of ``source``, built unless it was before."""
        return self.builder.build(name, source, platform=platform, python=python, glibc=glibc)

    def find(self, build: LockedBuild) -> BuiltWheel | None:
        """The wheel of a build that was done before, None where nobody has it."""
        return self.builder.find(build)

    def restored(self, made: LockedWheel | LinkedFiles) -> Path:
        """The file of the very wheel or linked files that a lock names. Raises the errors of restoring them."""
        from flowkiln.envs.lock import LinkedFiles

        return self.linker.restored(made) if isinstance(made, LinkedFiles) else self.builder.restore(made).path

    # -- as envs.linkside.Linker ---------------------------------------------------------------------------------

    def linked(self, label: str, part: PlatformLock, names: frozenset[str]) -> PlatformLock:
        """``part`` with what the link scripts of the packages ``names`` left."""
        return self.linker.linked(label, part, names)

    # -- means -----------------------------------------------------------------------------------------------------

    @cached_property
    def _bakery(self) -> Bakery:
        from flowkiln.wiring.baking import Bakery

        return Bakery(self._settings, self._reporter)

    def _native(self) -> tuple[Platform, ...]:
        where = self._settings.text("build.where")
        if where == "host":
            return (platforms.host(),)
        if where == "never":
            return ()
        try:
            return (Platform.parse(self._bakery.engine.platform),)
        except EngineError:
            return ()

    def _runner(self, platform: Platform) -> Runner:
        where = self._settings.text("build.where")
        seconds = float(self._settings.count("build.timeout") or 1800)
        network = self._settings.flag("build.network")
        if where == "never":
            message = 'it has no wheel, and the setting build.where = "never" forbids to build one'
            raise NowhereToBuild(message, hint="Choose a version that has a wheel, or allow the build.")
        if where == "host":
            from flowkiln.envs.hostbuild import HostRunner

            return HostRunner(self._python_of, seconds=seconds, network=network)
        try:
            self._bakery.engine.version()
        except EngineError as error:
            message = f"it has no wheel, and no container engine answers to build one for {platform}"
            raise NowhereToBuild(f"{message}: {error.message}", hint=_HINT) from error
        from flowkiln.images.buildcontainer import ContainerRunner

        return ContainerRunner(self._bakery.engine, self._base_of, self._image_of, seconds=seconds, network=network)

    def _base_of(self, python: str, platform: Platform) -> str:
        from flowkiln.images import reference

        told = (self._settings.text("build.image") or "python:{python}").replace("{python}", python)
        if (told, platform) not in self._bases:
            with concerning(what="the image that wheels are built in (setting build.image)", named="build.image"):
                pin = self._bakery.bases.pin(told, platform, python=python)
            self._bases[told, platform] = str(reference.parse(told).at(pin.manifest))
        return self._bases[told, platform]

    def _image_of(self, job: Job, where: str) -> str:
        """The image of the build requirements, in the engine. It has no bytecode: it is used once."""
        from flowkiln.images import fitness, plan
        from flowkiln.wiring.containers import local_images

        with concerning(what="the image that wheels are built in (setting build.image)", named="build.image"):
            pin = self._bakery.bases.pin(where, job.platform, python=job.part.python)
            fitness.check(pin, job.part, name=job.lock.name)
            made = plan.plan(job.lock.name, job.lock.lock_id, job.part, pin, self._bakery.runtime_id)
            return local_images(self._bakery).put(made).id

    def _python_of(self, job: Job) -> str:
        from flowkiln.wiring.trees import Host

        return Host(self._settings).ensure([job.part], self._reporter)[job.part.env_id].python

    def _lock(self, label: str, requires: tuple[str, ...], python: str, platform: Platform) -> EnvLock:
        """The build requirements as locked: of wheels alone, from the indexes of the request."""
        from flowkiln.envs.requirements import requirement
        from flowkiln.envs.resolve import resolve

        spec = replace(
            EnvSpec(),
            python=python,
            requirements=tuple(sorted({requirement(one) for one in requires})),
            platforms=(platform,),
            indexes=self._spec.indexes,
            index_pins=self._spec.index_pins,
            exclude_newer=self._spec.exclude_newer,
        )
        name = "build-of-" + re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:60]
        with concerning(what=f"build requirements of {label}"):
            return resolve(name, spec, self._solver(spec), host=platform).lock

    def _solver(self, spec: EnvSpec) -> Solver:
        from flowkiln.envs import indexes
        from flowkiln.envs.uv import Solver

        plan = indexes.plan_of(self._settings, spec)
        return Solver(plan=plan, offline=self._settings.flag("offline"), reporter=Silent())

    def _archive(self, name: str, source: LockedSource) -> Path:
        return sourcearchives.archive_of(
            source,
            name=name,
            folder=source.base or self._start,
            cache=paths.cache_root(),
            fetcher=self._fetcher,
            environ=os.environ,
        )

    def _version(self, source: LockedSource) -> str | None:
        """The version of a commit by its tags; None for what has no history."""
        if source.kind != "git":
            return None
        described = sourcearchives.describe(
            source, cache=paths.cache_root(), fetcher=self._fetcher, environ=os.environ
        )
        return scmversions.of(described, source.commit or "")

    @property
    def _start(self) -> Path:
        """Where relative sources start."""
        return self._folder or Path.cwd()

    @cached_property
    def _fetcher(self) -> Fetcher:
        from flowkiln.wiring.trees import Host

        return Host(self._settings).fetcher()

    def _shelf(self) -> Shelf | None:
        from flowkiln.images.wheelshelf import WheelShelf
        from flowkiln.wiring.baking import team_shelf

        return team_shelf(WheelShelf, self._settings, self._reporter, lambda: self._bakery)
