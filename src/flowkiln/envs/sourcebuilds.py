"""What a resolution has to build: sources that the request names, and packages that have no wheel for the target.

The solver never sees a source: it is handed the wheel that was built of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from flowkiln._base import redact
from flowkiln.envs import given, handing, indexpages, wheelrepack
from flowkiln.envs.builderrors import BadBuild, BuildError, NoSource
from flowkiln.envs.handing import HandedWheel
from flowkiln.envs.lock import AbsentPlatform, LockedSource
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.builtwheels import BuiltWheel
    from flowkiln.envs.direct import DirectReference
    from flowkiln.envs.errors import EnvError, NoWheel
    from flowkiln.envs.indexpages import IndexFile
    from flowkiln.envs.lock import EnvLock, LockedBuild, LockedWheel, PlatformLock
    from flowkiln.envs.uv import Question, Solver


class Sources(Protocol):
    """Sources pinned, and built into wheels."""

    def pin(self, reference: DirectReference, previous: LockedSource | None, *, upgrade: bool) -> LockedSource:
        """Where the source of ``reference`` is now; where ``previous`` says unless ``upgrade`` frees it."""

    def wheel(self, reference: DirectReference, source: LockedSource) -> HandedWheel | None:
        """The wheel that ``source`` is, None where it has to be built."""

    def builds_for(self, platform: Platform) -> bool:
        """Whether something here builds for ``platform`` itself."""

    def build(
        self, name: str, source: LockedSource, *, platform: Platform, python: str, glibc: tuple[int, int] | None
    ) -> BuiltWheel:
        """The wheel of ``source``, built unless it was before."""

    def find(self, build: LockedBuild) -> BuiltWheel | None:
        """The wheel of a build that was done before, None where nobody has it."""


def handed(solver: Solver, question: Question, previous: Mapping[str, LockedWheel]) -> Question:
    """``question`` with the wheel of every direct reference, and those that were built for the lock that stands.

    Raises the errors of sources and builds.
    """
    wheels = (*_directs(solver, question, previous), *_standing(solver, question, previous.values()))
    return replace(question, handed=(*question.handed, *wheels))


def _standing(solver: Solver, question: Question, previous: Iterable[LockedWheel]) -> Iterator[HandedWheel]:
    """Wheels of source distributions in the lock that stands: versions to keep, as far as they are within reach."""
    direct = {one.name for one in question.spec.direct}
    for wheel in previous:
        if wheel.build is None or wheel.build.source.kind != "sdist" or solver.builder is None:
            continue
        if wheel.name in direct or wheel.build.python != question.target.python or _upgraded(wheel.name, question):
            continue
        found = solver.builder.find(wheel.build)
        if found is not None and found.sha256 == wheel.sha256:
            yield replace(_as_handed(found, wheel.build.source), index=wheel.index)


def _directs(solver: Solver, question: Question, previous: Mapping[str, LockedWheel]) -> Iterator[HandedWheel]:
    assert solver.builder is not None or not question.spec.direct
    for reference in question.spec.direct:
        assert solver.builder is not None
        if not _wanted(reference.name, question):
            continue
        standing = previous.get(reference.name)
        own = _source_of(standing) if standing is not None else None
        source = solver.builder.pin(reference, own, upgrade=_upgraded(reference.name, question))
        ready = solver.builder.wheel(reference, source)
        built = ready or _built(solver, question, reference.name, source, standing)
        yield replace(built, direct=True)


def _source_of(wheel: LockedWheel) -> LockedSource:
    """The source that a wheel of the lock was built of, or itself where it is from a URL."""
    if wheel.build is not None:
        return wheel.build.source
    return LockedSource(kind="archive", url=wheel.url, sha256=wheel.sha256, size=wheel.size)


def lacking(
    solver: Solver, question: Question, error: NoWheel, previous: Mapping[str, LockedWheel]
) -> Question | None:
    """``question`` with wheels built for the packages that have none, None where that is no remedy.

    Raises ``NoSource`` and the errors of builds.
    """
    there = {one.name for one in question.handed}
    names = [name for name in error.data.get("packages", ()) if name not in there]
    if solver.builder is None or not names or solver.offline:
        return None
    found = []
    for name in names:
        file = _sdist(solver, question, name, error, previous.get(name))
        if file is None:
            return None
        assert file.sha256 is not None
        source = LockedSource(kind="sdist", url=redact.url(file.url), sha256=file.sha256, size=file.size)
        index = error.data["indexes"].get(name)
        one = _built(solver, question, name, source, previous.get(name))
        found.append(replace(one, index=redact.url(index).rstrip("/") if index else None))
    return replace(question, handed=(*question.handed, *found))


def completed(solver: Solver, lock: EnvLock, previous: EnvLock | None, required: Collection[Platform]) -> EnvLock:
    """A lock of another tool with the wheels that are to be built of its source distributions.

    A platform that is not ``required`` and cannot be built for is recorded as absent. Raises the errors of builds.
    """
    parts: list[PlatformLock] = []
    absent = list(lock.absent)
    failed: list[EnvError] = []
    for part in lock.platforms:
        try:
            parts.append(_completed(solver, part, previous.on(part.platform) if previous else None))
        except BuildError as error:
            if part.platform in required:
                raise
            failed.append(error)
            reason = error.message.splitlines()[0]
            absent.append(AbsentPlatform(platform=part.platform, reason=reason))
    if failed and not parts:
        raise failed[0]
    return replace(lock, platforms=tuple(parts), absent=tuple(sorted(absent, key=lambda one: one.platform)))


def _completed(solver: Solver, part: PlatformLock, previous: PlatformLock | None) -> PlatformLock:
    standing = {one.name: one for one in previous.wheels} if previous is not None else {}
    wheels = []
    for wheel in part.wheels:
        own = standing.get(wheel.name)
        if not given.is_unbuilt(wheel):
            wheels.append(wheel)
        elif (
            own is not None and own.build is not None and wheel.build is not None and _same(own.build, wheel.build)
        ):
            wheels.append(replace(own, requires=wheel.requires))
        else:
            wheels.append(_built_of(solver, wheel, part))
    return replace(part, wheels=tuple(wheels))


def _same(one: LockedBuild, other: LockedBuild) -> bool:
    return one.source == other.source and one.python == other.python


def _built_of(solver: Solver, wheel: LockedWheel, part: PlatformLock) -> LockedWheel:
    assert wheel.build is not None
    if solver.builder is None:
        raise NoSource(f"{wheel.name} {wheel.version} has no wheel, and nothing may be built")
    source = wheel.build.source
    built = solver.builder.build(wheel.name, source, platform=part.platform, python=part.python, glibc=part.glibc)
    if Version(built.version) != Version(wheel.version):
        message = f"{wheel.name}: the source of version {wheel.version} built as {built.version}"
        raise BadBuild(message)
    return replace(handing.locked(_as_handed(built, source), wheel.requires), index=wheel.index)


def _built(
    solver: Solver,
    question: Question,
    name: str,
    source: LockedSource,
    standing: LockedWheel | None,
) -> HandedWheel:
    """The wheel of ``source``: that of the lock that stands, where it was built of the same one."""
    assert solver.builder is not None
    target = question.target
    built: BuiltWheel | None = None
    if standing is not None and standing.build is not None and not _upgraded(name, question):
        same = standing.build.source == source and standing.build.python == target.python
        found = solver.builder.find(standing.build) if same else None
        built = found if found is not None and found.sha256 == standing.sha256 else None
    if built is None:
        built = solver.builder.build(
            name, source, platform=target.platform, python=target.python, glibc=target.glibc
        )
    return _as_handed(built, source)


def _as_handed(built: BuiltWheel, source: LockedSource) -> HandedWheel:
    return HandedWheel(
        name=built.name,
        version=built.version,
        filename=built.filename,
        sha256=built.sha256,
        size=built.size,
        path=built.path,
        url=source.url,
        build=replace(built.build, source=source),
    )


def _sdist(
    solver: Solver, question: Question, name: str, error: NoWheel, standing: LockedWheel | None
) -> IndexFile | None:
    """The source distribution to build: the locked one where it will do, else the newest.

    None for one that has compiled wheels for other platforms, where nothing here builds for the target: it would
    be compiled for nothing.
    """
    assert solver.builder is not None
    index = redact.url(str(error.data["indexes"].get(name) or ""))
    url = f"{index.rstrip('/')}/{name}/"
    page = indexpages.fetch([url], solver.plan).get(url) if index else None
    allowed = dict(question.spec.hashes).get(name)
    found: dict[Version, IndexFile] = {}
    compiled: set[Version | None] = set()
    for file in indexpages.files(page or "", url):
        version = _version(file)
        if file.is_wheel and not wheelrepack.is_pure(file.name):
            compiled.add(version)
        if file.is_source and file.sha256 and version and (allowed is None or file.sha256 in allowed):
            found.setdefault(version, file)
    kept = standing.version if standing is not None and not _upgraded(name, question) else None
    fitting = sorted(_fitting(question, name, error, found, kept), reverse=True)
    chosen = next((one for one in fitting if str(one) == kept), fitting[0] if fitting else None)
    if chosen in compiled and not solver.builder.builds_for(question.target.platform):
        return None
    if chosen is not None:
        return found[chosen]
    message = f"{error.message}\nand there is no source distribution of {name} to build one from"
    raise NoSource(message, hint=error.hint, step=error.step, log=error.log, data=error.data)


def _fitting(
    question: Question, name: str, error: NoWheel, found: Mapping[Version, IndexFile], kept: str | None
) -> Iterator[Version]:
    told = [_specifiers(str(error.data["ranges"].get(name, "*")))]
    lines = (*question.spec.requirements, *question.spec.constraints, *question.pins)
    asking = [[Requirement(line).specifier] for line in lines if normal_name(Requirement(line).name) == name]
    ranges = [*told, *asking]
    asked = any(one.prereleases for options in ranges for one in options)
    exact = {str(part) for options in ranges for one in options for part in one if part.operator == "=="}
    for version, file in found.items():
        if version.is_prerelease and not asked:
            continue
        if file.yanked and not exact:
            continue
        cutoff = question.spec.exclude_newer
        if cutoff and file.uploaded and file.uploaded >= cutoff:
            continue
        if not _allows(file.requires_python or "", Version(question.full_python)):
            continue
        # A version to keep was tried first, and stands in no range that the solver tells of.
        limits = asking if str(version) == kept else ranges
        if all(any(one.contains(version, prereleases=True) for one in options) for options in limits):
            yield version


def _specifiers(text: str) -> Sequence[SpecifierSet]:
    """The alternatives of a range as the solver tells it: ``>=1, <2 | >3``."""
    found = []
    for part in text.split("|"):
        try:
            found.append(SpecifierSet("" if part.strip() == "*" else part.strip()))
        except InvalidSpecifier:
            return [SpecifierSet()]
    return found


def _allows(text: str, python: Version) -> bool:
    try:
        return SpecifierSet(text).contains(python, prereleases=True)
    except InvalidSpecifier:
        return True


def _version(file: IndexFile) -> Version | None:
    try:
        return Version(file.version)
    except InvalidVersion:
        return None


def _wanted(name: str, question: Question) -> bool:
    """Whether a line of the request for ``name`` may hold on the target: a marker may say otherwise."""
    lines = [Requirement(line) for line in question.spec.requirements]
    environment = given.environment(question.target, question.full_python)
    own = [line for line in lines if normal_name(line.name) == name]
    return any(line.marker is None or line.marker.evaluate(dict(environment)) for line in own)


def _upgraded(name: str, question: Question) -> bool:
    return question.upgrade is True or (isinstance(question.upgrade, frozenset) and name in question.upgrade)
