"""``flowkiln run list``: the runs of the store, newest first."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import duration, table

if TYPE_CHECKING:
    from flowkiln.store.index import IndexedRun


@verb("list", example="flowkiln run list --flow Train --status failed")
@click.option("--flow", metavar="FLOW", help="Only runs of this flow.")
@click.option("--status", metavar="STATUS", help="Only runs in this state: running, ok, failed, cancelled.")
@click.option("--user", metavar="USER", help="Only runs of this user.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag. May be repeated.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most.")
@click.pass_context
def list_runs(
    context: click.Context,
    *,
    flow: str | None,
    status: str | None,
    user: str | None,
    tags: tuple[str, ...],
    limit: int,
) -> int:
    """List the runs of the store, newest first."""
    from flowkiln.store.index import Index
    from flowkiln.wiring import history

    speaker = session(context)
    store = history.open_store(speaker.settings(Path.cwd()))
    with Index(store.records, store.root) as index:
        index.catch_up()
        found = index.query(flow=flow, status=status, user=user, tags=tags, limit=limit)
    rows = [
        [one.flow, one.run, one.status, _moment(one), _taken(one), one.user or "-", ", ".join(one.tags)]
        for one in found
    ]
    documents = [
        {
            "flow": one.flow,
            "run": one.run,
            "status": one.status,
            "opened_us": one.opened_us,
            "ended_us": one.ended_us,
            "user": one.user,
            "tags": list(one.tags),
        }
        for one in found
    ]
    speaker.result({"runs": documents}, table(["FLOW", "RUN", "STATUS", "STARTED", "TOOK", "USER", "TAGS"], rows))
    return ExitCode.OK


def _moment(one: IndexedRun) -> str:
    return datetime.fromtimestamp(one.opened_us / 1_000_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _taken(one: IndexedRun) -> str:
    return "-" if one.ended_us is None else duration((one.ended_us - one.opened_us) / 1_000_000)
