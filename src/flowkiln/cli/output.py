"""Where a command's words go: results on stdout, status on stderr, JSON when asked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import known
from flowkiln._base import settings as settings_module
from flowkiln._base.report import Silent
from flowkiln.cli.streams import write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln._base.known import Plain
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings

OUTPUT_SCHEMA = 1


class Session:
    """What the common options said, and the ways to speak. One per command, click's ``obj``."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.verbose = False
        self.profile: str | None = None
        self.flags: dict[str, Plain] = {}
        self.flow: object | None = None
        """Of a flow's command line: its ``cli.flow.FlowSession``."""
        self.home: Path | None = None
        """Of a flow's command line: the folder of the flow's file."""
        self._reporter: Reporter | None = None

    def settings(self, folder: Path) -> Settings:
        """The settings for files in ``folder``, flags included. Exports cache and certificates to this process."""
        found = settings_module.load(folder, flags=self.flags, profile=self.profile)
        for key in ("cache", "certificates"):
            told = found.text(key)
            if told:
                os.environ[known.BY_KEY[key].variable] = told
        return found

    def own_settings(self) -> Settings:
        """The settings, and so the store, of the flow of this command line, else of the current folder."""
        return self.settings(self.home or Path.cwd())

    @property
    def reporter(self) -> Reporter:
        """Where work tells what it does: bars on a terminal, lines elsewhere, nothing when quiet."""
        if self._reporter is None:
            self._reporter = self._make_reporter()
        return self._reporter

    def _make_reporter(self) -> Reporter:
        if self.quiet:
            return Silent()
        if is_terminal(sys.stderr):
            from flowkiln.cli.progress import TerminalReporter

            return TerminalReporter()
        from flowkiln.cli.progress import PlainReporter

        return PlainReporter()

    def result(self, document: JSONObject, lines: Iterable[str]) -> None:
        """Prints the command's result: ``document`` with its schema under --json, else ``lines``."""
        if self.json:
            write(json.dumps({"schema": OUTPUT_SCHEMA, **document}, indent=2, default=list))
            return
        for line in lines:
            write(line)

    def result_json(self, document: JSONObject) -> None:
        """Prints ``document`` under --json; a command that showed its result as it came says nothing else."""
        if self.json:
            self.result(document, ())

    def say(self, text: str) -> None:
        """One status line on stderr, nothing when quiet."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """One status line for those who asked for --verbose."""
        if self.verbose:
            sys.stderr.write(text + "\n")


def is_terminal(stream: object) -> bool:
    """Whether ``stream`` is a terminal that can redraw lines."""
    isatty = getattr(stream, "isatty", None)
    return bool(isatty is not None and isatty()) and os.environ.get("TERM") != "dumb"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of a plain table with columns as wide as needed; ``right`` are columns aligned to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headers), *texts]) for i in range(len(headers))]
    lines = []
    for cells in [list(headers), *texts]:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def size(count: int) -> str:
    """``count`` bytes for people: ``12.3 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{int(amount)} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """``seconds`` for people: ``4.2 s``, ``3 min 05 s``, ``2 h 04 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
