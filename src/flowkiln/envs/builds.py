"""Source -> wheel: found where it was built before, else built once, in an environment of its build requirements.

Nothing here runs foreign code: a ``Runner`` does, in a container of the platform or where the user allows it on
this machine. What it leaves is put into one form (``wheelrepack``), so that its hash depends on the files alone.
"""

from __future__ import annotations

import copy
import json
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flowkiln._base import files, redact
from flowkiln._base.errors import FlowkilnError
from flowkiln.envs import builtwheels, scmversions, sourcetree, wheelrepack
from flowkiln.envs.builderrors import BadBuild, BuildError, BuiltAbsent, BuiltTooNew, NowhereToBuild, OtherWheel
from flowkiln.envs.builtwheels import BuiltWheel, BuiltWheels
from flowkiln.envs.lock import LockedBuild
from flowkiln.envs.requirements import name_of, requirement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln.envs.lock import EnvLock, LockedSource, LockedWheel, PlatformLock
    from flowkiln.envs.sourcetree import BuildSystem

_WITH_HISTORY = ("git", "folder")
"""Sources whose back ends may look for a repository."""
_ROUNDS = 4
"""Times that a back end may ask for more build requirements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of a back end: the project's folder, what builds it, and where the answer goes.

    ``known`` are the build requirements as they were asked for; ``lock`` is their environment on ``platform``;
    ``variables`` are set for the build; ``log`` gets what it says, ``answer`` is an empty folder of this machine.
    """

    label: str
    root: Path
    system: BuildSystem
    known: tuple[str, ...]
    lock: EnvLock
    platform: Platform
    variables: Mapping[str, str]
    log: Path
    answer: Path

    @property
    def part(self) -> PlatformLock:
        """The build requirements as locked."""
        return _part(self.lock, self.platform)


class Runner(Protocol):
    """Somewhere that builds run. Safe to use from several threads."""

    def where(self, python: str, platform: Platform) -> str:
        """What builds for Python ``X.Y`` run in, named for the lock: an image with its digest, or ``host``."""

    def run(self, job: Job, where: str) -> None:
        """The files of the answer are in ``job.answer``. Raises ``BuildError`` and the errors of its services."""


class Shelf(Protocol):
    """Where a team keeps the wheels that it built. Not being able to write is no failure of a build."""

    def get(self, key: str, folder: Path) -> BuiltWheel | None:
        """The wheel of a build, brought into ``folder``; None where there definitely is none."""

    def put(self, wheel: BuiltWheel) -> None:
        """Others find the wheel, as far as this machine may write there."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What builders use. Callables are asked when a build needs them, not before.

    ``runner`` gives what builds for a platform, ``native`` the platforms that there is one for. ``lock`` locks
    build requirements: (label, requirements, X.Y, platform). ``archive`` brings the archive of a distribution's
    source here. ``glibc`` tells the newest glibc that files of a wheel need, ``version`` what a history gives.
    """

    cache: Path
    runner: Callable[[Platform], Runner]
    native: Callable[[], tuple[Platform, ...]]
    lock: Callable[[str, tuple[str, ...], str, Platform], EnvLock]
    archive: Callable[[str, LockedSource], Path]
    glibc: Callable[[Path], tuple[int, int] | None]
    reporter: Reporter
    shelf: Callable[[], Shelf | None] = field(default=lambda: None)
    version: Callable[[LockedSource], str | None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be built of what, for whom; ``label`` names it for people, ``version`` is the one to come out."""

    name: str
    source: LockedSource
    label: str
    platform: Platform
    python: str
    version: str | None = None


class _Opened(NamedTuple):
    """A source on disk: a scratch folder, the project's folder in it, and what builds the project."""

    scratch: Path
    root: Path
    system: BuildSystem


class Builder:
    """Builds wheels, each once. Threads may share it."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._built = BuiltWheels(means.cache)
        self._failed: dict[tuple[str, str, Platform], BuildError] = {}

    def build(
        self,
        name: str,
        source: LockedSource,
        *,
        platform: Platform,
        python: str,
        glibc: tuple[int, int] | None,
    ) -> BuiltWheel:
        """The wheel of ``source`` for ``platform``, built now unless it was before.

        Where nothing builds for ``platform``, a wheel for every platform built on another one serves too. Raises
        ``BuildError`` and the errors of locking, fetching and of the services that are used.
        """
        label = name if _shown(source) == name else f"{name} ({_shown(source)})"
        native = self._means.native()
        on = platform if platform in native or not native else native[0]
        order = _Order(name, source, label, on, python)
        with self._held(source):
            built = self._once(order)
        if on != platform and not wheelrepack.is_pure(built.filename):
            message = f"{label}: nothing here builds for {platform}, and what was built for {on} runs there alone"
            raise NowhereToBuild(message, hint=f"Lock on a machine with a container engine of {platform}.")
        self._check_glibc(built, glibc, label)
        return built

    def restore(self, wheel: LockedWheel) -> BuiltWheel:
        """The very wheel of a lock: from this machine, the team's, or built once more.

        Raises ``OtherWheel`` where building gives another one, ``BuiltAbsent`` where its source is out of reach.
        """
        build = wheel.build
        assert build is not None
        found = self.find(build)
        if found is None:
            self._means.reporter.say(f"{wheel.filename} is on no server: it is built again")
            label = f"{wheel.name} {wheel.version} ({_shown(build.source)})"
            order = _Order(wheel.name, build.source, label, build.platform, build.python, wheel.version)
            try:
                with self._held(build.source):
                    found = self._rebuilt(order, build)
            except FlowkilnError as error:
                message = f"{wheel.filename} is neither here nor kept by the team, and cannot be built again"
                hint = "Set images.repository where it was locked and run `flowkiln env lock` there, or see below."
                raise BuiltAbsent(f"{message}:\n{error.message}", hint=error.hint or hint, log=error.log) from error
        if found.sha256 != wheel.sha256:
            message = f"{wheel.filename} was built again from {_shown(build.source)}, with other content"
            hint = f"`flowkiln env lock --upgrade {wheel.name}` locks what is built now."
            raise OtherWheel(message, hint=hint, data={"locked": wheel.sha256, "built": found.sha256})
        return found

    def find(self, build: LockedBuild) -> BuiltWheel | None:
        """The wheel of a build that was done, here or by the team; None where nobody has it."""
        found = self._built.get(build.key)
        shelf = None if found is not None else self._means.shelf()
        if shelf is None:
            return found
        with files.scratch_folder(self._means.cache / "scratch") as scratch:
            brought = shelf.get(build.key, scratch)
            return None if brought is None else self._built.add(brought)

    def _once(self, order: _Order) -> BuiltWheel:
        """As ``_build``; what failed is not tried again for the next platform."""
        key = order.source.sha256, order.python, order.platform
        if key in self._failed:
            raise copy.copy(self._failed[key])  # each platform tells it in its own words
        try:
            return self._build(order)
        except BuildError as error:
            self._failed[key] = copy.copy(error)
            raise

    def _rebuilt(self, order: _Order, build: LockedBuild) -> BuiltWheel:
        if order.platform not in self._means.native():
            message = f"{order.label}: nothing here builds for {order.platform}"
            raise NowhereToBuild(message, hint="Start a container engine, or allow builds on this machine.")
        lock = self._means.lock(order.label, build.requires, order.python, order.platform)
        with self._opened(order) as opened:
            return self._run(order, lock, build, opened)

    def _build(self, order: _Order) -> BuiltWheel:
        with self._opened(order) as opened:
            where = self._means.runner(order.platform).where(order.python, order.platform)
            lock = self._means.lock(order.label, opened.system.requires, order.python, order.platform)
            key = builtwheels.key_of(
                order.source,
                python=order.python,
                platform=order.platform,
                environment=_part(lock, order.platform).env_id,
                where=where,
            )
            build = LockedBuild(
                source=order.source, key=key, python=order.python, platform=order.platform, where=where
            )
            found = self.find(build)
            if found is not None:
                return replace(found, build=replace(found.build, source=order.source))
            return self._run(order, lock, build, opened)

    def _run(self, order: _Order, lock: EnvLock, build: LockedBuild, opened: _Opened) -> BuiltWheel:
        """One build, repeated in a source unpacked anew while the back end asks for more requirements."""
        place = "on this machine" if build.where == "host" else f"in {build.where}"
        self._means.reporter.say(f"building {order.label} for {order.platform} {place}")
        known = opened.system.requires
        with ExitStack() as later:
            for _ in range(_ROUNDS):
                job = self._job(order, lock, opened, known)
                self._means.runner(order.platform).run(job, build.where)
                told = _answer(job.answer, order.label)
                if "wheel" in told:
                    requires = tuple(sorted(f"{one.name}=={one.version}" for one in job.part.wheels))
                    return self._taken(order, replace(build, requires=requires), job.answer / told["wheel"])
                extra = tuple(told["requires"])
                known = (*opened.system.requires, *extra)
                wanted = (*_kept(job.part, extra), *extra)
                lock = self._means.lock(order.label, wanted, order.python, order.platform)
                opened = later.enter_context(self._opened(order))
        message = f"{order.label}: its back end asks for other build requirements each time"
        raise BadBuild(message, hint="Build it yourself and publish the wheel to an index.")

    def _job(self, order: _Order, lock: EnvLock, opened: _Opened, known: tuple[str, ...]) -> Job:
        answer = opened.scratch / "answer"
        answer.mkdir()
        return Job(
            label=order.label,
            root=opened.root,
            system=opened.system,
            known=known,
            lock=lock,
            platform=order.platform,
            variables=scmversions.variables(self._version(order, known)),
            log=self._means.cache / "logs" / f"build-{order.name}-{order.platform.slug}.log",
            answer=answer,
        )

    def _version(self, order: _Order, requires: tuple[str, ...]) -> str | None:
        """The version that a back end looks for in the history, which the archive lacks; None where it does not."""
        if order.source.kind not in _WITH_HISTORY or not scmversions.asked_by(map(name_of, requires)):
            return None
        return order.version or self._means.version(order.source)

    def _taken(self, order: _Order, build: LockedBuild, left: Path) -> BuiltWheel:
        """The wheel that a build left, in its one form and in the cache, offered to the team."""
        found, version = wheelrepack.name_and_version(left.name, order.label)
        if found != order.name:
            raise BadBuild(f"{order.label}: the build left {left.name}, which is another distribution")
        if not left.is_file() or left.is_symlink():
            raise BadBuild(f"{order.label}: the build names {left.name} and did not leave it")
        made = left.parent.parent / left.name
        sha256 = wheelrepack.repack(left, made, order.label)
        wheel = self._built.add(
            BuiltWheel(
                name=order.name,
                version=str(version),
                filename=left.name,
                sha256=sha256,
                size=made.stat().st_size,
                build=build,
                path=made,
            )
        )
        shelf = self._means.shelf()
        if shelf is not None:
            shelf.put(wheel)
        return wheel

    @contextmanager
    def _opened(self, order: _Order) -> Iterator[_Opened]:
        """The source of ``order``, unpacked anew."""
        with files.scratch_folder(self._means.cache / "scratch") as scratch:
            archive = self._means.archive(order.name, order.source)
            folder = order.source.subdirectory
            root = sourcetree.unpack(archive, scratch / "source", subdirectory=folder, label=order.label)
            yield _Opened(scratch, root, sourcetree.build_system(root, order.label))

    def _check_glibc(self, built: BuiltWheel, floor: tuple[int, int] | None, label: str) -> None:
        if floor is None or wheelrepack.is_pure(built.filename):
            return
        needed = self._means.glibc(built.path)
        if needed is not None and needed > floor:
            shown = f"{needed[0]}.{needed[1]}"
            here = built.build.where == "host"
            place = "on this machine" if here else f"in {built.build.where}"
            message = f"{label}: built {place} it needs glibc {shown}, the floor is {floor[0]}.{floor[1]}"
            other = "build in a container" if here else "name an older image with the setting build.image"
            hint = f'Allow it with glibc="{shown}", or {other}.'
            raise BuiltTooNew(message, hint=hint)

    @contextmanager
    def _held(self, source: LockedSource) -> Iterator[None]:
        """One build of a source at a time: who waits finds it done."""

        def waiting(holder: str, seconds: float) -> None:
            self._means.reporter.say(f"waiting for {holder}, which builds {_shown(source)} ({seconds:.0f} s)")

        with (
            _IN_PROCESS[int(source.sha256[:3], 16) % len(_IN_PROCESS)],
            files.locked(self._means.cache / "locks" / "builds" / source.sha256[:32], waiting=waiting),
        ):
            yield


_IN_PROCESS = tuple(threading.Lock() for _ in range(16))
"""Threads of one process wait here rather than polling the OS lock."""


def _part(lock: EnvLock, platform: Platform) -> PlatformLock:
    """The build requirements as locked, on the platform that they are locked for."""
    part = lock.on(platform)
    assert part is not None
    return part


def _kept(part: PlatformLock, extra: tuple[str, ...]) -> Iterator[str]:
    """The locked build requirements as pins, without those that ``extra`` asks for."""
    there = {name_of(line) for line in extra}
    return (f"{one.name}=={one.version}" for one in part.wheels if one.name not in there)


def _answer(folder: Path, label: str) -> dict[str, Any]:
    try:
        told = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        if isinstance(told.get("wheel"), str) and "/" not in told["wheel"]:
            return {"wheel": told["wheel"]}
        wanted = [requirement(str(line)) for line in told["requires"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadBuild(f"{label}: the build ended well and left no answer") from error
    return {"requires": wanted}


def _shown(source: LockedSource) -> str:
    """A source for people."""
    if source.kind == "git":
        return f"{redact.url(source.url)} at {(source.commit or '')[:12]}"
    return redact.url(source.url) if source.kind == "folder" else source.url.rpartition("/")[2]
