"""``python FLOW.py show``: the flow's steps as its source says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
            {"name": one.name, "arguments": {key: _plain(value) for key, value in one.arguments.items()}}
            for one in node.decorators
        ],
    }


def _plain(value: Any) -> Any:
    """``value`` where JSON has it, containers item by item; the text of anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
