"""``python FLOW.py dump``: the artifacts of a task."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.executor.board import TaskRow
    from flowkiln.store.artifacts import Artifact
    from flowkiln.store.folder import FolderStore
    from flowkiln.wiring.history import Place


@verb("dump", cls=FlowVerb, example="python flow.py dump 1769904000000000/fit --include model,score")
@click.argument("task")
@click.option("--private", is_flag=True, help="Include artifacts whose names begin with an underscore.")
@click.option(
    "--max-value-size",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Longest text of a value that is shown; 0 shows types and sizes only.",
)
@click.option("--include", metavar="A,B", help="Only these artifacts.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Write the values to a pickle file.")
@click.pass_context
def dump(
    context: click.Context, *, task: str, private: bool, max_value_size: int, include: str | None, file: Path | None
) -> int:
    """Show the artifacts of a TASK, given as RUN/STEP[/TASK].

    Values are read in this process, so their types must be importable here; --max-value-size 0 reads none.
    """
    from flowkiln.wiring import history

    speaker = session(context)
    store = history.open_store(speaker.own_settings())
    place = history.find(store, task, flow=flow_session(context).flow.__name__)
    names = {name.strip() for name in include.split(",")} if include else None
    found = {}
    for row in history.chosen(store, place):
        found[f"{place.run.run}/{row.step}/{row.task}"] = _artifacts(store, place, row, names, private=private)
    if file is not None:
        file.write_bytes(pickle.dumps({place: _values(store, table) for place, table in found.items()}))
        speaker.result({"file": str(file)}, [f"Artifacts written to {file}"])
        return ExitCode.OK
    lines: list[str] = []
    for where, table in found.items():
        lines += [f"[{where}]", *(_line(store, name, one, max_value_size) for name, one in table.items())]
    speaker.result({"tasks": {where: _documents(table) for where, table in found.items()}}, lines)
    return ExitCode.OK


def _artifacts(
    store: FolderStore, place: Place, row: TaskRow, names: set[str] | None, *, private: bool
) -> dict[str, Artifact]:
    from flowkiln.store.artifacts import Artifact
    from flowkiln.wiring import history

    outcome = history.outcome(store, place.run.run, row.task, row.attempt)
    if outcome is None:
        return {}
    return {
        name: Artifact.from_json(document)
        for name, document in sorted(outcome.artifacts.items())
        if (private or not name.startswith("_")) and (names is None or name in names)
    }


def _values(store: FolderStore, table: dict[str, Artifact]) -> dict[str, Any]:
    from flowkiln.store import artifacts

    return {name: artifacts.load(one, store.blobs, name=name) for name, one in table.items()}


def _line(store: FolderStore, name: str, one: Artifact, limit: int) -> str:
    from flowkiln.store import artifacts
    from flowkiln.store.errors import UnreadableArtifact

    head = f"    {name}  {one.type}, {one.size} bytes"
    if limit == 0:
        return head
    try:
        text = repr(artifacts.load(one, store.blobs, name=name))
    except UnreadableArtifact as error:
        return f"{head}  (not readable here: {error.message})"
    except Exception as error:  # noqa: BLE001  repr is the user's code
        return f"{head}  (its repr raised {type(error).__name__})"
    return f"{head}  = {text}" if len(text) <= limit else f"{head}  = {text[:limit]}..."


def _documents(table: dict[str, Artifact]) -> dict[str, object]:
    return {name: {"type": one.type, "size": one.size, "sha256": one.sha256} for name, one in table.items()}
