"""The decorators of steps and flows, as ordinary functions.

Each works with and without parentheses. Arguments are by keyword; one that is unknown or unusable is reported
by the flow's checks, naming the decorator, the step and what is accepted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowkiln.flow import containers
from flowkiln.flow.decorating import is_number, unknown_argument, use
from flowkiln.flow.environmentdecorators import check_conda, check_pypi, conda, conda_base, pypi, pypi_base
from flowkiln.flow.marks import Decorator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

F = TypeVar("F", bound="Callable[..., Any]")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    return use("retry", retry.__kwdefaults__, _check_retry, function, unknown, locals())


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
    return use("catch", catch.__kwdefaults__, _check_catch, function, unknown, locals())


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
    return use("timeout", timeout.__kwdefaults__, _check_timeout, function, unknown, locals())


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
    return use("environment", environment.__kwdefaults__, _check_environment, function, unknown, locals())


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
    return use("resources", resources.__kwdefaults__, _check_resources, function, unknown, locals())


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
    return use("docker", docker.__kwdefaults__, containers.problems, function, unknown, locals())


def _check_retry(given: Mapping[str, Any]) -> list[str]:
    problems = []
    times, minutes = given["times"], given["minutes_between_retries"]
    if not isinstance(times, int) or isinstance(times, bool) or times < 0:
        problems.append(f"times is a whole number from 0, not {times!r}")
    if not is_number(minutes) or minutes < 0:
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
        if not is_number(value) or value < 0
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
        if not is_number(value) or value < least:
            problems.append(f"{key} is a number {'from' if optional else 'above'} 0, not {value!r}")
    return problems


CHECKS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "retry": _check_retry,
    "catch": _check_catch,
    "timeout": _check_timeout,
    "environment": _check_environment,
    "resources": _check_resources,
    "docker": containers.problems,
    "conda": check_conda,
    "conda_base": check_conda,
    "pypi": check_pypi,
    "pypi_base": check_pypi,
}
DECORATORS: dict[str, Any] = {
    "retry": retry,
    "catch": catch,
    "timeout": timeout,
    "environment": environment,
    "resources": resources,
    "docker": docker,
    "conda": conda,
    "conda_base": conda_base,
    "pypi": pypi,
    "pypi_base": pypi_base,
}


def make(name: str, arguments: Mapping[str, Any]) -> Decorator:
    """The decorator ``name`` as a value, checked as if it stood on a step. ``name`` is one of ``DECORATORS``."""
    defaults = dict(DECORATORS[name].__kwdefaults__ or {})
    problems = [unknown_argument(key, defaults) for key in arguments if key not in defaults]
    known = {key: arguments.get(key, default) for key, default in defaults.items()}
    return Decorator(name, known, problems=[*problems, *CHECKS[name](known)])
