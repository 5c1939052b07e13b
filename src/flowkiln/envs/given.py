"""What a lock file of another tool gives: packages exactly as they are locked there, with no solver asked.

``Wanted`` is the question that each reader answers with a ``Given``; ``Given.lock`` makes an ``EnvLock`` of it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.utils import parse_wheel_filename

from flowkiln._base import digests, redact
from flowkiln.envs import pythons
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import EnvLock, LockedBuild, LockedConda, LockedSource, LockedWheel, PlatformLock
from flowkiln.envs.lockfileerrors import NotHonoured, NotInGivenLock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.pylock import FoundPackage, FoundWheel
    from flowkiln.envs.wheels import Target

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_PATCHES = 40
"""Higher than any patch version of a Python will be: where a bound is looked for."""

Environment = dict[str, str]
"""The variables of markers (PEP 508) with their values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of a given lock: the platforms with their floors and one Python, extras and groups by name.

    ``python`` is ``X.Y.Z``. ``required`` are the platforms that were asked for by name: where another one is not in
    the lock, it is left out. Without ``project``, groups are all that is asked for.
    """

    targets: tuple[Target, ...]
    python: str
    extras: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    required: frozenset[Platform] = frozenset()
    project: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPart:
    """One platform of a given lock. The bounds of the patch version are those of ``PlatformLock``."""

    platform: Platform
    wheels: tuple[LockedWheel, ...] = ()
    conda: tuple[LockedConda, ...] = ()
    glibc: tuple[int, int] | None = None
    python_minimum: str | None = None
    python_below: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The packages of a given lock for each platform that it covers. ``python`` is ``X.Y``.

    ``channels`` are the URLs of its conda channels, best first, without credentials.
    """

    python: str
    parts: tuple[GivenPart, ...]
    channels: tuple[str, ...] = ()

    def lock(
        self,
        name: str,
        spec_id: str,
        *,
        steps: tuple[str, ...] = (),
        winners: tuple[tuple[str, str], ...] = (),
        virtual: Mapping[Platform, tuple[tuple[str, str], ...]] | None = None,
    ) -> EnvLock:
        """The lock of environment ``name`` whose packages are these; ``virtual`` are those assumed by platform."""
        parts = tuple(
            PlatformLock(
                platform=part.platform,
                python=self.python,
                wheels=part.wheels,
                conda=part.conda,
                glibc=part.glibc,
                python_minimum=part.python_minimum,
                python_below=part.python_below,
                winners=winners,
                virtual=(virtual or {}).get(part.platform, ()),
            )
            for part in sorted(self.parts, key=lambda one: one.platform)
        )
        channels = self.channels
        return EnvLock(
            name=name, spec_id=spec_id, python=self.python, platforms=parts, steps=steps, channels=channels
        )


@contextlib.contextmanager
def foreign() -> Iterator[None]:
    """Gives ``BadLockFile`` the hint for a file that flowkiln did not write and does not replace."""
    try:
        yield
    except BadLockFile as error:
        error.hint = "Take the file back from version control, or lock again with the tool that wrote it."
        raise


def environment(target: Target, python: str) -> Environment:
    """The variables of markers on ``target`` with Python ``X.Y.Z``; those of a kernel's build are empty texts."""
    darwin = target.platform.os == "darwin"
    machine = "arm64" if darwin and target.platform.arch == "arm64" else _MACHINES[target.platform.arch]
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Darwin" if darwin else "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": pythons.minor(python),
        "sys_platform": target.platform.os,
    }


def parsed(marker: str, where: str) -> Marker:
    """A marker. Raises ``NotHonoured``, ``where`` naming the file and the entry."""
    try:
        return Marker(marker)
    except InvalidMarker as error:
        raise NotHonoured(f"{where}: {marker!r} is not a marker") from error


def holds(marker: Marker, variables: Mapping[str, str | Collection[str]], where: str) -> bool:
    """Whether a marker is true, extras and groups being sets (PEP 751). Raises ``NotHonoured``."""
    try:
        return marker.evaluate(dict(variables), context="lock_file")  # type: ignore[arg-type]
    except (UndefinedEnvironmentName, KeyError, TypeError) as error:
        raise NotHonoured(f"{where}: the marker {str(marker)!r} has no value ({error})") from error


def wheel_of(package: FoundPackage, target: Target, requires: tuple[str, ...], where: str) -> LockedWheel:
    """The one wheel of a package that is installed on ``target``, else its source distribution, to be built.

    Raises ``NotInGivenLock`` and ``NotHonoured``.
    """
    found = {wheel.filename: wheel for wheel in package.wheels}
    best = target.best(found)
    if not package.wheels and package.sdist is not None:
        return _unbuilt(package, package.sdist, target, requires, where)
    if best is None:
        have = ", ".join(sorted(found)[:4]) or "only a source distribution"
        message = f"{where}: {package.name} {package.version} has no wheel for {target.platform}; there is {have}"
        raise NotInGivenLock(message)
    chosen = found[best]
    sha256 = _hash(chosen, where)
    return LockedWheel(
        name=package.name,
        version=package.version or str(parse_wheel_filename(best)[1]),
        filename=best,
        url=redact.url(chosen.url),
        sha256=sha256,
        size=chosen.size,
        index=package.index.rstrip("/") if package.index else None,
        upload_time=chosen.upload_time,
        requires=requires,
    )


def is_unbuilt(wheel: LockedWheel) -> bool:
    """Whether it stands for a wheel that is to be built of a source distribution of the lock."""
    return wheel.build is not None and not wheel.build.key


def _unbuilt(
    package: FoundPackage, sdist: FoundWheel, target: Target, requires: tuple[str, ...], where: str
) -> LockedWheel:
    sha256 = _hash(sdist, where)
    source = LockedSource(kind="sdist", url=redact.url(sdist.url), sha256=sha256, size=sdist.size)
    return LockedWheel(
        name=package.name,
        version=package.version,
        filename=sdist.filename,
        url=source.url,
        sha256=sha256,
        size=sdist.size,
        index=package.index.rstrip("/") if package.index else None,
        requires=requires,
        build=LockedBuild(source=source, key="", python=target.python, platform=target.platform),
    )


def _hash(file: FoundWheel, where: str) -> str:
    """The sha256 of a file that others can have too."""
    if "://" not in file.url:
        raise NotHonoured(f"{where}: {file.filename} is a local file, which no other machine has")
    if file.sha256 is None:
        raise NotInGivenLock(f"{where}: {file.filename} has no sha256 hash")
    if not digests.is_digest(f"sha256:{file.sha256}"):
        raise NotInGivenLock(f"{where}: {file.filename} has a sha256 hash that is none")
    return file.sha256


def within(part: GivenPart, python: str, choose: Callable[[str], object], *, depends: bool) -> GivenPart:
    """``part`` with the bounds of the patch version within which ``choose(X.Y.Z)`` gives the same.

    ``depends`` tells whether any marker looks at the patch version; without one there is no bound.
    """
    if not depends:
        return part
    series, _, patch = python.rpartition(".")
    own = choose(python)
    lower, upper = int(patch), int(patch) + 1
    while lower > 0 and choose(f"{series}.{lower - 1}") == own:
        lower -= 1
    while upper < _PATCHES and choose(f"{series}.{upper}") == own:
        upper += 1
    return replace(
        part,
        python_minimum=f"{series}.{lower}" if lower else None,
        python_below=f"{series}.{upper}" if upper < _PATCHES else None,
    )


def covered(wanted: Wanted, part: Callable[[Target], GivenPart], path: Path) -> tuple[GivenPart, ...]:
    """The parts for the platforms that a file covers, by ``part``; those asked for by name, or at least one.

    Raises ``NotInGivenLock``.
    """
    parts: list[GivenPart] = []
    lacking: list[NotInGivenLock] = []
    for target in wanted.targets:
        try:
            parts.append(part(target))
        except NotInGivenLock as error:
            if target.platform in wanted.required:
                raise
            lacking.append(error)
    if parts:
        return tuple(parts)
    raise lacking[0] if lacking else NotInGivenLock(f"{path}: no platform was asked for")
