"""The decorators of steps and flows, as ordinary functions.

Each works with and without parentheses. Arguments are by keyword; one that is unknown or unusable is reported
by the flow's checks, naming the decorator, the step and what is accepted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowkiln.flow import containers
from flowkiln.flow.marks import Decorator, attach, attach_to_flow, caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

F = TypeVar("F", bound="Callable[..., Any]")
C = TypeVar("C", bound=type)
T = TypeVar("T", bound="Callable[..., Any]")

_LARGEST = 10**12
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")


@overload
def retry(function: F, /) -> F: ...
@overload
def retry(*, times: int = 3, minutes_between_retries: float = 2) -> Callable[[F], F]: ...
def retry(
    function: F | None = None,
    /,
    *,
    times: int = 3,
    minutes_between_retries: float = 2,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Runs a step that failed again, ``times`` times at most, whether its code raised, was killed or timed out.

    Local runs do not wait: ``minutes_between_retries`` has no effect on them, as in Metaflow. Failures of the
    infrastructure are retried besides and use up none of ``times``.
    """
    return _use("retry", function, unknown, locals())


@overload
def catch(function: F, /) -> F: ...
@overload
def catch(*, var: str | None = None, print_exception: bool = True) -> Callable[[F], F]: ...
def catch(
    function: F | None = None,
    /,
    *,
    var: str | None = None,
    print_exception: bool = True,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Lets the run go on when a step has failed for good.

    ``var`` is the attribute that then holds the failure (``exception``, ``type`` and ``stacktrace`` as text),
    and None after a success.
    """
    return _use("catch", function, unknown, locals())


@overload
def timeout(function: F, /) -> F: ...
@overload
def timeout(*, seconds: float = 0, minutes: float = 0, hours: float = 0) -> Callable[[F], F]: ...
def timeout(
    function: F | None = None,
    /,
    *,
    seconds: float = 0,
    minutes: float = 0,
    hours: float = 0,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Ends each attempt of a step after the sum of the times given, by ``TimeoutException`` inside it."""
    return _use("timeout", function, unknown, locals())


@overload
def environment(function: F, /) -> F: ...
@overload
def environment(*, vars: Mapping[str, str] | None = None) -> Callable[[F], F]: ...
def environment(
    function: F | None = None,
    /,
    *,
    vars: Mapping[str, str] | None = None,  # noqa: A002  the public name
    **unknown: object,
) -> F | Callable[[F], F]:
    """Sets environment variables for a step."""
    return _use("environment", function, unknown, locals())


@overload
def resources(function: F, /) -> F: ...
@overload
def resources(
    *,
    cpu: float = 1,
    gpu: float | None = None,
    disk: float | None = None,
    memory: float = 4096,
    shared_memory: float | None = None,
) -> Callable[[F], F]: ...
def resources(
    function: F | None = None,
    /,
    *,
    cpu: float = 1,
    gpu: float | None = None,
    disk: float | None = None,
    memory: float = 4096,
    shared_memory: float | None = None,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Declares what a step needs where it runs remotely: cores, and sizes in MB. Local runs ignore it."""
    return _use("resources", function, unknown, locals())


@overload
def docker(function: F, /) -> F: ...
@overload
def docker(
    *,
    image: str | None = None,
    cpu: float | None = None,
    memory: float | None = None,
    shared_memory: float | None = None,
    gpu: int | None = None,
    user: str | None = None,
    mounts: Sequence[str] | None = None,
    network: str | None = None,
    read_only: bool = False,
) -> Callable[[F], F]: ...
def docker(  # noqa: PLR0913  the public signature
    function: F | None = None,
    /,
    *,
    image: str | None = None,
    cpu: float | None = None,
    memory: float | None = None,
    shared_memory: float | None = None,
    gpu: int | None = None,
    user: str | None = None,
    mounts: Sequence[str] | None = None,
    network: str | None = None,
    read_only: bool = False,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Runs a step in a container of its environment's image, on the engine that the docker command uses.

    ``image`` is the base to bake the environment on (default: the setting ``images.base``); a step without an
    environment runs in it as it is. ``cpu`` are cores, ``memory`` and ``shared_memory`` MB, ``gpu`` a number of
    GPUs (-1: all); what ``@resources`` declares holds where it is more. ``mounts`` are ``SOURCE:TARGET[:ro]``, a
    relative source from the flow file's folder. ``network`` is the engine's name of one, ``none`` for none;
    ``user`` is ``UID[:GID]``, by default yours; ``read_only`` closes the root file system.
    """
    return _use("docker", function, unknown, locals())


@overload
def pypi(function: F, /) -> F: ...
@overload
def pypi(
    *,
    packages: Mapping[str, str | Mapping[str, str]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
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
    packages: Mapping[str, str | Mapping[str, str]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
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
    """Declares the environment of a step.

    What is needed comes from ``packages`` (a dictionary of versions or a list of requirements; a version may be
    ``{"version": "2.*", "index": URL}``: that package then comes from that index, and no other one does), a
    ``requirements`` file, a ``group`` or ``extra`` of a ``pyproject`` file, the ``script`` block of the flow file
    (PEP 723), or the environment ``name`` of ``[tool.flowkiln.envs]``. ``python`` is ``X.Y``. ``platforms`` are
    those to lock for, ``indexes`` the package indexes to use, and packages published after ``exclude_newer`` are
    ignored. ``glibc`` is the lowest version of it to support (``"2.28"``); ``winners`` maps a path that several
    packages own to the package whose file is installed. ``cuda`` (``"12.4"``, or ``"cpu"``) takes PyTorch's
    packages in that variant. ``disabled`` gives the step no environment.
    """
    return _use("pypi", function, unknown, locals())


@overload
def pypi_base(flow: C, /) -> C: ...
@overload
def pypi_base(
    *,
    packages: Mapping[str, str | Mapping[str, str]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
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
    packages: Mapping[str, str | Mapping[str, str]] | Sequence[str] | None = None,
    python: str | None = None,
    name: str | None = None,
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
    return _use("pypi_base", function, unknown, locals())


def _use(name: str, target: T | None, unknown: Mapping[str, object], given: dict[str, Any]) -> T | Callable[[T], T]:
    """The result of a decorator call: the target itself, or what is then called with it."""
    del given["function"], given["unknown"]
    file, line = caller(2)
    problems = [_unknown(name, key) for key in unknown]
    bare = isinstance(target, type) or callable(target)
    if target is not None and not bare:
        problems.append(f"takes keyword arguments only, not {target!r}; accepted: {', '.join(accepted(name))}")
    decorator = Decorator(name, given, problems=[*problems, *CHECKS[name](given)], file=file, line=line)
    put = attach_to_flow if name in FLOW_LEVEL else attach
    if target is not None and bare:
        return put(decorator, target)
    return lambda value: put(decorator, value)


def accepted(name: str) -> tuple[str, ...]:
    """The arguments that the decorator called ``name`` takes."""
    return tuple(DECORATORS[name].__kwdefaults__ or ())


def make(name: str, arguments: Mapping[str, Any]) -> Decorator:
    """The decorator ``name`` as a value, checked as if it stood on a step. ``name`` is one of ``DECORATORS``."""
    defaults = dict(DECORATORS[name].__kwdefaults__ or {})
    problems = [_unknown(name, key) for key in arguments if key not in defaults]
    known = {key: arguments.get(key, default) for key, default in defaults.items()}
    return Decorator(name, known, problems=[*problems, *CHECKS[name](known)])


def _unknown(name: str, key: str) -> str:
    return f"unknown argument {key!r}; accepted: {', '.join(accepted(name))}"


# -- values ---------------------------------------------------------------------------------------------------


def _number(value: object) -> bool:
    """Whether it is a number that can be reckoned with: neither infinite, nor "not a number", nor absurd."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _check_retry(given: Mapping[str, Any]) -> list[str]:
    problems = []
    times, minutes = given["times"], given["minutes_between_retries"]
    if not isinstance(times, int) or isinstance(times, bool) or times < 0:
        problems.append(f"times is a whole number from 0, not {times!r}")
    if not _number(minutes) or minutes < 0:
        problems.append(f"minutes_between_retries is a number from 0, not {minutes!r}")
    return problems


def _check_catch(given: Mapping[str, Any]) -> list[str]:
    problems = []
    var = given["var"]
    if var is not None and not (isinstance(var, str) and var.isidentifier() and not var.startswith("__")):
        problems.append(f"var is the name of an attribute, not {var!r}")
    if not isinstance(given["print_exception"], bool):
        problems.append(f"print_exception is True or False, not {given['print_exception']!r}")
    return problems


def _check_timeout(given: Mapping[str, Any]) -> list[str]:
    bad = [
        f"{key} is a number from 0, not {value!r}"
        for key, value in given.items()
        if not _number(value) or value < 0
    ]
    if not bad and not sum(given.values()) > 0:
        bad.append("needs a time above 0; give seconds, minutes or hours")
    return bad


def _check_environment(given: Mapping[str, Any]) -> list[str]:
    values = given["vars"]
    if values is None:
        return []
    if not isinstance(values, dict):
        return [f"vars is a dictionary of names and values, not {values!r}"]
    problems = []
    for key, value in values.items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            problems.append(f"{key!r} in vars is not the name of an environment variable")
        elif not isinstance(value, str):
            problems.append(f"the value of {key} in vars is text, not {value!r}")
    return problems


def _check_resources(given: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, value in given.items():
        optional = key not in {"cpu", "memory"}
        if value is None and optional:
            continue
        least = 0 if optional else 1e-9
        if not _number(value) or value < least:
            problems.append(f"{key} is a number {'from' if optional else 'above'} 0, not {value!r}")
    return problems


def _check_pypi(given: Mapping[str, Any]) -> list[str]:
    problems = _check_packages(given["packages"])
    for key in ("python", "group", "extra", "exclude_newer", "glibc", "cuda"):
        value = given[key]
        if value is not None and not (isinstance(value, str) and value):
            hint = f'; write {key}="{value}"' if _number(value) else ""
            problems.append(f"{key} is text, not {value!r}{hint}")
    name = given["name"]
    if name is not None and not (isinstance(name, str) and _ENV_NAME.fullmatch(name)):
        problems.append(f"name consists of letters, digits, '-' and '_', not {name!r}")
    for key in ("requirements", "pyproject"):
        if given[key] is not None and not (isinstance(given[key], str) or hasattr(given[key], "__fspath__")):
            problems.append(f"{key} is the path of a file, not {given[key]!r}")
    for key in ("platforms", "indexes"):
        if given[key] is not None and not _texts(given[key]):
            problems.append(f"{key} is a list of texts, not {given[key]!r}")
    winners = given["winners"]
    if winners is not None and not (isinstance(winners, dict) and _texts([*winners, *winners.values()])):
        problems.append(f"winners maps paths to packages, not {winners!r}")
    for key in ("script", "disabled"):
        if given[key] is not None and not isinstance(given[key], bool):
            problems.append(f"{key} is True or False, not {given[key]!r}")
    return problems


def _pinned(value: object) -> bool:
    """Whether it is a version with the index that the package comes from."""
    return (
        isinstance(value, dict) and bool(value) and set(value) <= {"version", "index"} and _texts([*value.values()])
    )


def _check_packages(packages: object) -> list[str]:
    if packages is None or (isinstance(packages, dict) and not packages):
        return []
    if isinstance(packages, dict):
        return [
            f'packages maps names to versions as text, not {key!r} to {value!r}; write "{key}": "{value}"'
            for key, value in packages.items()
            if not (isinstance(key, str) and key and (isinstance(value, str) or _pinned(value)))
        ]
    if _texts(packages):
        return []
    return [f'packages is a dictionary such as {{"pandas": "2.2.*"}} or a list of requirements, not {packages!r}']


def _texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)


CHECKS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "retry": _check_retry,
    "catch": _check_catch,
    "timeout": _check_timeout,
    "environment": _check_environment,
    "resources": _check_resources,
    "docker": containers.problems,
    "pypi": _check_pypi,
    "pypi_base": _check_pypi,
}
DECORATORS: dict[str, Any] = {
    "retry": retry,
    "catch": catch,
    "timeout": timeout,
    "environment": environment,
    "resources": resources,
    "docker": docker,
    "pypi": pypi,
    "pypi_base": pypi_base,
}
FLOW_LEVEL = frozenset({"pypi_base"})
