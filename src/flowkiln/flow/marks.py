"""What decorators leave on step functions and flow classes, and reading it back.

Nothing here raises while a flow's file is being executed: a mistake is kept with its place and reported by
``flow.checks`` together with all others, as an error and not as a traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

_MISPLACED = "_flowkiln_misplaced"
FLOW_DECORATORS = "_flow_decorators"
ENVIRONMENTS = ("conda", "conda_base", "pypi", "pypi_base")
"""Decorators that ask for an environment."""


class Decorator:
    """One use of a decorator: its name, all its arguments (defaults included), and where it stands.

    ``problems`` are complaints about the arguments, each one sentence without the decorator's name.
    """

    __slots__ = ("arguments", "file", "line", "name", "problems")

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        problems: Iterable[str] = (),
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        self.name = name
        self.arguments = dict(arguments)
        self.problems = tuple(problems)
        self.file = file
        self.line = line

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"@{self.name}({inside})"


def caller(depth: int) -> tuple[str, int]:
    """File and line of the frame ``depth`` levels above the function that calls this."""
    frame = sys._getframe(depth + 1)  # noqa: SLF001  inspect costs more than the whole import
    return frame.f_code.co_filename, frame.f_lineno


@overload
def step(function: F, /) -> F: ...
@overload
def step(
    *, start: bool = False, end: bool = False, node_info: Mapping[str, Any] | None = None
) -> Callable[[F], F]: ...
def step(
    function: F | None = None,
    /,
    *,
    start: bool = False,
    end: bool = False,
    node_info: Mapping[str, Any] | None = None,
    **unknown: object,
) -> F | Callable[[F], F]:
    """Marks a method as a step of its flow.

    ``start`` and ``end`` mark the first and the last step where they bear other names than ``start`` and
    ``end``. ``node_info`` is kept with the step for your own use. It is the innermost decorator of a step.
    """
    file, line = caller(1)
    problems = [f"unknown argument {name!r}; accepted: start, end, node_info" for name in unknown]

    def mark(target: F) -> F:
        late = list(vars(target).pop(_MISPLACED, ()))
        vars(target).update(
            is_step=True,
            name=target.__name__,
            decorators=[],
            is_start_step=start,
            is_end_step=end,
            node_info=dict(node_info or {}),
            _flowkiln_below=late,
            _flowkiln_step=Decorator("step", {}, problems=problems, file=file, line=line),
        )
        return target

    return mark if function is None else mark(function)


def is_step(value: object) -> bool:
    """Whether ``value`` is a function marked by ``step``."""
    return callable(value) and getattr(value, "is_step", False) is True


def attach(decorator: Decorator, target: F) -> F:
    """Puts a step decorator on ``target`` and returns it. On anything but a step it is kept as misplaced."""
    if isinstance(target, type):
        setattr(target, _MISPLACED, [*target.__dict__.get(_MISPLACED, ()), decorator])
    elif is_step(target):
        vars(target)["decorators"].append(decorator)
    else:
        vars(target).setdefault(_MISPLACED, []).append(decorator)
    return target


def attach_to_flow(decorator: Decorator, target: F) -> F:
    """Puts a flow decorator on a class and returns it. On a function it is kept as misplaced."""
    if isinstance(target, type):
        own = [*target.__dict__.get(FLOW_DECORATORS, ()), decorator]
        setattr(target, FLOW_DECORATORS, own)
    else:
        vars(target).setdefault(_MISPLACED, []).append(decorator)
    return target


def steps_of(flow: type) -> dict[str, Callable[..., Any]]:
    """The step functions of a flow class by attribute name, inherited ones first, in order of definition."""
    found: dict[str, Callable[..., Any]] = {}
    for kind in reversed(flow.__mro__):
        for name, value in vars(kind).items():
            found.pop(name, None)
            if is_step(value):
                found[name] = value
    return found


def flow_decorators(flow: type) -> tuple[Decorator, ...]:
    """The flow decorators of a class and its bases, those of bases first."""
    found: list[Decorator] = []
    for kind in reversed(flow.__mro__):
        found.extend(kind.__dict__.get(FLOW_DECORATORS, ()))
    return tuple(found)


def step_decorators(flow: type, extra: Iterable[Decorator] = ()) -> dict[str, tuple[Decorator, ...]]:
    """The decorators of each step, top to bottom; ``extra`` ones join where a step has none of that name."""
    added = tuple(extra)
    result: dict[str, tuple[Decorator, ...]] = {}
    for name, function in steps_of(flow).items():
        own = tuple(reversed(vars(function)["decorators"]))
        named = {decorator.name for decorator in own}
        result[name] = own + tuple(one for one in added if one.name not in named)
    return result


def declares_environment(flow: type, extra: Iterable[Decorator] = ()) -> bool:
    """Whether the flow or any of its steps asks for an environment, a disabled one included."""
    on_steps = (one for decorators in step_decorators(flow, extra).values() for one in decorators)
    return any(one.name in ENVIRONMENTS for one in (*flow_decorators(flow), *on_steps))


def misplaced(flow: type) -> list[tuple[str, Decorator]]:
    """Decorators that stand where they do nothing, each with the name of what it stands on."""
    found: list[tuple[str, Decorator]] = []
    for kind in reversed(flow.__mro__):
        found.extend((kind.__name__, one) for one in kind.__dict__.get(_MISPLACED, ()))
        for name, value in vars(kind).items():
            kept = getattr(value, "__dict__", None)
            if not callable(value) or isinstance(value, type) or kept is None:
                continue
            found.extend((name, one) for one in kept.get(_MISPLACED, ()))
    return found
