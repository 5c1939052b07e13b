"""The decorators that say what a step needs, from PyPI and from conda channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowkiln.flow.decorating import are_texts, is_number, use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

F = TypeVar("F", bound="Callable[..., Any]")
C = TypeVar("C", bound=type)

_SOURCE_KEYS = ("git", "url", "path")
_ENV_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")


@overload
def pypi(function: F, /) -> F: ...
@overload
def pypi(
    *,
    packages: Mapping[str, str | Mapping[str, Any]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    extras: Sequence[str] | None = None,
    requirements: str | PathLike[str] | None = None,
    pyproject: str | PathLike[str] | None = None,
    group: str | None = None,
    extra: str | None = None,
    script: bool | None = None,
    platforms: Sequence[str] | None = None,
    indexes: Sequence[str] | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    cuda: str | None = None,
    disabled: bool | None = None,
) -> Callable[[F], F]: ...
def pypi(  # noqa: PLR0913  the public signature
    function: F | None = None,
    /,
    *,
    packages: Mapping[str, str | Mapping[str, Any]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    extras: Sequence[str] | None = None,
    requirements: str | PathLike[str] | None = None,
    pyproject: str | PathLike[str] | None = None,
    group: str | None = None,
    extra: str | None = None,
    script: bool | None = None,
    platforms: Sequence[str] | None = None,
    indexes: Sequence[str] | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    cuda: str | None = None,
    disabled: bool | None = None,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Declares what a step needs from PyPI, or from another package index.

    What is needed comes from ``packages`` (a dictionary of versions or a list of requirements; a version may be
    ``{"version": "2.*", "index": URL}``: that package then comes from that index, and no other one does; in its
    place may stand a source: ``{"git": URL, "ref": "v1"}``, ``{"url": URL}``, ``{"path": "../mylib"}``), a
    ``requirements`` file, a ``group`` or ``extra`` of a ``pyproject`` file, the ``script`` block of the flow file
    (PEP 723), the environment ``name`` of ``[tool.flowkiln.envs]``, or a ``source``: a requirements file, a
    pyproject.toml (its dependencies with those of ``groups`` and ``extras``), a script, or a uv.lock or
    pylock.toml, which is taken exactly as it is. ``python`` is ``X.Y``. ``platforms`` are
    those to lock for, ``indexes`` the package indexes to use, and packages published after ``exclude_newer`` are
    ignored. ``glibc`` is the lowest version of it to support (``"2.28"``); ``winners`` maps a path that several
    packages own to the package whose file is installed. ``cuda`` (``"12.4"``, or ``"cpu"``) takes PyTorch's
    packages in that variant. ``disabled`` gives the step no environment. Together with ``@conda`` it is one
    environment, in which each distribution comes from one side.
    """
    return use("pypi", pypi.__kwdefaults__, check_pypi, function, unknown, locals())


@overload
def pypi_base(flow: C, /) -> C: ...
@overload
def pypi_base(
    *,
    packages: Mapping[str, str | Mapping[str, Any]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    extras: Sequence[str] | None = None,
    requirements: str | PathLike[str] | None = None,
    pyproject: str | PathLike[str] | None = None,
    group: str | None = None,
    extra: str | None = None,
    script: bool | None = None,
    platforms: Sequence[str] | None = None,
    indexes: Sequence[str] | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    cuda: str | None = None,
    disabled: bool | None = None,
) -> Callable[[C], C]: ...
def pypi_base(  # noqa: PLR0913  the public signature
    function: C | None = None,
    /,
    *,
    packages: Mapping[str, str | Mapping[str, Any]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    extras: Sequence[str] | None = None,
    requirements: str | PathLike[str] | None = None,
    pyproject: str | PathLike[str] | None = None,
    group: str | None = None,
    extra: str | None = None,
    script: bool | None = None,
    platforms: Sequence[str] | None = None,
    indexes: Sequence[str] | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    cuda: str | None = None,
    disabled: bool | None = None,
    **unknown: object,
) -> C | Callable[[C], C]:
    """Declares what all steps of a flow have in common; the arguments are those of ``pypi``.

    A step's own ``@pypi`` adds packages and wins for those that both name, for ``python`` and for ``disabled``.
    """
    return use("pypi_base", pypi_base.__kwdefaults__, check_pypi, function, unknown, locals())


@overload
def conda(function: F, /) -> F: ...
@overload
def conda(
    *,
    packages: Mapping[str, str] | Sequence[str] | None = None,
    libraries: Mapping[str, str] | Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    platforms: Sequence[str] | None = None,
    cuda: str | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    link_scripts: Sequence[str] | None = None,
    disabled: bool | None = None,
) -> Callable[[F], F]: ...
def conda(  # noqa: PLR0913  the public signature
    function: F | None = None,
    /,
    *,
    packages: Mapping[str, str] | Sequence[str] | None = None,
    libraries: Mapping[str, str] | Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    platforms: Sequence[str] | None = None,
    cuda: str | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    link_scripts: Sequence[str] | None = None,
    disabled: bool | None = None,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Declares what a step needs from conda channels, its Python included.

    ``packages`` is a dictionary of versions (``"1.5.*"``, a bare version means exactly that one) or a list of match
    specs; ``libraries`` is Metaflow's old name of it. ``channels`` are asked in this order, and the first that has
    a package decides (default: the setting ``channels``, then conda-forge). ``cuda`` is the version that packages
    may take for present, as ``"12.4"``. ``source`` is an environment.yml, or a conda-lock.yml, which is taken
    exactly as it is (``groups`` are its categories). ``link_scripts`` names the packages whose link scripts may
    run, in a container while locking. ``python``, ``name``, ``platforms``, ``exclude_newer``,
    ``glibc``, ``winners`` and ``disabled`` are as in ``pypi``. Together with ``@pypi`` it is one environment: what
    a conda package provides to Python is not installed from PyPI again.
    """
    return use("conda", conda.__kwdefaults__, check_conda, function, unknown, locals())


@overload
def conda_base(flow: C, /) -> C: ...
@overload
def conda_base(
    *,
    packages: Mapping[str, str] | Sequence[str] | None = None,
    libraries: Mapping[str, str] | Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    platforms: Sequence[str] | None = None,
    cuda: str | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    link_scripts: Sequence[str] | None = None,
    disabled: bool | None = None,
) -> Callable[[C], C]: ...
def conda_base(  # noqa: PLR0913  the public signature
    function: C | None = None,
    /,
    *,
    packages: Mapping[str, str] | Sequence[str] | None = None,
    libraries: Mapping[str, str] | Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
    source: str | PathLike[str] | None = None,
    groups: Sequence[str] | None = None,
    platforms: Sequence[str] | None = None,
    cuda: str | None = None,
    exclude_newer: str | None = None,
    glibc: str | None = None,
    winners: Mapping[str, str] | None = None,
    link_scripts: Sequence[str] | None = None,
    disabled: bool | None = None,
    **unknown: object,
) -> C | Callable[[C], C]:
    """Declares what all steps of a flow have in common from conda channels; the arguments are those of ``conda``.

    A step's own ``@conda`` adds packages and wins for those that both name, for ``python`` and for ``disabled``.
    """
    return use("conda_base", conda_base.__kwdefaults__, check_conda, function, unknown, locals())


def check_pypi(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of ``pypi`` and ``pypi_base``, a sentence each."""
    found = _packages("packages", given["packages"], '{"pandas": "2.2.*"} or a list of requirements', pins=True)
    found += _common(given, ("group", "extra", "cuda"), ("indexes", "groups", "extras"))
    found += _paths(given, ("source", "requirements", "pyproject"))
    return found + _switches(given, ("script", "disabled"))


def check_conda(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of ``conda`` and ``conda_base``, a sentence each."""
    example = '{"scikit-learn": "1.5.*"} or a list of match specs'
    found = [line for key in ("packages", "libraries") for line in _packages(key, given[key], example)]
    found += _paths(given, ("source",))
    return (
        found + _common(given, ("cuda",), ("channels", "groups", "link_scripts")) + _switches(given, ("disabled",))
    )


def _common(given: Mapping[str, Any], texts: Sequence[str], lists: Sequence[str]) -> list[str]:
    """What is wrong with the arguments that both sides take, and with further ``texts`` and ``lists``."""
    found = []
    for key in ("python", *texts, "exclude_newer", "glibc"):
        value = given[key]
        if value is not None and not (isinstance(value, str) and value):
            hint = f'; write {key}="{value}"' if is_number(value) else ""
            found.append(f"{key} is text, not {value!r}{hint}")
    name = given["name"]
    if name is not None and not (isinstance(name, str) and _ENV_NAME.fullmatch(name)):
        found.append(f"name consists of letters, digits, '-' and '_', not {name!r}")
    listed = [(key, given[key]) for key in ("platforms", *lists)]
    found += [f"{key} is a list of texts, not {value!r}" for key, value in listed if not _list(value)]
    winners = given["winners"]
    if winners is not None and not (isinstance(winners, dict) and are_texts([*winners, *winners.values()])):
        found.append(f"winners maps paths to packages, not {winners!r}")
    return found


def _paths(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    told = [(key, given[key]) for key in keys if given[key] is not None]
    return [
        f"{key} is the path of a file, not {value!r}"
        for key, value in told
        if not (isinstance(value, str) or hasattr(value, "__fspath__"))
    ]


def _list(value: object) -> bool:
    return value is None or are_texts(value)


def _switches(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [
        f"{key} is True or False, not {given[key]!r}"
        for key in keys
        if given[key] is not None and not isinstance(given[key], bool)
    ]


def _pinned(value: Any) -> bool:
    """Whether it is a version with the index that the package comes from, or a source."""
    if isinstance(value, dict) and set(value) & set(_SOURCE_KEYS) and not {"version", "index"} & set(value):
        return True  # what is wrong with a source is said where it is read
    known = isinstance(value, dict) and len(value) > 0 and set(value) <= {"version", "index"}
    return known and are_texts([*value.values()])


def _packages(key: str, packages: object, example: str, *, pins: bool = False) -> list[str]:
    if packages is None or (isinstance(packages, dict) and not packages):
        return []
    if isinstance(packages, dict):
        return [
            f'{key} maps names to versions as text, not {name!r} to {value!r}; write "{name}": "{value}"'
            for name, value in packages.items()
            if not (isinstance(name, str) and name and (isinstance(value, str) or (pins and _pinned(value))))
        ]
    if are_texts(packages):
        return []
    return [f"{key} is a dictionary such as {example}, not {packages!r}"]
