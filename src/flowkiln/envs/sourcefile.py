"""Files that declare an environment, by what they are: read as they stand, or taken as the locks that they are.

A requirements file, a project, a script and an ``environment.yml`` say what is asked for; a ``uv.lock``, a
``pylock.toml`` and a ``conda-lock.yml`` say what there is, and no solver is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flowkiln.envs import givencondalock, givenpylock, pythons, requirements, uvlock
from flowkiln.envs.filekinds import kind_of
from flowkiln.envs.given import Wanted
from flowkiln.envs.lock import AbsentPlatform, EnvLock
from flowkiln.envs.spec import GivenLock
from flowkiln.envs.wheels import Target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.given import Given
    from flowkiln.envs.spec import EnvSpec


def lock_of(path: Path, *, groups: Iterable[str], extras: Iterable[str]) -> GivenLock:
    """The lock in the file ``path``. Raises ``BadSource``."""
    kind = kind_of(path)
    project = requirements.text_of(path.with_name("pyproject.toml")) if kind == "uvlock" else ""
    return GivenLock(
        kind=kind,
        text=requirements.text_of(path),
        project=project,
        groups=tuple(sorted(set(groups))),
        extras=tuple(sorted(set(extras))),
        path=path,
    )


def requires_python(lock: GivenLock) -> str | None:
    """The Pythons that a lock was made for, None where it does not say. Raises ``BadLockFile``."""
    if lock.kind == "uvlock":
        return uvlock.requires_python(lock.text, lock.path)
    return givenpylock.requires_python(lock.text, lock.path) if lock.kind == "pylock" else None


def platforms(lock: GivenLock) -> tuple[Platform, ...]:
    """The platforms that a lock names, none where it does not. Raises ``BadLockFile``."""
    return givencondalock.platforms(lock.text, lock.path) if lock.kind == "condalock" else ()


def locked(
    name: str,
    spec: EnvSpec,
    wanted: Sequence[Platform],
    *,
    python: str,
    required: Collection[Platform],
    steps: Sequence[str],
) -> EnvLock:
    """The lock of another tool that ``spec`` names, as ours, for the platforms ``wanted`` with Python ``X.Y.Z``.

    A conda lock has its own Python. A platform that is not ``required`` and that the file does not cover is
    recorded as absent. Raises ``BadLockFile``, ``NotInGivenLock``, ``NotHonoured``, ``BadSource``.
    """
    given = spec.given
    assert given is not None
    found = _read(given, wanted, python, spec.glibc, required)
    lock = found.lock(name, spec.spec_id, steps=tuple(sorted(steps)), winners=spec.winners)
    there = {part.platform for part in lock.platforms}
    reason = f"{given.path.name} does not cover it"
    absent = tuple(AbsentPlatform(platform=one, reason=reason) for one in wanted if one not in there)
    return replace(lock, absent=absent)


def _read(
    lock: GivenLock, wanted: Iterable[Platform], python: str, glibc: tuple[int, int], required: Collection[Platform]
) -> Given:
    if lock.kind == "condalock":
        return givencondalock.read(
            lock.text, lock.path, wanted, glibc=glibc, categories=lock.groups, required=required
        )
    targets = tuple(
        Target(one, pythons.minor(python), glibc if one.os == "linux" else None) for one in sorted(set(wanted))
    )
    question = Wanted(
        targets=targets,
        python=python,
        extras=frozenset(lock.extras),
        groups=frozenset(lock.groups),
        required=frozenset(required),
    )
    if lock.kind == "uvlock":
        return uvlock.read(lock.text, lock.path, question, (lock.project, lock.path.with_name("pyproject.toml")))
    return givenpylock.read(lock.text, lock.path, question)
