"""``python FLOW.py show``: the flow's steps as its source says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.flow.graph import Graph, Node


@verb("show", cls=FlowVerb, example="python flow.py show")
@click.pass_context
def show(context: click.Context) -> int:
    """Show the steps of the flow: what each says of itself, its decorators, and what follows it."""
    from flowkiln.flow import graph as graphs
    from flowkiln.flow.decospecs import from_spec

    chosen = flow_session(context)
    graph = graphs.read(chosen.flow, [from_spec(text) for text in chosen.decospecs])
    session(context).result(_document(graph), _lines(graph))
    return ExitCode.OK


def _names(graph: Graph) -> list[str]:
    order = list(graph.order())
    return order + [name for name in graph.nodes if name not in order]


def _lines(graph: Graph) -> Iterator[str]:
    yield graph.flow
    if graph.doc:
        yield ""
        yield from graph.doc.splitlines()
    for name in _names(graph):
        node = graph.nodes[name]
        yield ""
        yield f"Step {name}"
        yield from (f"    {decorator!r}" for decorator in node.decorators)
        yield from (f"    {line}".rstrip() for line in (node.doc or "?").splitlines())
        if node.targets:
            over = f" foreach {node.foreach}" if node.foreach else ""
            yield f"    => {', '.join(node.targets)}{over}"


def _document(graph: Graph) -> JSONObject:
    steps = [_step(graph, graph.nodes[name]) for name in _names(graph)]
    return {"flow": graph.flow, "file": graph.file, "doc": graph.doc, "steps": steps}


def _step(graph: Graph, node: Node) -> JSONObject:
    return {
        "name": node.name,
        "kind": graph.kind(node.name),
        "doc": node.doc,
        "line": node.line,
        "targets": list(node.targets),
        "foreach": node.foreach,
        "decorators": [
            {"name": decorator.name, "arguments": {key: repr(value) for key, value in decorator.arguments.items()}}
            for decorator in node.decorators
        ],
    }
