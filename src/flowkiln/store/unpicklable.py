"""Finding the part of a value that cannot be pickled: `model.layers[3].lock`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from flowkiln.store.origins import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_ATTEMPTS = 5_000
_MOST_BYTES = 1 << 28
_MOST_DEPTH = 200


class Found(NamedTuple):
    """The innermost part that fails: how a user would write it, its type, and Python's reason in one line."""

    path: str
    type: str
    reason: str


def find(value: object, name: str, error: BaseException) -> Found:
    """The innermost part of ``value`` that fails on its own; ``error`` is how the whole failed.

    Work is bounded by a number of attempts and of bytes pickled; when they are used up the answer is the
    innermost part found so far.
    """
    if isinstance(error, RecursionError):
        return Found(name, type_name(type(value)), "it is nested too deeply")
    trial = _Trial()
    path = name
    for _ in range(_MOST_DEPTH):
        trial.passed.add(id(value))
        worse = _first_failing(list(_parts(value)), trial)
        if worse is None:
            break
        value, step, error = worse
        path += step
    return Found(path, type_name(type(value)), " ".join(str(error).split()) or type(error).__name__)


def _first_failing(parts: list[tuple[object, str]], trial: _Trial) -> tuple[object, str, BaseException] | None:
    """The first part that fails, found by halving: a list of a million parts takes twenty attempts."""
    parts = [part for part in parts if id(part[0]) not in trial.passed]
    if trial.fails([inner for inner, _ in parts]) is None:
        return None
    while len(parts) > 1:
        half = parts[: len(parts) // 2]
        parts = parts[len(half) :] if trial.fails([inner for inner, _ in half]) is None else half
    inner, step = parts[0]
    error = trial.fails(inner)
    return None if error is None else (inner, step, error)


class _Trial:
    """Pickles parts into nothing until the budget is used up.

    ``passed`` holds the ids of the values that lead to the parts: a part that refers back to one of them does not
    fail because of what lies elsewhere in it.
    """

    def __init__(self) -> None:
        self.passed: set[int] = set()
        self._attempts = _MOST_ATTEMPTS
        self._bytes = _MOST_BYTES

    def fails(self, value: object) -> BaseException | None:
        """How ``value`` fails to pickle; None when it does not, or when the budget is used up."""
        if self._attempts <= 0 or self._bytes <= 0:
            return None
        self._attempts -= 1
        try:
            self._pickler().dump(value)
        except _EnoughError:
            return None
        except Exception as error:  # noqa: BLE001  the user's types run any code while they are pickled
            return error
        return None

    def write(self, data: Any) -> int:
        self._bytes -= len(data)
        if self._bytes <= 0:
            raise _EnoughError
        return len(data)

    def _pickler(self) -> Any:
        from flowkiln.store.artifacts import pickler_class  # noqa: PLC0415  it imports this module

        passed = self.passed
        base: Any = pickler_class()

        class Stopping(base):  # type: ignore[misc]  # the base depends on whether numpy is loaded
            def persistent_id(self, value: Any) -> int | None:
                return id(value) if id(value) in passed else None

        return Stopping(self, protocol=5, buffer_callback=lambda _: False)


class _EnoughError(Exception):
    """The budget is used up."""


def _parts(value: object) -> Iterator[tuple[object, str]]:
    """The parts that pickle would visit next, each with how it is reached."""
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            yield inner, f"[{_shown(key)}]"
            yield key, f", key {_shown(key)}"
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(value):
            yield inner, f"[{position}]"
    elif isinstance(value, (set, frozenset)):
        for inner in list(value):
            yield inner, f", member {_shown(inner)}"
    yield from _items_of_array(value)
    yield from _reduced(value)


def _reduced(value: object) -> Iterator[tuple[object, str]]:
    """State and arguments that the value's own way of pickling names."""
    if isinstance(value, type) or type(value).__module__ == "builtins":
        return
    try:
        reduced = value.__reduce_ex__(5)
    except Exception:  # noqa: BLE001  the value itself is what cannot be pickled
        return
    if not isinstance(reduced, tuple):
        return
    state = reduced[2] if len(reduced) > 2 else None
    for part in state if isinstance(state, tuple) else (state,):
        if isinstance(part, dict):
            for key, inner in part.items():
                yield inner, f".{key}"
        elif part is not None:
            yield part, ", its state"
    yield from _arguments(value, reduced[1])


def _arguments(value: object, arguments: Any) -> Iterator[tuple[object, str]]:
    owned = {id(inner): key for key, inner in getattr(value, "__dict__", {}).items()}
    for position, inner in enumerate(arguments or ()):
        if inner is not type(value):
            name = owned.get(id(inner))
            yield inner, f".{name}" if name else f", argument {position}"


def _items_of_array(value: object) -> Iterator[tuple[object, str]]:
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and value.dtype == object:
        for position, inner in numpy.ndenumerate(value):
            yield inner, f"[{', '.join(map(str, position))}]"


def _shown(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001  a user's __repr__ runs any code
        text = f"<{type_name(type(key))}>"
    return text if len(text) <= 60 else text[:57] + "..."
