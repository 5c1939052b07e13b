"""``flowkiln run show``: one run with its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import duration, table
from flowkiln.cli.run_list import moment

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.board import TaskRow
    from flowkiln.executor.outcome import Outcome

SHOWN = 200
"""Tasks listed unless --all is given."""


@verb("show", example="flowkiln run show Train/1769904000000000\nflowkiln run show Train/1769904000000000/fit")
@click.argument("run")
@click.option("--all", "everything", is_flag=True, help=f"List every task, not the first {SHOWN}.")
@click.pass_context
def show(context: click.Context, *, run: str, everything: bool) -> int:
    """Show a RUN: its state, its tasks, and the environment that each proved it ran in.

    RUN/STEP and RUN/STEP/TASK show the environment in full: what was installed, the image, and who vouched for it.
    """
    from flowkiln.wiring import history

    speaker = session(context)
    store = history.open_store(speaker.settings(Path.cwd()))
    place = history.find(store, run)
    rows = history.chosen(store, place)
    kept = rows if everything or speaker.json else rows[:SHOWN]
    tasks = [_task(row, history.outcome(store, place.run.run, row.task, row.attempt)) for row in kept]
    found = place.run
    document: JSONObject = {
        "flow": found.flow,
        "run": found.run,
        "status": found.status,
        "driver_gone_us": history.driver_gone(store, found),
        "tags": list(found.tags),
        "user": found.opened.get("user"),
        "opened_us": found.opened["opened_us"],
        "ended_us": found.ended["ended_us"] if found.ended else None,
        "failure": found.ended.get("failure") if found.ended else None,
        "tasks": tasks,
    }
    proofs = _proofs(tasks) if place.step is not None else []
    speaker.result(document, [*_head(document), "", *_table(tasks), *_more(len(rows) - len(kept)), *proofs])
    return ExitCode.OK


def _task(row: TaskRow, outcome: Outcome | None) -> JSONObject:
    document: JSONObject = {
        "task": row.task,
        "step": row.step,
        "indices": list(row.indices),
        "attempt": row.attempt,
        "status": row.state,
    }
    if outcome is None:
        return document
    environment = outcome.environment
    failure = outcome.failure
    return document | {
        "caught": outcome.caught,
        "started_us": outcome.started,
        "ended_us": outcome.ended,
        "environment": environment,
        "env_id": environment.get("env_id"),
        "level": environment.get("level"),
        "platform": environment.get("platform"),
        "python": environment.get("version") or environment.get("python"),
        "failure": {"class": failure.failure_class, "cause": failure.cause, "text": failure.text}
        if failure
        else None,
    }


def _head(document: JSONObject) -> list[str]:
    name, gone = f"{document['flow']}/{document['run']}", document["driver_gone_us"]
    status = document["status"]
    if gone is not None:
        status = f"no driver since {moment(gone)}; `flowkiln run attach {name}` goes on with it"
    lines = [f"run     {name}", f"status  {status}", f"started {moment(document['opened_us'])}"]
    if document["ended_us"]:
        lines.append(f"took    {duration((document['ended_us'] - document['opened_us']) / 1_000_000)}")
    if document["tags"]:
        lines.append(f"tags    {', '.join(document['tags'])}")
    return lines


def _table(tasks: list[JSONObject]) -> list[str]:
    rows = []
    for task in tasks:
        place = f"[{','.join(map(str, task['indices']))}]" if task["indices"] else ""
        took = "-"
        if task.get("ended_us"):
            took = duration((task["ended_us"] - task["started_us"]) / 1_000_000)
        rows.append(
            [
                task["step"] + place,
                task["task"],
                task["attempt"],
                task["status"],
                took,
                _environment(task),
                _why(task),
            ]
        )
    return table(["STEP", "TASK", "ATTEMPT", "STATUS", "TOOK", "ENVIRONMENT", ""], rows, right=[1, 2])


def _environment(task: JSONObject) -> str:
    """Which environment, for which platform, proved how: ``0123456789ab linux/amd64 stat``."""
    environment = task.get("environment")
    if not environment:
        return "-"
    if not environment.get("env_id"):
        return "unmanaged"
    short = environment["env_id"].removeprefix("sha256:")[:12]
    words = (short, environment.get("platform"), environment.get("level"))
    return " ".join(word for word in words if word)


def _proofs(tasks: list[JSONObject]) -> list[str]:
    """Each environment that these tasks recorded, in full."""
    found: list[list[str]] = []
    for task in tasks:
        environment = task.get("environment") or {}
        image = environment.get("image") or {}
        rows = [
            ("environment", environment.get("env_id")),
            ("lock", environment.get("lock_id")),
            ("tree", environment.get("tree_digest")),
            ("python", environment.get("python")),
            ("proof", environment.get("level")),
            ("image", image.get("reference")),
            ("digest", image.get("digest")),
            ("config", image.get("config")),
            ("base", image.get("base")),
            ("vouched by", environment.get("vouched")),
        ]
        lines = ["", *(f"{name:12} {value}" for name, value in rows if value)]
        if environment and lines not in found:
            found.append(lines)
    return [line for lines in found for line in lines]


def _why(task: JSONObject) -> str:
    failure = task.get("failure")
    return f"{failure['class']}: {failure['text'].splitlines()[0]}"[:80] if failure and failure["text"] else ""


def _more(hidden: int) -> list[str]:
    return [f"... and {counted(hidden, 'task')} more; --all lists them"] if hidden > 0 else []
