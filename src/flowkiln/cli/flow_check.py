"""``python FLOW.py check``: what is wrong with a flow, without running any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli import problems
from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln._base.errors import FlowkilnError
    from flowkiln._base.settings import Settings
    from flowkiln.flow.graph import Graph
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.wiring.checking import Lacking


@verb("check", cls=FlowVerb, example="python flow.py check")
@click.pass_context
def check(context: click.Context) -> int:
    """Check the flow: its graph, parameters, decorators, environments and imports. Runs no step."""
    from flowkiln.flow import checks
    from flowkiln.flow.decospecs import from_spec

    speaker, chosen = session(context), flow_session(context)
    graph = checks.require(chosen.flow, [from_spec(text) for text in chosen.decospecs])
    settings = speaker.settings(chosen.file.parent)
    lacking, notes = _imports(chosen.flow, graph, settings)
    for note in notes:
        speaker.say(f"note: {note}")
    rows = [{"step": one.step, "module": one.module, "file": one.file, "line": one.line} for one in lacking]
    document = {
        "flow": graph.flow,
        "ok": not lacking,
        "steps": list(graph.order()),
        "lacking": rows,
        "notes": notes,
    }
    if lacking and not speaker.json:
        problems.show(_error(lacking), speaker)
        return ExitCode.BAD_INPUT
    speaker.result(
        document, [f"{graph.flow} is sound: {len(graph.nodes)} steps, from {graph.start} to {graph.end}"]
    )
    return ExitCode.BAD_INPUT if lacking else ExitCode.OK


def _imports(flow: type[FlowSpec], graph: Graph, settings: Settings) -> tuple[list[Lacking], list[str]]:
    from flowkiln.wiring import checking

    return checking.imports(flow, graph, settings)


def _error(lacking: list[Lacking]) -> FlowkilnError:
    from flowkiln.wiring.errors import ImportsLacking

    lines = [f"{one.file}:{one.line}: step {one.step!r} imports {one.module}" for one in lacking]
    message = "environments lack what their steps import:\n" + "\n".join(f"  {line}" for line in lines)
    return ImportsLacking(message, hint="Add the packages to the step's @pypi, then run `flowkiln env lock`.")
