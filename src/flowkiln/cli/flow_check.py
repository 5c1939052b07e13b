"""``python FLOW.py check``: what is wrong with a flow, without running any of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli import problems
from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln._base.errors import FlowkilnError
    from flowkiln._base.settings import Settings
    from flowkiln.cli.flow import FlowSession
    from flowkiln.flow.graph import Graph
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.wiring.checking import Lacking


@verb("check", cls=FlowVerb, example="python flow.py check")
@click.pass_context
def check(context: click.Context) -> int:
    """Check the flow: its graph, parameters, decorators, environments and imports. Runs no step.

    Imports are held against installed environments. What is not installed is a note; where CI is set, and with
    --locked, it is exit code 3.
    """
    from flowkiln.flow import checks
    from flowkiln.flow.decospecs import from_spec

    speaker, chosen = session(context), flow_session(context)
    graph = checks.require(chosen.flow, [from_spec(text) for text in chosen.decospecs])
    settings = speaker.settings(chosen.file.parent)
    lacking, notes = _imports(chosen.flow, graph, settings)
    strict = chosen.locked or bool(os.environ.get("CI"))
    for note in () if strict else notes:
        speaker.say(f"note: {note}")
    rows = [{"step": one.step, "module": one.module, "file": one.file, "line": one.line} for one in lacking]
    document = {
        "flow": graph.flow,
        "ok": not lacking and not (strict and notes),
        "steps": list(graph.order()),
        "lacking": rows,
        "notes": notes,
    }
    error = _error(lacking) if lacking else _unchecked(notes, chosen) if strict and notes else None
    if error is not None and not speaker.json:
        problems.show(error, speaker)
        return error.exit_code
    count = counted(len(graph.nodes), "step")
    speaker.result(document, [f"{graph.flow} is sound: {count}, from {graph.start} to {graph.end}"])
    return ExitCode.OK if error is None else error.exit_code


def _imports(flow: type[FlowSpec], graph: Graph, settings: Settings) -> tuple[list[Lacking], list[str]]:
    from flowkiln.wiring import checking

    return checking.imports(flow, graph, settings)


def _unchecked(notes: list[str], chosen: FlowSession) -> FlowkilnError:
    from flowkiln.wiring.errors import ImportsUnchecked

    file = os.path.relpath(chosen.file)
    hint = f"`flowkiln env lock {file}` locks, `flowkiln env verify --repair {file}` installs."
    return ImportsUnchecked("\n".join(notes), hint=hint)


def _error(lacking: list[Lacking]) -> FlowkilnError:
    from flowkiln.wiring.errors import ImportsLacking

    lines = [f"{one.file}:{one.line}: step {one.step!r} imports {one.module}" for one in lacking]
    message = "environments lack what their steps import:\n" + "\n".join(f"  {line}" for line in lines)
    return ImportsLacking(message, hint="Add the packages to the step's @pypi, then run `flowkiln env lock`.")
