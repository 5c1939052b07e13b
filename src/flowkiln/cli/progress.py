"""Reporters: one that prints plain lines, one that draws a bar on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from flowkiln._base import redact
from flowkiln._base.report import counted
from flowkiln.cli.output import duration, size

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress, TaskID

EVERY = 5.0
"""Seconds between two lines of a phase that is still at work."""
SHOWN_AFTER = 1.0
"""Seconds after which a phase is shown at all."""


def _amount(count: int, unit: str) -> str:
    if unit == "bytes":
        return size(count)
    return counted(count, unit) if unit else str(count)


class PlainPhase:
    """A phase as lines on stderr: one when it has taken a while, one when it ends after that."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._done = 0
        self._item = ""
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._told = self._started

    def advance(self, amount: int = 1, *, item: str = "") -> None:
        """Counts ``amount`` and shows a line when one is due."""
        with self._lock:
            self._done += amount
            self._item = item or self._item
            self._show_if_due()

    def tick(self, item: str = "") -> None:
        """Shows a line when one is due."""
        with self._lock:
            self._item = item or self._item
            self._show_if_due()

    def _show_if_due(self) -> None:
        now = time.monotonic()
        if now - self._told < (EVERY if self._told > self._started else SHOWN_AFTER):
            return
        self._told = now
        parts = [self._name]
        if self._done or self._total:
            of = f" of {_amount(self._total, self._unit)}" if self._total else ""
            plain = "" if of and self._unit != "bytes" else self._unit
            parts.append(_amount(self._done, plain) + of)
        if self._item:
            parts.append(redact.text(self._item))
        parts.append(duration(now - self._started))
        _line(", ".join(parts))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._told > self._started:
            _line(f"{self._name}: done, {duration(time.monotonic() - self._started)}")


class PlainReporter:
    """Status as plain lines on stderr."""

    def say(self, text: str) -> None:
        """One line."""
        _line(redact.text(text))

    def warn(self, text: str) -> None:
        """One line that says it is a warning."""
        _line("warning: " + redact.text(text))

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> PlainPhase:
        """A phase shown once it has taken a second, then every five."""
        return PlainPhase(name, total, unit)


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class TerminalPhase:
    """A phase as a row of the terminal's progress display."""

    def __init__(self, owner: TerminalReporter, name: str, total: int | None, unit: str) -> None:
        self._owner = owner
        self._name = name
        self._total = total
        self._unit = unit
        self._task: TaskID | None = None
        self._done = 0
        self._started = time.monotonic()

    def advance(self, amount: int = 1, *, item: str = "") -> None:
        """Moves the bar."""
        self._done += amount
        self._draw(item)

    def tick(self, item: str = "") -> None:
        """Shows ``item`` beside the bar."""
        self._draw(item)

    def _draw(self, item: str) -> None:
        if self._task is None:
            if time.monotonic() - self._started < SHOWN_AFTER / 4:
                return
            self._task = self._owner.begin(self._name, self._total)
        shown = _amount(self._done, self._unit) if self._done else ""
        self._owner.move(self._task, self._done, f"{shown} {redact.text(item)}".strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._owner.end(self._task)


class TerminalReporter:
    """Status on a terminal's stderr: lines above, bars below while work goes on."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._progress: Progress | None = None
        self._rows = 0
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """One line, above the bars."""
        self._print(redact.text(text), style=None)

    def warn(self, text: str) -> None:
        """One line in yellow, above the bars."""
        self._print("warning: " + redact.text(text), style="yellow")

    def phase(self, name: str, *, total: int | None = None, unit: str = "") -> TerminalPhase:
        """A phase with a row of its own once it has taken a moment."""
        return TerminalPhase(self, name, total, unit)

    def begin(self, name: str, total: int | None) -> TaskID:
        """A new row."""
        with self._lock:
            if self._progress is None:
                self._progress = self._make_progress()
                self._progress.start()
            self._rows += 1
            return self._progress.add_task(name, total=total, item="")

    def move(self, task: TaskID, done: int, item: str) -> None:
        """Redraws a row."""
        if self._progress is not None:
            self._progress.update(task, completed=done, item=item[:60])

    def end(self, task: TaskID) -> None:
        """Removes a row, and the display with the last one."""
        with self._lock:
            if self._progress is None:
                return
            self._progress.remove_task(task)
            self._rows -= 1
            if self._rows == 0:
                self._progress.stop()
                self._progress = None

    def _make_progress(self) -> Progress:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[item]}", markup=False),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self._rich(), transient=True)

    def _rich(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)
        return self._console

    def _print(self, text: str, *, style: str | None) -> None:
        if self._progress is None and style is None:
            _line(text)
            return
        self._rich().print(text, style=style, markup=False, soft_wrap=True)
