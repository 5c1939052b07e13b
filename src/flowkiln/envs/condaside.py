"""The conda side of one platform's lock: chosen first, and what it leaves to PyPI."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln.envs import condalock, condaspec, variants, virtual
from flowkiln.envs.channels import DEFAULT
from flowkiln.envs.condaerrors import BrokenChannel, CondaUnsupported
from flowkiln.envs.condaquestion import CondaQuestion
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.condaquestion import CondaSolver
    from flowkiln.envs.lock import LockedConda, PlatformLock
    from flowkiln.envs.spec import EnvSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaSide:
    """What conda decides for a platform: packages, virtual ones assumed, the full Python, channels asked."""

    packages: tuple[LockedConda, ...]
    virtual: tuple[tuple[str, str], ...]
    full_python: str
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Which versions a solve keeps to: the platform's earlier ones, and those found for another platform.

    ``upgrade`` names packages, in their normal form, that are free of the earlier ones; True frees all.
    """

    own: PlatformLock | None
    lead: PlatformLock | None
    upgrade: bool | frozenset[str] = False


def choose(
    solver: CondaSolver,
    name: str,
    spec: EnvSpec,
    *,
    platform: Platform,
    python: str,
    steps: tuple[str, ...],
    keeping: Keeping,
) -> CondaSide:
    """The conda packages of ``spec`` on ``platform`` for Python ``python``. Raises ``EnvError``."""
    condasolve = load()
    own = keeping.own.conda if keeping.own is not None else ()
    question = CondaQuestion(
        name=name,
        specs=spec.conda,
        platform=platform,
        python=spec.python or python,
        virtual=virtual.assumed(platform, glibc=spec.glibc, own=_own(spec)),
        preferred=own,
        versions={one.name: one.version for one in keeping.lead.conda} if keeping.lead is not None else {},
        upgrade=_freed(keeping.upgrade, own),
        exclude_newer=spec.exclude_newer,
        steps=steps,
    )
    answer = condasolve.ask(solver, question)
    condalock.require_md5(answer.packages)
    return CondaSide(
        packages=answer.packages,
        virtual=tuple(one.pair for one in question.virtual),
        full_python=_full_python(answer.packages, question),
        channels=answer.channels,
    )


def _full_python(packages: Iterable[LockedConda], question: CondaQuestion) -> str:
    """The full version of the Python among ``packages``. Raises ``BrokenChannel`` where there is none."""
    found = next((one for one in packages if one.name == "python"), None)
    if found is None:
        message = f"environment {question.label}: the channels have no package `python`"
        raise BrokenChannel(message, hint=f"Name a channel that has one, as {DEFAULT}.")
    return found.version


def python_of(spec: EnvSpec) -> tuple[str | None, str | None]:
    """The Python that a request names and the ``requires-python`` that it admits, its conda side included.

    ``python 3.11.*`` among the conda packages is as good as ``python="3.11"``; a range there narrows the choice.
    """
    asked, admitted = spec.python, spec.requires_python
    for line in spec.conda:
        found = re.fullmatch(r"(?:\S+::)?python (?P<version>\S+)(?: .*)?", line)
        if found is None or "|" in found["version"]:
            continue
        exact = re.fullmatch(r"(?:==)?(3\.\d+)(?:\.\d+)?(?:\.\*)?", found["version"])
        if exact is not None:
            asked = asked or exact[1]
        elif re.fullmatch(r"[\d.,<>=!~]+", found["version"]):
            admitted = ",".join(part for part in (admitted, found["version"]) if part)
    return asked, admitted


def names_of(spec: EnvSpec, locks: Iterable[PlatformLock]) -> set[str]:
    """The conda packages of a request and its locks, in the form in which ``--upgrade`` names them."""
    named = {condaspec.name_of(line) for line in spec.conda}
    return {normal_name(name) for name in (*named, *(one.name for part in locks for one in part.conda))}


def _own(spec: EnvSpec) -> tuple[tuple[str, str], ...]:
    """The virtual packages of a request; ``cuda`` of the PyPI side holds for conda's as well."""
    told = dict(spec.virtual)
    if spec.cuda is not None and spec.cuda != variants.CPU:
        told.setdefault("cuda", spec.cuda)
    return tuple(sorted(told.items()))


def _freed(upgrade: bool | frozenset[str], packages: Iterable[LockedConda]) -> bool | frozenset[str]:
    if isinstance(upgrade, bool):
        return upgrade
    return frozenset(one.name for one in packages if normal_name(one.name) in upgrade)


def load() -> ModuleType:
    """The module that solves. Raises ``CondaUnsupported`` where rattler is missing.

    Called before threads are: of two that import at once what cannot be imported, one is told something else.
    """
    try:
        from flowkiln.envs import condasolve  # noqa: PLC0415  loads the solver, which only these environments need
    except ImportError as error:
        if not (error.name or "").startswith("rattler"):
            raise
        raise CondaUnsupported("environments with conda packages need py-rattler") from error
    return condasolve
