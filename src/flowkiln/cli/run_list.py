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
    from flowkiln._base.json import JSONObject
    from flowkiln.store.index import IndexedRun


STATUSES = ("running", "ok", "failed", "cancelled", "interrupted")


@verb("list", example="flowkiln run list --flow Train --status failed")
@click.option("--flow", metavar="FLOW", help="Only runs of this flow.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs in this state.")
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
    gone = {
        one.run: history.driver_gone(store, history.find(store, one.run).run) for one in found if not one.ended_us
    }
    documents = [_document(one, gone.get(one.run)) for one in found]
    word = "such runs" if flow or status or user or tags else "runs"
    lines = _lines(found, gone) if found else [f"no {word} in {store.root}"]
    speaker.result({"runs": documents}, lines)
    return ExitCode.OK


def _lines(found: list[IndexedRun], gone: dict[str, int | None]) -> list[str]:
    rows = []
    for one in found:
        since = gone.get(one.run)
        status = one.status if since is None else f"no driver since {moment(since)}"
        taken = _taken(one)
        rows.append([one.flow, one.run, status, moment(one.opened_us), taken, one.user or "-", ", ".join(one.tags)])
    lines = table(["FLOW", "RUN", "STATUS", "STARTED", "TOOK", "USER", "TAGS"], rows)
    left = [one for one in found if gone.get(one.run) is not None]
    return [*lines, *([f"`flowkiln run attach {left[0].flow}/{left[0].run}` goes on with it"] if left else [])]


def _document(one: IndexedRun, gone: int | None) -> JSONObject:
    return {
        "flow": one.flow,
        "run": one.run,
        "status": one.status,
        "driver_gone_us": gone,
        "opened_us": one.opened_us,
        "ended_us": one.ended_us,
        "user": one.user,
        "tags": list(one.tags),
    }


def moment(at_us: int) -> str:
    """``at_us``, microseconds since the epoch, as local time: ``2026-01-31 12:00:00``."""
    return datetime.fromtimestamp(at_us / 1_000_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _taken(one: IndexedRun) -> str:
    return "-" if one.ended_us is None else duration((one.ended_us - one.opened_us) / 1_000_000)
