"""What a run shows while it goes: lines as they come, or a live table of steps on a terminal."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING

from flowkiln.cli.errors import BadUsage
from flowkiln.cli.output import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    from flowkiln.executor.progress import RunEvent


class EventFile:
    """Observer that appends every event to a file as one JSON line, flushed at once. Makes the file's folder.

    Raises ``BadUsage`` when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[str] = path.open("a", encoding="utf-8")
        except OSError as error:
            raise unwritable("--events", path, error) from error

    def emit(self, event: RunEvent) -> None:
        """Writes ``event``."""
        self._stream.write(json.dumps(event.to_json(), separators=(",", ":")) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Closes the file. What cannot be written by now was told when its event came."""
        with suppress(OSError):
            self._stream.close()


class IdFile:
    """The file that is to hold a run's id: it appears whole, when ``write`` is called. Makes its folder.

    Raises ``BadUsage`` at once when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        plain = not path.exists() or path.is_file()  # a pipe or terminal is written, not replaced
        self._scratch = path.with_name(f".{path.name}.{os.getpid()}") if plain else path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[str] = self._scratch.open("w", encoding="utf-8")
        except OSError as error:
            raise unwritable("--run-id-file", path, error) from error

    def write(self, run: str) -> None:
        """Writes ``run``, the whole content. Raises ``BadUsage``."""
        try:
            with self._stream:
                self._stream.write(run)
            if self._scratch != self._path:
                self._scratch.replace(self._path)
        except OSError as error:
            raise unwritable("--run-id-file", self._path, error) from error

    def close(self) -> None:
        """Leaves nothing behind when no id was written."""
        self._stream.close()
        if self._scratch != self._path:
            self._scratch.unlink(missing_ok=True)


def unwritable(option: str, path: Path, error: OSError) -> BadUsage:
    """The error that the file given to ``option`` cannot be written."""
    message = f"{option}: cannot write {path}: {error.strerror or error}"
    return BadUsage(message, hint="Name a file in a folder that you may write to.")


class Lines:
    """Observer that prints one line per fact, each with its time and the task that it is about."""

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet

    def emit(self, event: RunEvent) -> None:
        """Prints ``event``."""
        if self._quiet and event.kind != "log":
            return
        for text in sentences(event):
            self._stream.write(f"{stamp(event)} {text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to close: the stream belongs to the process."""


def stamp(event: RunEvent) -> str:
    """Local time and place of ``event``: ``2026-01-31 12:00:00.123 [17.../fit/4]``."""
    moment = datetime.fromtimestamp(event.at_us / 1_000_000).astimezone()
    text = moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    if event.step is None or event.kind == "foreach":
        return text
    pid = event.data.get("pid")
    place = f"{event.run}/{event.step}/{event.task}" + (f" (pid {pid})" if pid else "")
    return f"{text} [{place}]"


def sentences(event: RunEvent) -> list[str]:
    """``event`` in words, a line each."""
    data = event.data
    if event.kind in {"log", "note"}:
        return [str(data.get("text", ""))]
    if event.kind == "run-started":
        word = "Workflow attached" if data.get("attached") else "Workflow starting"
        return [f"{word} (run-id {event.run}):"]
    if event.kind == "foreach":
        return [f"Foreach yields {data.get('width')} child steps."]
    if event.kind == "task-started":
        return ["Task is starting (retry)." if event.attempt else "Task is starting."]
    if event.kind == "task-retrying":
        return _retrying(data)
    if event.kind == "task-ended":
        return _ended(data)
    return ["Done!" if data.get("status") == "ok" else _run_end(data)]


def _retrying(data: Mapping[str, object]) -> list[str]:
    lines = [*_failure_lines(data), "Task failed."]
    if data.get("owner") == "catch":
        return [*lines, "Task fallback is starting to handle the failure."]
    return lines


def _ended(data: Mapping[str, object]) -> list[str]:
    if data.get("status") == "ok":
        if data.get("caught"):
            return [*_failure_lines(data), "Task failed; @catch let the run go on."]
        return ["Task finished successfully."]
    if data.get("class") == "cancelled":
        return ["Task cancelled."]
    return [*_failure_lines(data), "Task failed.", "This failed task will not be retried."]


def _failure_lines(data: Mapping[str, object]) -> list[str]:
    text = str(data.get("text") or "")
    kind, cause = data.get("class"), data.get("cause")
    if not text and not kind:
        return []
    label = (f"{kind} failure" if kind else "failure") + (f" ({cause})" if cause else "")
    lines = text.splitlines() or [""]
    return [f"{label}: {lines[0]}", *lines[1:]]


def _run_end(data: Mapping[str, object]) -> str:
    words = {"cancelled": "Workflow cancelled.", "interrupted": "Workflow interrupted."}
    return words.get(str(data.get("status")), "Workflow failed.")


@dataclass(slots=True)
class StepRow:
    """Counts of one step for the table."""

    name: str
    environment: str
    done: int = 0
    failed: int = 0
    retried: int = 0
    running: int = 0
    total: int = 0
    first: float | None = None
    last: float | None = None
    active: set[int] = field(default_factory=set)


class Board:
    """The table's state: folds events into one row per step. Knows no terminal."""

    def __init__(self, steps: Sequence[tuple[str, str]]) -> None:
        self.rows = {name: StepRow(name, environment) for name, environment in steps}
        self.run = ""

    def take(self, event: RunEvent, now: float) -> None:
        """Counts ``event``; ``now`` is in monotonic seconds."""
        self.run = event.run
        if event.kind == "foreach":
            self._expect(event)
            return
        row = self.rows.get(event.step or "")
        if row is None or event.task is None:
            return
        if event.kind == "task-started":
            row.first = now if row.first is None else row.first
            row.active.add(event.task)
        elif event.kind in ("task-ended", "task-retrying"):
            row.active.discard(event.task)
            row.last = now
            if event.kind == "task-retrying":
                row.retried += 1
            elif event.data.get("status") == "ok":
                row.done += 1
            else:
                row.failed += 1
        row.running = len(row.active)
        row.total = max(row.total, row.done + row.failed + row.running)

    def _expect(self, event: RunEvent) -> None:
        for target in event.data.get("targets", ()):
            row = self.rows.get(str(target))
            if row is not None:
                row.total += int(event.data.get("width") or 0)


FRAME = 1 / 8
"""Seconds between two redraws of the table."""
MOST_WAITING = 1000
"""Lines that may wait for the next frame; with more than these it is drawn at once."""


class LiveTable:
    """Observer for terminals: step output scrolls above, the table of steps stays below.

    Lines wait for the next frame and are printed together: a redraw each would be slower than what prints them.
    ``console`` is where it draws, stdout unless told.
    """

    def __init__(self, steps: Sequence[tuple[str, str]], console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._board = Board(steps)
        self._console = console or Console(highlight=False)
        self._live: Live = Live(console=self._console, auto_refresh=False, get_renderable=self._draw)
        self._waiting: deque[tuple[str, str]] = deque()
        self._drawing = threading.Lock()
        self._over = threading.Event()
        self._frames: threading.Thread | None = None

    def emit(self, event: RunEvent) -> None:
        """Counts ``event``; output and failures are printed above the table with the next frame."""
        if self._frames is None:
            self._live.start()
            self._frames = threading.Thread(target=self._draw_frames, name="live table", daemon=True)
            self._frames.start()
        self._board.take(event, time.monotonic())
        if event.kind in ("task-started", "foreach"):
            return
        if event.kind == "task-ended" and event.data.get("status") == "ok" and not event.data.get("caught"):
            return
        style = "red" if event.kind in ("task-ended", "task-retrying") else ""
        for text in sentences(event):
            line = text if event.step is None else f"[{event.step}/{event.task}] {text}"
            self._waiting.append((line, style))
        if len(self._waiting) > MOST_WAITING:
            self._frame()

    def close(self) -> None:
        """Prints what waits, draws the table a last time and leaves it standing."""
        if self._frames is not None:
            self._over.set()
            self._frames.join()
            self._frames = None
            self._frame()
            self._live.stop()

    def _draw_frames(self) -> None:
        while not self._over.wait(FRAME):
            self._frame()

    def _frame(self) -> None:
        from rich.text import Text

        with self._drawing:
            lines = Text()
            for _ in range(len(self._waiting)):
                line, style = self._waiting.popleft()
                lines.append(line + "\n", style)
            if lines:
                self._console.print(lines, end="", soft_wrap=True)  # which draws the table anew below them
            else:
                self._live.refresh()

    def _draw(self) -> Table:
        from rich.table import Table

        now = time.monotonic()
        drawn = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("STEP", "ENVIRONMENT"):
            drawn.add_column(name, no_wrap=True)
        for name in ("DONE", "RUNNING", "FAILED", "TOTAL", "ELAPSED"):
            drawn.add_column(name, justify="right")
        for row in self._board.rows.values():
            drawn.add_row(*row_texts(row, now), style=_style(row))
        return drawn


def row_texts(row: StepRow, now: float) -> list[str]:
    """The cells of a step's row; zeros are blank."""
    elapsed = ""
    if row.first is not None:
        end = now if row.running or row.last is None else row.last
        elapsed = duration(end - row.first)
    counts = [str(count) if count else "" for count in (row.done, row.running, row.failed, row.total)]
    return [row.name, row.environment, *counts, elapsed]


def _style(row: StepRow) -> str:
    if row.failed:
        return "red"
    if row.running:
        return "bold"
    return "green" if row.done and row.done == row.total else "dim"


def observer(steps: Sequence[tuple[str, str]], *, quiet: bool, as_json: bool) -> Lines | LiveTable:
    """The observer that fits where stdout goes; under --json the lines go to stderr."""
    from flowkiln.cli.output import is_terminal

    if as_json:
        return Lines(sys.stderr, quiet=quiet)
    if is_terminal(sys.stdout) and not quiet:
        return LiveTable(steps)
    return Lines(sys.stdout, quiet=quiet)
