"""Locks and bases become images: settings make the registries, interpreters and engine that baking needs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from flowkiln._base import paths
from flowkiln._base.engineerrors import EngineError
from flowkiln._base.errors import concerning
from flowkiln.executor import runtime
from flowkiln.images import fitness, plan, reference
from flowkiln.images.basing import Bases
from flowkiln.images.catalog import Catalog
from flowkiln.images.errors import CompilerMissing, NoRepository
from flowkiln.wiring import bases
from flowkiln.wiring.compilers import Compilers
from flowkiln.wiring.registries import Registries
from flowkiln.wiring.trees import Host, part_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from flowkiln._base.engine import Engine
    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.describing import Describer
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.envs.lockfolder import LockFolder
    from flowkiln.images.bake import Baker
    from flowkiln.images.bytecode import Compiler
    from flowkiln.images.compress import Compression
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.libraries import Missing
    from flowkiln.images.plan import ImagePlan
    from flowkiln.images.pushing import Publisher
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Registry
    from flowkiln.wiring.bases import Key
    from flowkiln.wiring.policy import Policy

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An environment that is to become an image: its lock, where that stands, a platform of it, and the base.

    ``base`` is as it was declared; None takes the default of the settings.
    """

    lock: EnvLock
    folder: LockFolder
    platform: Platform
    base: str | None = None
    steps: tuple[str, ...] = ()

    def concerning(self) -> AbstractContextManager[None]:
        """Errors raised inside name a step that has the environment; where none is known, the environment."""
        if self.steps:
            return concerning(self.steps[0])
        return concerning(what=f"environment {self.lock.name!r}", named=repr(self.lock.name))


class Bakery:
    """Everything that baking needs, as the settings of one project say. What is not needed is not made."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self.reporter = reporter
        self.registries = Registries(settings)
        self.bases = Bases(self.registries, paths.cache_root(), reporter)
        self._catalogs: dict[str, Catalog] = {}
        self._host = Host(settings, reporter)
        self._compilers = Compilers(self._host, lambda: self.engine, lambda: self._describer, self.pull)
        self._runtime = runtime.files()
        self.runtime_id = runtime.identity(self._runtime)

    @cached_property
    def engine(self) -> Engine:
        """The user's container engine. Raises ``EngineNotFound``."""
        from flowkiln.wiring import engines

        return engines.opened()

    def close(self) -> None:
        """Ends the connections to the engine; it can be used again."""
        if "engine" in self.__dict__:
            self.engine.close()

    @cached_property
    def _describer(self) -> Describer:
        from flowkiln.envs.describing import Describer

        return Describer(paths.cache_root(), self._host.fetcher)

    @cached_property
    def baker(self) -> Baker:
        """What makes layers."""
        from flowkiln.images.bake import Baker, Workshop

        cache = paths.cache_root()
        shop = Workshop(
            cache=cache,
            describer=self._describer,
            runtime=self._runtime,
            compiler=self.compiler,
            stdlib=self._stdlib,
            reporter=self.reporter,
            team=self.team,
        )
        return Baker(shop)

    def team(self) -> tuple[Catalog, ...]:
        """The team's catalog, in the repository of the settings; none without one."""
        told = team_repository(self._settings)
        return (self._catalog(told),) if told else ()

    def _catalog(self, repository: Reference) -> Catalog:
        if repository.name not in self._catalogs:
            compression = compression_of(self._settings)
            registry = partial(self.registries, repository.host)
            self._catalogs[repository.name] = Catalog(registry, repository, compression, self.reporter)
        return self._catalogs[repository.name]

    def reference_of(self, wish: Wish) -> str:
        """The base that ``wish`` is baked on, as people write it."""
        return wish.base or default_base(self._settings, wish.lock.python)

    # -- bases -------------------------------------------------------------------------------------------------

    def pin(self, wishes: Sequence[Wish], policy: Policy, *, upgrade: bool = False) -> dict[Wish, BasePin]:
        """The base of every wish as its lock folder pins it, pinned now where ``policy`` allows it.

        A base that cannot carry what is to be baked on it gets no pin. Raises ``UnpinnedBase`` for one without a
        pin under --locked, and the errors of registries and bases.
        """
        found: dict[Wish, BasePin] = {}
        for folder, group in _by_folder(wishes).items():
            users = self._users(group)
            pins = bases.settle(
                folder,
                list(users),
                self._settings,
                self.reporter,
                policy=policy,
                upgrade=upgrade,
                look=partial(self._named, group),
                decide=partial(self._accepted, group),
                users=users,
            )
            if not (policy.locked or policy.frozen):
                pins |= bases.note_without(folder, self._undecided(group, pins, anew=upgrade))
            found.update({wish: pins[self.reference_of(wish), wish.platform] for wish in group})
        return found

    def look(self, wish: Wish) -> BasePin:
        """The base of ``wish`` as its folder pins it, else what its reference names now; nothing is written."""
        name = self.reference_of(wish)
        for pin in wish.folder.read_bases():
            if (pin.reference, pin.platform) == (name, wish.platform):
                return pin
        return self._without(self._decided(self.bases.pin(name, wish.platform)), [wish], anew=True)

    def prune(self, wishes: Sequence[Wish]) -> list[tuple[LockFolder, BasePin]]:
        """Removes pins that the environments of ``wishes`` had and that none of these wishes needs: what is gone.

        ``wishes`` are all that these environments are baked on, for every platform.
        """
        return [
            (folder, pin)
            for folder, group in _by_folder(wishes).items()
            for pin in bases.prune(folder, {wish.lock.name for wish in group}, self._users(group))
        ]

    def _undecided(self, wishes: Sequence[Wish], pins: Mapping[Key, BasePin], *, anew: bool) -> dict[Key, BasePin]:
        """Those of ``pins`` that say another thing of bytecode now that ``wishes`` are baked on them."""
        groups: dict[Key, list[Wish]] = {}
        for wish in wishes:
            groups.setdefault((self.reference_of(wish), wish.platform), []).append(wish)
        decided = {key: self._without(pins[key], group, anew=anew) for key, group in groups.items()}
        return {key: pin for key, pin in decided.items() if pin != pins[key]}

    def _users(self, wishes: Iterable[Wish]) -> dict[tuple[str, Platform], set[str]]:
        """The environments that are baked on each base."""
        users: dict[tuple[str, Platform], set[str]] = {}
        for wish in wishes:
            users.setdefault((self.reference_of(wish), wish.platform), set()).add(wish.lock.name)
        return users

    def _accepted(self, wishes: Iterable[Wish], pin: BasePin) -> BasePin:
        """``pin`` with its bytecode decided. Raises the errors of a base that one of ``wishes`` cannot stand on."""
        for wish in wishes:
            if (self.reference_of(wish), wish.platform) == (pin.reference, pin.platform):
                self._check(pin, wish)
        return self._decided(pin)

    def _check(self, pin: BasePin, wish: Wish) -> PlatformLock:
        """The part of the lock that is baked on ``pin``. Raises the errors of a base that it cannot stand on."""
        with wish.concerning():
            part = part_for(wish.lock, wish.platform, steps=wish.steps)
            self._compilers.remember(wish.lock)
            fitness.check(pin, part, name=wish.lock.name)
        return part

    def _named(self, wishes: Iterable[Wish], base: tuple[str, Platform]) -> BasePin:
        """What a base is now. Raises the errors of bases and registries with a step of ``wishes`` in them."""
        wish = next(one for one in wishes if (self.reference_of(one), one.platform) == base)
        with wish.concerning(), concerning(what=f"base {base[0]}", named=base[0]):
            return self.bases.pin(*base)

    def _decided(self, pin: BasePin) -> BasePin:
        """``pin`` with the compiler of its bytecode: that very Python, here or in the engine, else none.

        What it compiles of the base may also be in the team's catalog already. Raises the registry's errors: a
        catalog that does not answer is no reason for another image.
        """
        version = pin.facts.python
        if version is None or self._compilers.of_base(pin, version) is not None:
            return replace(pin, bytecode=version)
        if self._told_by_team(plan.stdlib_layer(pin, version), version, pin):
            return replace(pin, bytecode=version)
        self.reporter.warn(_no_bytecode(f"images on {pin.reference}", version))
        return replace(pin, bytecode=None)

    def _without(self, pin: BasePin, wishes: Iterable[Wish], *, anew: bool) -> BasePin:
        """``pin`` with those of its environments' own Pythons whose bytecode nobody can make here.

        What stands in the pin already stays, unless it is decided ``anew``. Raises as ``_decided`` does.
        """
        without = set(() if anew else pin.without_bytecode)
        bare = replace(pin, without_bytecode=())
        for wish in wishes:
            part = self._check(pin, wish)
            version = plan.bytecode_of(part, bare)
            if part.own_python is None or version is None or version in without:
                continue
            twin = plan.interpreter_bytecode(part, version)
            if self._compilers.of_environment(pin, part, version) or self._told_by_team(twin, version, pin):
                continue
            without.add(version)
            what = f"images of environment {wish.lock.name!r} for {wish.platform}"
            self.reporter.warn(_no_bytecode(what, version))
        return replace(pin, without_bytecode=tuple(sorted(without)))

    def _told_by_team(self, layer: LayerSpec, version: str, pin: BasePin) -> bool:
        if not any(catalog.fetch([layer]) for catalog in self.team()):
            return False
        self.reporter.say(f"the team's catalog has the bytecode of Python {version} for {pin.reference}")
        return True

    def compiler(self, planned: ImagePlan) -> Compiler:
        """The Python that compiles the bytecode of ``planned``. Raises ``CompilerMissing``."""
        part, pin = planned.part, planned.base
        version = plan.bytecode_of(part, pin)
        assert version is not None
        if part.own_python is None:
            found = self._compilers.of_base(pin, version)
        else:
            found = self._compilers.of_environment(pin, part, version)
        if found is None:
            message = f"the lock has bytecode of images on {pin.reference} compiled by Python {version}"
            hint = f"`uv python install {version}` installs it, and a container engine of {pin.platform} has it."
            raise CompilerMissing(f"{message}, which is neither on this machine nor in an engine", hint=hint)
        return found

    def pull(self, image: str, pin: BasePin) -> None:
        """Has the engine get a base by its digest, unless it has it."""
        if self.engine.image(image) is None:
            host = reference.parse(image).host
            self.engine.pull(image, platform=str(pin.platform), auth=self.registries.login(host))

    def fetch(self, image: str) -> bool:
        """Whether the engine has an image by its digest, pulled now where it is missing and its registry has it."""
        place = reference.parse(image)
        if self.engine.image(image) is None:
            with suppress(EngineError):
                self.engine.pull(image, platform=self.engine.platform, auth=self.registries.login(place.host))
        return self.engine.image(image) is not None

    def _stdlib(self, pin: BasePin) -> list[tuple[str, bytes]]:
        from flowkiln.images import stdlib

        assert pin.facts.stdlib is not None
        self.reporter.say(f"reading the standard library of {pin.reference}")
        source = reference.parse(pin.reference)
        registry = self.registries(source.host)
        layers = [partial(registry.blob, source.repository, one.digest) for one in self.bases.opened(pin).layers]
        sources, names = stdlib.read(layers, pin.facts.stdlib)
        self.baker.records.add_libraries(pin.manifest, names)
        return sources

    # -- plans -------------------------------------------------------------------------------------------------

    def plan(self, wish: Wish, pin: BasePin) -> ImagePlan:
        """The plan of one image. Raises the errors of a base that the environment cannot stand on."""
        return plan.plan(wish.lock.name, wish.lock.lock_id, self._check(pin, wish), pin, self.runtime_id)

    def missing(self, plan: ImagePlan, steps: Sequence[str] = ()) -> tuple[Missing, ...] | None:
        """The libraries that the image of ``plan`` lacks, said as a warning; None where that cannot be known here.

        It is no failure: what is not there may never be loaded.
        """
        found = self.baker.scanner.missing(plan)
        if found:
            self.reporter.warn(_lacking(plan, steps, found))
        return found

    def publisher(self, repository: str | None = None) -> Publisher:
        """What publishes to ``repository``, by default that of the settings. Raises ``NoRepository``."""
        from flowkiln.images.pushing import Publisher

        told = reference.parse_repository(repository, named="--to") if repository else None
        target = told or repository_of(self._settings)
        own = self._catalog(target)
        near = [one for one in self.team() if one.repository.host == target.host and one is not own]
        return Publisher(
            target,
            self.registries,
            self.bases,
            self.baker,
            compression=compression_of(self._settings),
            reporter=self.reporter,
            locks=paths.cache_root() / "locks" / "images",
            catalogs=(own, *near),
            offline=self._settings.flag("offline"),
        )


def default_base(settings: Settings, python: str) -> str:
    """The base of environments that name none, for Python ``X.Y``."""
    told = settings.text("images.base") or "python:{python}-slim"
    return told.replace("{python}", python)


def team_repository(settings: Settings) -> Reference | None:
    """The repository of images, None where the settings name none. Raises ``BadReference``."""
    told = settings.text("images.repository")
    return reference.parse_repository(told, named="images.repository") if told else None


def team_shelf(
    kind: Callable[[Callable[[], Registry], Reference, Reporter], S],
    settings: Settings,
    reporter: Reporter,
    bakery: Callable[[], Bakery],
) -> S | None:
    """The shelf of one kind in the team's repository, None without one or without network."""
    repository = team_repository(settings)
    if repository is None or settings.flag("offline"):
        return None
    return kind(partial(bakery().registries, repository.host), repository, reporter)


def repository_of(settings: Settings) -> Reference:
    """The repository of images. Raises ``BadReference``, and ``NoRepository`` with the lines to paste."""
    told = team_repository(settings)
    if told:
        return told
    message = "no repository for images: the setting images.repository is not set"
    hint = (
        "Say where images go, for example in pyproject.toml:\n"
        "  [tool.flowkiln.images]\n"
        '  repository = "registry.example.com/team/flows"\n'
        "or for one command: FLOWKILN_IMAGES_REPOSITORY=registry.example.com/team/flows"
    )
    raise NoRepository(message, hint=hint)


def compression_of(settings: Settings) -> Compression:
    """How layers are compressed for registries."""
    return "zstd" if settings.text("images.compression") == "zstd" else "gzip"


def _no_bytecode(what: str, version: str) -> str:
    where = f"neither this machine nor a container engine has Python {version}"
    return f"{what} get no bytecode: {where}; each task compiles what it imports"


def _lacking(plan: ImagePlan, steps: Sequence[str], found: Sequence[Missing]) -> str:
    rows = []
    for one in found:
        package = f"Debian package {one.package}, " if one.package else ""
        rows.append(f"{one.library} ({package}needed by {', '.join(one.needed_by)})")
    where = f"environment {plan.name!r}" + (f" (step {', '.join(steps)})" if steps else "")
    where += f" for {plan.part.platform}"
    hint = f"If it is used, name a base that has it: image=..., now {plan.base.reference}"
    return f"{where}: neither its packages nor its base have {', '.join(rows)}. {hint}"


def _by_folder(wishes: Iterable[Wish]) -> dict[LockFolder, list[Wish]]:
    groups: dict[LockFolder, list[Wish]] = {}
    for wish in wishes:
        groups.setdefault(wish.folder, []).append(wish)
    return groups
