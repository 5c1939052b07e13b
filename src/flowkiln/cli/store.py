"""``flowkiln store``: the health of the folder that holds runs and artifacts."""

from __future__ import annotations

from pathlib import Path

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import group, session, verb
from flowkiln.cli.output import size

store = group(
    "store",
    help="Verify the store, and rebuild the index of runs from it.",
    lazy={"check": "flowkiln.cli.store:check", "reindex": "flowkiln.cli.store:reindex"},
    example="flowkiln store check",
)


@verb("check", example="flowkiln store check")
@click.pass_context
def check(context: click.Context) -> int:
    """Verify every record and every stored byte. Exit code 19 when something is damaged or missing."""
    from flowkiln.store.check import check as verified
    from flowkiln.wiring import history

    speaker = session(context)
    opened = history.open_store(speaker.settings(Path.cwd()))
    found = verified(opened, speaker.reporter)
    problems = [
        {"kind": one.kind, "where": one.where, "text": one.text, "harmless": one.harmless} for one in found.problems
    ]
    lines = [f"{one.kind}: {one.where}: {one.text}" for one in found.problems]
    word = "whole" if found.ok else "DAMAGED"
    records, blobs = counted(found.records, "record"), counted(found.blobs, "blob")
    lines.append(f"{opened.root}: {word}, {records}, {blobs}, {size(found.size)}")
    document = {
        "ok": found.ok,
        "records": found.records,
        "blobs": found.blobs,
        "bytes": found.size,
        "problems": problems,
    }
    speaker.result(document, lines)
    return ExitCode.OK if found.ok else ExitCode.STORE


@verb("reindex", example="flowkiln store reindex")
@click.pass_context
def reindex(context: click.Context) -> int:
    """Build the index of runs anew from the store; nothing else depends on it."""
    from flowkiln.store.index import Index
    from flowkiln.wiring import history

    speaker = session(context)
    opened = history.open_store(speaker.settings(Path.cwd()))
    with Index(opened.records, opened.root) as index:
        count = index.reindex()
    speaker.result({"runs": count}, [f"indexed {counted(count, 'run')} of {opened.root}"])
    return ExitCode.OK
