"""What every decorator does with its arguments: checked when it is used, kept on what it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from flowkiln.flow.marks import Decorator, attach, attach_to_flow, caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[Mapping[str, Any]], list[str]]

T = TypeVar("T", bound="Callable[..., Any]")

FLOW_LEVEL = frozenset({"conda_base", "pypi_base"})
"""Decorators of the class; the others are of steps."""
_LARGEST = 10**12


def use(
    name: str,
    keywords: Mapping[str, Any] | None,
    check: Check,
    target: T | None,
    unknown: Mapping[str, object],
    given: dict[str, Any],
) -> T | Callable[[T], T]:
    """The result of a call of the decorator ``name``: the target itself, or what is then called with it.

    ``keywords`` are its arguments with their defaults, ``given`` the locals of its function.
    """
    del given["function"], given["unknown"]
    file, line = caller(2)
    problems = [unknown_argument(key, keywords) for key in unknown]
    bare = isinstance(target, type) or callable(target)
    if target is not None and not bare:
        problems.append(f"takes keyword arguments only, not {target!r}; accepted: {', '.join(keywords or ())}")
    decorator = Decorator(name, given, problems=[*problems, *check(given)], file=file, line=line)
    put = attach_to_flow if name in FLOW_LEVEL else attach
    if target is not None and bare:
        return put(decorator, target)
    return lambda value: put(decorator, value)


def unknown_argument(key: str, keywords: Mapping[str, Any] | None) -> str:
    """The complaint about an argument that a decorator with ``keywords`` does not take."""
    return f"unknown argument {key!r}; accepted: {', '.join(keywords or ())}"


def is_number(value: object) -> bool:
    """Whether it is a number that can be reckoned with: neither infinite, nor "not a number", nor absurd."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def are_texts(value: object) -> bool:
    """Whether it is a list of texts, none of them empty."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item for item in value)
