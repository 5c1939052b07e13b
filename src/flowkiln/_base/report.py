"""How long-running work tells what it does, without knowing terminals.

Core code takes a :class:`Reporter`; the command line passes one that draws bars or prints plain lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType


class Phase(Protocol):
    """One piece of work in progress, used as a context manager."""

    def advance(self, amount: int = 1, *, item: str = "") -> None:
        """``amount`` more units are done; ``item`` is what is being worked on (a package, a file)."""

    def tick(self, item: str = "") -> None:
        """Still alive: call at least once a second while waiting, so that stalls are shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Reporter(Protocol):
    """Where status goes: never results, never errors."""

    def say(self, text: str) -> None:
        """One line for people."""

    def warn(self, text: str) -> None:
        """One line that should not be overlooked."""

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> Phase:
        """Begins a phase; ``total`` counts ``unit`` (``bytes`` or a noun) where it is known."""


def counted(number: int, noun: str) -> str:
    """``1 package``, ``2 packages``: a number with its noun, for people."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Silent:
    """A reporter that says nothing. Also a phase that shows nothing."""

    def say(self, text: str) -> None:
        """Ignores ``text``."""

    def warn(self, text: str) -> None:
        """Ignores ``text``."""

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> Phase:  # noqa: ARG002
        """Itself."""
        return self

    def advance(self, amount: int = 1, *, item: str = "") -> None:
        """Ignores the advance."""

    def tick(self, item: str = "") -> None:
        """Ignores the tick."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""
