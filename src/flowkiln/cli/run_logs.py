"""``flowkiln run logs`` and what ``python FLOW.py logs`` shares with it: what tasks printed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb
from flowkiln.cli.streams import write
from flowkiln.wiring.errors import UnknownRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowkiln.cli.output import Session
    from flowkiln.executor.board import TaskRow
    from flowkiln.store.folder import FolderStore
    from flowkiln.store.logs import LogLine
    from flowkiln.wiring.history import Place


def log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both commands that show logs."""
    for option in (
        click.option(
            "--attempt", type=click.IntRange(min=0), metavar="N", help="Attempt to show. Default: the last."
        ),
        click.option("--timestamps", is_flag=True, help="Begin each line with its time."),
        click.option("--both", is_flag=True, help="Both streams, by time. The default."),
        click.option("--stderr", is_flag=True, help="Only what was printed to stderr."),
        click.option("--stdout", is_flag=True, help="Only what was printed to stdout."),
    ):
        function = option(function)
    return function


@verb(
    "logs",
    example="flowkiln run logs Train/1769904000000000/fit\nflowkiln run logs Train/1769904000000000/fit/4 --stderr",
)
@click.argument("task")
@log_options
@click.pass_context
def logs(context: click.Context, /, *, task: str, **options: Any) -> int:
    """Show what a TASK, all tasks of a step, or all of a run printed."""
    return show(context, task, None, **options)


def show(
    context: click.Context,
    text: str,
    flow: str | None,
    *,
    stdout: bool,
    stderr: bool,
    both: bool,
    timestamps: bool,
    attempt: int | None,
) -> int:
    """Prints the lines that ``text`` and the options choose; the exit code."""
    from flowkiln.wiring import history

    speaker = session(context)
    store = history.open_store(speaker.own_settings())
    place = history.find(store, text, flow=flow)
    rows = history.chosen(store, place)
    streams = _streams(stdout=stdout, stderr=stderr, both=both)
    lines = _lines(speaker, store, place, rows, attempt)
    if speaker.json:
        found = [
            {"task": row.task, "step": row.step, "at_us": line.at_us, "stream": line.stream, "text": line.text}
            for row, line in lines
            if line.stream in streams
        ]
        speaker.result({"lines": found}, ())
        return ExitCode.OK
    for row, line in lines:
        if line.stream in streams:
            front = f"[{row.step}/{row.task}] " if len(rows) > 1 else ""
            write((_stamp(line) if timestamps else "") + front + line.text)
    return ExitCode.OK


def _streams(*, stdout: bool, stderr: bool, both: bool) -> tuple[str, ...]:
    if both or stdout == stderr:
        return ("stdout", "stderr")
    return ("stdout",) if stdout else ("stderr",)


def _lines(
    speaker: Session, store: FolderStore, place: Place, rows: list[TaskRow], attempt: int | None
) -> Iterator[tuple[TaskRow, LogLine]]:
    from flowkiln.wiring import history

    run = place.run.run
    for row in rows:
        number = row.attempt if attempt is None else attempt
        live = list(history.live_lines(store, run, row.task, number))  # an attempt that ends now loses them
        outcome = history.outcome(store, run, row.task, number)
        if outcome is not None:
            found = history.log_lines(store, outcome)
        elif history.has_begun(store, run, row.task, number):
            speaker.say(_unfinished(store, place, row, number))
            found = iter(live)
        elif attempt is None:
            continue
        else:
            message = f"task {row.step}/{row.task} has no attempt {attempt}"
            raise UnknownRun(message, hint=f"Its last one is {row.attempt}.")
        for line in found:
            yield row, line


def _unfinished(store: FolderStore, place: Place, row: TaskRow, attempt: int) -> str:
    from flowkiln.wiring import history

    head = f"task {row.step}/{row.task}, attempt {attempt}, "
    if history.driver_gone(store, place.run) is None:
        return f"{head}is still running; its lines up to some seconds ago:"
    return f"{head}was left unfinished; what was kept of its lines:"


def _stamp(line: LogLine) -> str:
    moment = datetime.fromtimestamp(line.at_us / 1_000_000).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d} "
