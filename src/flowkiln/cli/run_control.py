"""``flowkiln run cancel`` and ``attach``: ending a run from anywhere, going on with one whose launcher is gone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.flow_run import finish, watchers
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import duration

if TYPE_CHECKING:
    from flowkiln.store.folder import FolderStore
    from flowkiln.store.runs import Run

WAIT = 60.0


@verb("cancel", example="flowkiln run cancel Train/1769904000000000")
@click.argument("run")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until everything has ended.",
)
@click.pass_context
def cancel(context: click.Context, *, run: str, wait: float) -> int:
    """Cancel a RUN and wait until all it started has ended. Works when its launcher is gone, too."""
    from flowkiln.wiring import history, running

    speaker = session(context)
    settings = speaker.settings(Path.cwd())
    store = history.open_store(settings)
    found = _whole(store, run)
    speaker.say(f"cancelling {found.flow}/{found.run}")
    end = running.cancel(found, store, settings, wait=wait)
    status = end.status if end is not None else "running"
    document = {"flow": found.flow, "run": found.run, "status": status, "confirmed": end is not None}
    if end is None:
        line = f"{found.flow}/{found.run}: asked; its launcher has not confirmed within {duration(wait)}"
        speaker.result(document, [line])
        return ExitCode.SERVICE
    speaker.result(document, [f"{found.flow}/{found.run}: {status}; nothing of it runs any more"])
    return ExitCode.OK


def _whole(store: FolderStore, text: str) -> Run:
    """The run that ``text`` names. Raises ``UnknownRun``, also for a step or task: it is the run that would end."""
    from flowkiln.wiring import errors, history

    place = history.find(store, text)
    if place.step is not None:
        message = f"{text} is a part of a run; only a whole run can be cancelled or gone on with"
        raise errors.UnknownRun(message, hint=f"The run is {place.run.flow}/{place.run.run}.")
    return place.run


@verb("attach", example="flowkiln run attach Train/1769904000000000")
@click.argument("run")
@click.option(
    "--events",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that every event is appended to, as NDJSON.",
)
@click.pass_context
def attach(context: click.Context, *, run: str, events: Path | None) -> int:
    """Go on with a RUN whose launcher has ended; what was finished is not run again."""
    from flowkiln.wiring import history, running

    speaker = session(context)
    settings = speaker.settings(Path.cwd())
    store = history.open_store(settings)
    found = _whole(store, run)
    with ExitStack() as files:
        watching = watchers(speaker, files, events)
        return finish(running.attach(found, store, settings, watching, verbose=speaker.verbose), speaker)
