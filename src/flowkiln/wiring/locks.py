"""Requests -> locks: read where they stand and hold, made where they are missing or stale and may be made."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import parallel, platforms
from flowkiln.envs.errors import MissingLock, StaleLock
from flowkiln.envs.lockfolder import INCOMPLETE, INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowkiln._base.command import Limits
    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.condaquestion import CondaSolver, Driven
    from flowkiln.envs.lock import EnvLock
    from flowkiln.envs.lockfolder import LockFolder
    from flowkiln.envs.resolve import Resolution
    from flowkiln.envs.spec import EnvSpec
    from flowkiln.envs.uv import Solver
    from flowkiln.wiring.building import Building
    from flowkiln.wiring.policy import Policy

AT_ONCE = 4
"""Environments that are resolved at once; each has a process per platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An environment that is wanted: its name, what was asked, where its locks stand, who uses it.

    ``declared`` is the file that declares it, for people.
    """

    name: str
    spec: EnvSpec
    folder: LockFolder
    declared: Path
    steps: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The environment in a sentence: its steps where they say more than its name."""
        return f"environment {self.name!r}"


@dataclass(slots=True, kw_only=True)
class Settled:
    """The locks of some requests, by request, with what was done for them.

    ``made`` are those resolved now, ``files`` the paths that changed, ``folders`` where they were written.
    """

    locks: dict[Request, EnvLock] = field(default_factory=dict)
    made: list[Request] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    folders: list[LockFolder] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Settled) -> None:
        """Takes what was done for further requests."""
        self.locks |= other.locks
        self.made += other.made
        self.files += other.files
        self.folders += other.folders
        self.notes += other.notes


def widened(request: Request, settings: Settings) -> Request:
    """``request`` for the platforms of the settings, where it names none itself."""
    told = settings.items("platforms")
    if not told or request.spec.platforms:
        return request
    return replace(request, spec=request.spec.with_platforms(platforms.Platform.parse(text) for text in told))


def read(folder: LockFolder) -> dict[str, EnvLock]:
    """The locks of ``folder``; those of its stand-in in the cache where it has none and cannot be written."""
    return standing_folder(folder).read()


def standing_folder(folder: LockFolder) -> LockFolder:
    """``folder``, or its stand-in in the cache where it has no locks and cannot be written."""
    return folder if (folder.path / INDEX).exists() or folder.writable else folder.or_cache()


def state(request: Request, locks: dict[str, EnvLock], host: Platform | None = None) -> str:
    """``fresh``, ``stale``, or ``missing``; with ``host`` a lock that lacks that platform is missing too."""
    lock = locks.get(request.name)
    if lock is None:
        return "missing"
    if lock.spec_id != request.spec.spec_id:
        return "stale"
    if host is not None and lock.on(host) is None and not any(one.platform == host for one in lock.absent):
        return "missing"
    return "fresh"


def settle(
    requests: Sequence[Request],
    settings: Settings,
    reporter: Reporter,
    *,
    policy: Policy,
    host: Platform | None = None,
) -> Settled:
    """A lock for every request, made where ``policy`` allows it.

    ``host`` is the platform that the locks are about to be used on. Raises ``MissingLock``, ``StaleLock`` and the
    errors of resolving.
    """
    settled = Settled()
    for folder, group in _by_folder(requests).items():
        standing = read(folder)
        wanting = [request for request in group if _wants(request, standing, policy, host)]
        settled.locks.update({request: standing[request.name] for request in group if request not in wanting})
        if wanting:
            _make(folder, wanting, settings, reporter, policy, settled)
    return settled


def _by_folder(requests: Iterable[Request]) -> dict[LockFolder, list[Request]]:
    groups: dict[LockFolder, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.folder, []).append(request)
    return groups


def _wants(request: Request, standing: dict[str, EnvLock], policy: Policy, host: Platform | None) -> bool:
    found = state(request, standing, host)
    if policy.frozen and found == "stale":
        found = "fresh" if host is None or standing[request.name].on(host) is not None else "missing"
    if found == "fresh":
        return policy.upgrade is not False or bool(
            {*policy.platforms} - {part.platform for part in standing[request.name].platforms}
        )
    if not (policy.locked or policy.frozen):
        return True
    step = request.steps[0] if request.steps else None
    where = f"{request.folder.path}{os.sep}flowkiln.lock"
    hint = f"Run `flowkiln env lock {os.path.relpath(request.declared)}` and commit the files it names."
    if found == "stale":
        message = f"the requirements of {request.label} have changed since {where} was written"
        if standing[request.name].spec_id == INCOMPLETE:
            message = f"{request.label} lacks a file of its lock that {where} names"
        raise StaleLock(message, step=step, hint=hint)
    on = f" for {host}" if host is not None and request.name in standing else ""
    raise MissingLock(f"{request.label} has no lock{on} in {where}", step=step, hint=hint)


def _make(
    folder: LockFolder,
    wanting: list[Request],
    settings: Settings,
    reporter: Reporter,
    policy: Policy,
    settled: Settled,
) -> None:
    target = folder.or_cache()

    def waiting(holder: str, seconds: float) -> None:
        reporter.say(f"waiting for {holder}, which writes {folder.path} ({seconds:.0f} s)")

    with target.hold(waiting):
        standing = read(folder)

        def resolved(request: Request) -> Resolution:
            with closing(_builder(request, settings, reporter)) as builder:
                solver = replace(solver_of(request, settings, reporter), builder=builder, linker=builder)
                return _resolved(request, standing.get(request.name), solver, policy)

        answers = parallel.together(resolved, wanting, at_once=AT_ONCE)
        made = {answer.lock.name: answer.lock for answer in answers}
        changed = target.write({**standing, **made})
    for request, answer in zip(wanting, answers, strict=True):
        settled.locks[request] = answer.lock
        settled.notes += [str(passed) for passed in answer.passed_over] + list(answer.warnings)
        if answer.lock != standing.get(request.name):
            settled.made.append(request)
    settled.files += changed
    settled.folders.append(target)


def solver_of(request: Request, settings: Settings, reporter: Reporter) -> Solver:
    """How ``request`` is resolved: indexes and channels by precedence, network or not, where progress goes.

    Raises ``UnsupportedSetting`` for settings of pip and uv that would change what is locked.
    """
    from flowkiln.envs import ambient, indexes
    from flowkiln.envs.uv import Solver

    plan = indexes.plan_of(settings, request.spec)
    ambient.check(plan.refused)
    return Solver(
        plan=plan,
        offline=settings.flag("offline"),
        reporter=reporter,
        limits=_limits(settings),
        conda=conda_solver_of(request, settings, reporter) if request.spec.conda else None,
    )


def _builder(request: Request, settings: Settings, reporter: Reporter) -> Building:
    """What builds wheels for ``request``; nothing is asked of an engine before something has to be built."""
    from flowkiln.wiring.building import Building

    return Building(settings, reporter, spec=request.spec, folder=request.declared.absolute().parent)


def conda_solver_of(request: Request, settings: Settings, reporter: Reporter) -> CondaSolver:
    """How conda packages are chosen for ``request``: channels by precedence, network or not, where words go."""
    from flowkiln.envs import channels
    from flowkiln.envs.condaquestion import CondaSolver

    plan = channels.plan_of(settings, request.spec)
    if plan.ignored:
        reporter.warn(f"{request.label}: settings of conda without effect here: {', '.join(plan.ignored)}")
    return CondaSolver(
        plan=plan,
        offline=settings.flag("offline"),
        reporter=reporter,
        limits=_limits(settings),
        driven=driven_of(settings),
    )


def driven_of(settings: Settings) -> Driven | None:
    """The program that chooses conda packages, where that is not rattler."""
    from flowkiln.envs.condaquestion import Driven

    solver, program = settings.text("conda.solver"), settings.text("conda.program")
    if solver is None or solver == "rattler":
        return None
    return Driven(solver=solver, program=Path(program) if program else None)


def _limits(settings: Settings) -> Limits:
    from flowkiln._base.command import Limits

    stall = settings.count("lock-timeout")
    return Limits(stall=stall, total=10 * stall) if stall else Limits()


def _resolved(request: Request, previous: EnvLock | None, solver: Solver, policy: Policy) -> Resolution:
    from flowkiln.envs.resolve import resolve

    return resolve(
        request.name,
        request.spec,
        solver,
        host=platforms.host(),
        previous=previous,
        upgrade=policy.upgrade,
        steps=request.steps,
        also=policy.platforms,
    )


def prune(folder: LockFolder, names: set[str]) -> tuple[list[str], list[Path]]:
    """Removes the locks of environments that nothing declares any more: their names, and the paths that changed."""
    target = folder.or_cache()
    with target.hold():
        standing = target.read()
        kept = {name: lock for name, lock in standing.items() if name in names}
        removed = sorted(standing.keys() - kept.keys())
        if not removed and (kept or not (target.path / INDEX).exists()):
            return [], []
        return removed, target.write(kept)
