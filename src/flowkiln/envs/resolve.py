"""EnvSpec -> EnvLock: each platform resolved, conda first, then uv; one wheel chosen per package, proved to fit.

The result is a function of the request, the platforms, the index and the previous lock, never of the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowkiln._base import parallel
from flowkiln._base.errors import concerning
from flowkiln.envs import (
    bounds,
    condaside,
    linkside,
    passed,
    provided,
    pylock,
    pythons,
    requirements,
    sourcebuilds,
    sourcefile,
    variants,
    wheelchoice,
)
from flowkiln.envs.errors import EnvError, UnsupportedTarget
from flowkiln.envs.lock import AbsentPlatform, EnvLock, LockedWheel, PlatformLock
from flowkiln.envs.spec import DEFAULT_PLATFORMS, normal_name
from flowkiln.envs.uv import Answer, Question, Solver
from flowkiln.envs.wheels import OLDEST_GLIBC, Target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.condaside import CondaSide
    from flowkiln.envs.spec import EnvSpec

Upgrade = bool | frozenset[str]
"""What may move: False nothing that need not, True everything, or the named packages."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One platform: its lock, what uv answered (None where it was not needed), and the channels asked."""

    lock: PlatformLock
    answer: Answer | None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the platforms of one environment have in common."""

    name: str
    spec: EnvSpec
    python: str
    full_python: str
    steps: tuple[str, ...]
    solver: Solver
    previous: EnvLock | None
    upgrade: Upgrade
    demanded: frozenset[Platform]


@dataclass(slots=True)
class Resolution:
    """A lock with what people should be told about it."""

    lock: EnvLock
    passed_over: list[passed.Passed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def resolve(
    name: str,
    spec: EnvSpec,
    solver: Solver,
    *,
    host: Platform,
    previous: EnvLock | None = None,
    upgrade: Upgrade = False,
    steps: Sequence[str] = (),
    also: Collection[Platform] = (),
) -> Resolution:
    """Locks ``spec`` for its platforms.

    ``previous`` is the lock that stands: its versions are kept where they satisfy the request, unless ``upgrade``
    frees them; with an equal ``spec_id`` and nothing to upgrade only platforms that it lacks are resolved.
    ``also`` are platforms wanted besides those of the request: they must have a solution, and move no ``spec_id``.
    A lock of another tool is taken as it is: no index, channel or solver is asked. Raises ``EnvError``.
    """
    python = _python(spec, previous)
    if spec.given is not None:
        wanted = tuple(sorted({*targets(spec, host, previous), *also}))
        full = pythons.full(python, solver.patches)
        required = {*spec.platforms, *also}
        with concerning(next(iter(steps), None)):
            taken = sourcefile.locked(name, spec, wanted, python=full, required=required, steps=steps)
        with concerning(next(iter(steps), None), f"environment {name!r}"):
            taken = sourcebuilds.completed(solver, taken, previous, required | {host})
        linking = linkside.Linking(solver.linker, name, spec, previous, upgrade=upgrade, steps=tuple(steps))
        taken = linking.given(taken, demanded=required)
        return Resolution(taken, [], [*_differences(taken), *linkside.warnings(taken, spec)])
    if spec.conda:
        condaside.load()
    job = _Job(
        name=name,
        spec=spec,
        python=pythons.minor(python),
        full_python=pythons.full(python, solver.patches),
        steps=tuple(steps),
        solver=solver,
        previous=previous,
        upgrade=_effective(upgrade, spec, previous),
        demanded=frozenset({*spec.platforms, *also}),
    )
    wanted = tuple(sorted({*targets(spec, host, previous), *also}))
    standing = _standing(job, wanted)
    found, absent = _all(job, [platform for platform in wanted if platform not in standing], standing)
    parts = {**standing, **{platform: part.lock for platform, part in found.items()}}
    lock = EnvLock(
        name=name,
        spec_id=spec.spec_id,
        python=job.python,
        platforms=tuple(parts[platform] for platform in sorted(parts)),
        absent=tuple(sorted(absent, key=lambda one: one.platform)),
        steps=tuple(sorted(steps)),
        channels=_channels(found, previous),
    )
    heard = [(part.lock, part.answer.trace) for _, part in sorted(found.items()) if part.answer is not None]
    told = passed.explain(heard, solver.plan, offline=solver.offline, cutoff=spec.exclude_newer)
    warnings = {f"{name}: {provided.readable(line)}": None for _, trace in heard for line in trace.warnings}
    warnings |= dict.fromkeys(linkside.warnings(lock, spec) if found else ())
    if spec.cuda and not {wheel.name for part in lock.platforms for wheel in part.wheels} & set(variants.PACKAGES):
        warnings[f"{name}: cuda={spec.cuda!r} chooses nothing: no package of the environment has variants"] = None
    return Resolution(lock, told, [*warnings, *(_differences(lock) if found else ())])


def targets(spec: EnvSpec, host: Platform, previous: EnvLock | None = None) -> tuple[Platform, ...]:
    """The platforms to lock for: those asked for; else the default, a host that isn't Linux, ``previous``'s."""
    if spec.platforms:
        return tuple(sorted(spec.platforms))
    wanted = set(DEFAULT_PLATFORMS)
    if host.os != "linux":
        wanted.add(host)
    if previous is not None:
        wanted |= {part.platform for part in previous.platforms}
    return tuple(sorted(wanted))


def _python(spec: EnvSpec, previous: EnvLock | None) -> str:
    if spec.glibc < OLDEST_GLIBC:
        message = f"glibc floor {spec.glibc[0]}.{spec.glibc[1]} is too old; the lowest is 2.17"
        raise UnsupportedTarget(message, hint='Write for example glibc="2.28".')
    asked, admitted = condaside.python_of(spec)
    return pythons.decide(asked, admitted, previous.python if previous is not None else None)


def _channels(found: Mapping[Platform, _Part], previous: EnvLock | None) -> tuple[str, ...]:
    """The channels that were asked now, else those of the lock that stands."""
    asked = {url: None for _, part in sorted(found.items()) for url in part.channels}
    return tuple(asked) if found else previous.channels if previous is not None else ()


def _effective(upgrade: Upgrade, spec: EnvSpec, previous: EnvLock | None) -> Upgrade:
    """``upgrade`` without the packages that this environment does not have."""
    if isinstance(upgrade, bool):
        return upgrade
    known = {requirements.name_of(line) for line in spec.requirements}
    if previous is not None:
        known |= {wheel.name for part in previous.platforms for wheel in part.wheels}
    known |= condaside.names_of(spec, previous.platforms if previous is not None else ())
    return frozenset(map(normal_name, upgrade)) & known or False


def _standing(job: _Job, wanted: Sequence[Platform]) -> dict[Platform, PlatformLock]:
    """The parts of the previous lock that answer this very request."""
    previous = job.previous
    if previous is None or job.upgrade or previous.spec_id != job.spec.spec_id:
        return {}
    return {part.platform: part for part in previous.platforms if part.platform in wanted}


def _all(
    job: _Job, platforms: Sequence[Platform], standing: Mapping[Platform, PlatformLock]
) -> tuple[dict[Platform, _Part], list[AbsentPlatform]]:
    """Resolves ``platforms``: Linux first, in parallel; the others keep to the versions found there."""
    linux = [platform for platform in platforms if platform.os == "linux"]
    others = [platform for platform in platforms if platform.os != "linux"]
    known = _absent_before(job)
    absent = [known[platform] for platform in platforms if platform in known]
    results = _parallel(job, [platform for platform in linux if platform not in known], standing.values())
    results |= _aligned(job, results)
    lead = [*standing.values(), *(part.lock for part in _parts(results).values())]
    results |= _parallel(job, [platform for platform in others if platform not in known], lead)
    results |= _linked(job, _parts(results))
    for platform, result in results.items():
        if isinstance(result, EnvError):
            if platform in job.demanded or len(results) == 1 or not _parts(results):
                raise result
            reason = result.message.splitlines()[0].partition(f"{platform}: ")[2] or result.title
            absent.append(AbsentPlatform(platform=platform, reason=reason))
    return _parts(results), absent


def _linked(job: _Job, parts: Mapping[Platform, _Part]) -> dict[Platform, _Part | EnvError]:
    """The parts with what link scripts leave in them, one after another; those without allowed scripts are left."""
    linking = linkside.Linking(
        job.solver.linker, job.name, job.spec, job.previous, upgrade=job.upgrade, steps=job.steps
    )
    found: dict[Platform, _Part | EnvError] = {}
    for platform, part in parts.items():
        try:
            found[platform] = replace(part, lock=linking.of(part.lock))
        except EnvError as error:
            found[platform] = error
    return found


def _absent_before(job: _Job) -> dict[Platform, AbsentPlatform]:
    """Platforms known to have no solution: looked at again only when the request changes or may move."""
    previous = job.previous
    if previous is None or job.upgrade or previous.spec_id != job.spec.spec_id:
        return {}
    return {one.platform: one for one in previous.absent if one.platform not in job.demanded}


def _parts(results: Mapping[Platform, _Part | EnvError]) -> dict[Platform, _Part]:
    return {platform: part for platform, part in results.items() if isinstance(part, _Part)}


def _parallel(
    job: _Job, platforms: Sequence[Platform], lead: Iterable[PlatformLock]
) -> dict[Platform, _Part | EnvError]:
    leading = next(iter(lead), None)

    def one(platform: Platform) -> _Part | EnvError:
        try:
            return _platform(job, platform, leading)
        except EnvError as error:
            return error

    return dict(zip(platforms, parallel.together(one, platforms, at_once=3), strict=True))


def _aligned(job: _Job, results: Mapping[Platform, _Part | EnvError]) -> dict[Platform, _Part | EnvError]:
    """Parts resolved again so that the Linux platforms have equal versions where there are such."""
    parts = _parts(results)
    if len(parts) < 2:
        return {}
    first, *rest = sorted(parts)
    again: dict[Platform, _Part | EnvError] = {}
    for platform in rest:
        if versions(parts[platform].lock) != versions(parts[first].lock):
            again[platform] = _platform(job, platform, parts[first].lock, follow=True)
    differing = [part for part in _parts(again).values() if versions(part.lock) != versions(parts[first].lock)]
    if differing:
        followed = _platform(job, first, differing[0].lock, follow=True)
        if versions(followed.lock) == versions(differing[0].lock):
            again[first] = followed
    return again


def _differences(lock: EnvLock) -> list[str]:
    """One line for each package whose version is not the same on every platform that has it."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in lock.platforms:
        for one in part.packages:
            found.setdefault(one.name, {}).setdefault(one.version, []).append(str(part.platform))
    return [
        f"{lock.name}: {name} is "
        + ", ".join(f"{version} on {' and '.join(on)}" for version, on in sorted(by_version.items()))
        for name, by_version in sorted(found.items())
        if len(by_version) > 1
    ]


def versions(lock: PlatformLock) -> dict[str, str]:
    """Name -> version of every package in ``lock``; conda's names are apart from PyPI's."""
    conda = {f"conda::{one.name}": one.version for one in lock.conda}
    return conda | {wheel.name: wheel.version for wheel in lock.wheels}


def _platform(job: _Job, platform: Platform, lead: PlatformLock | None, *, follow: bool = False) -> _Part:
    """One platform; ``follow`` prefers the versions of ``lead`` to the previous ones."""
    own = job.previous.on(platform) if job.previous is not None and not follow else None
    side = _conda(job, platform, own, lead) if job.spec.conda else None
    glibc = job.spec.glibc if platform.os == "linux" else None
    lock = PlatformLock(
        platform=platform,
        python=job.python,
        wheels=(),
        glibc=glibc,
        winners=job.spec.winners,
        conda=side.packages if side else (),
        virtual=side.virtual if side else (),
    )
    channels = side.channels if side else ()
    if side is not None and not job.spec.requirements:
        return _Part(lock, None, channels)
    preferred = own or lead
    question = Question(
        name=job.name,
        spec=job.spec,
        target=Target(platform, job.python, glibc),
        full_python=side.full_python if side else job.full_python,
        preferred=pylock.preferences(job.python, preferred.wheels) if preferred else None,
        upgrade=False if follow else job.upgrade,
        steps=job.steps,
        conda=lock.conda,
    )
    standing = {wheel.name: wheel for wheel in preferred.wheels} if preferred else {}
    question, wheels, answer = wheelchoice.choose(job.solver, question, standing)
    # With a Python of conda's the patch is in the lock: nothing else is to be bound.
    minimum, below = (None, None) if side else bounds.find(job.solver, question, wheels)
    lock = replace(
        lock, wheels=wheels, python_minimum=minimum, python_below=below, virtual=_virtual(job, lock, wheels)
    )
    return _Part(lock, answer, channels)


def _virtual(job: _Job, lock: PlatformLock, wheels: Sequence[LockedWheel]) -> tuple[tuple[str, str], ...]:
    """What the platform has to have: what conda packages were solved for, a driver for the variants of wheels."""
    if not job.spec.cuda or lock.platform.os != "linux":
        return lock.virtual
    return tuple(
        sorted(
            {**dict(variants.virtual(job.spec.cuda, [one.name for one in wheels])), **dict(lock.virtual)}.items()
        )
    )


def _conda(job: _Job, platform: Platform, own: PlatformLock | None, lead: PlatformLock | None) -> CondaSide:
    """The conda side of one platform, which its requirements from PyPI accept."""
    assert job.solver.conda is not None, "a request with conda packages comes with a solver for them"
    keeping = condaside.Keeping(own=own, lead=None if own else lead, upgrade=job.upgrade if own else False)
    side = condaside.choose(
        job.solver.conda,
        job.name,
        job.spec,
        platform=platform,
        python=job.python,
        steps=job.steps,
        keeping=keeping,
    )
    label = f"environment {job.name!r} for {platform}"
    provided.check(job.spec.requirements, side.packages, label, next(iter(job.steps), None))
    return side
