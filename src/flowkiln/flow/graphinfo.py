"""A flow's graph as plain data: what ``current.graph`` holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.flow.attributes import constants_of
from flowkiln.flow.balance import closed
from flowkiln.flow.parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.flow.graph import Graph, Node

_PUBLIC_KINDS = {"split": "split-static", "foreach": "split-foreach"}


def describe(graph: Graph, flow: type) -> JSONObject:
    """The graph of a sound flow: file, first and last step, parameters, constants, steps and their nesting."""
    joins = dict(closed(graph))
    return {
        "file": graph.file,
        "doc": graph.doc,
        "start_step": graph.start,
        "end_step": graph.end,
        "parameters": [{"name": p.attribute, "type": p.kind_name} for p in parameters_of(flow)],
        "constants": [{"name": name, "type": type(value).__name__} for name, value in constants_of(flow).items()],
        "steps": {name: _step(graph, graph.nodes[name], joins) for name in graph.order()},
        "graph_structure": _nested(graph, graph.start, joins, None),
    }


def public_kind(graph: Graph, name: str) -> str:
    """The kind of a step as tools show it: ``start, linear, join, end, split-static, split-foreach``."""
    kind = graph.kind(name)
    if name == graph.start and kind == "linear":
        return "start"
    return _PUBLIC_KINDS.get(kind, kind)


def _step(graph: Graph, node: Node, joins: Mapping[str, str]) -> JSONObject:
    document: JSONObject = {
        "name": node.name,
        "type": public_kind(graph, node.name),
        "line": node.line,
        "source_file": node.file,
        "doc": node.doc,
        "next": list(node.targets),
        "node_info": node.node_info,
        "decorators": [{"name": one.name, "attributes": one.arguments} for one in node.decorators],
    }
    if node.foreach is not None:
        document["foreach_artifact"] = node.foreach
    if node.name in joins:
        document["matching_join"] = joins[node.name]
    return document


def _nested(graph: Graph, name: str | None, joins: Mapping[str, str], until: str | None) -> list[object]:
    """Steps from ``name`` up to ``until``; the branches of a split are lists inside a list."""
    result: list[object] = []
    while name is not None and name != until:
        result.append(name)
        node = graph.nodes[name]
        join = joins.get(name)
        if join is not None:
            result.append([_nested(graph, target, joins, join) for target in node.targets])
        name = join or (node.targets[0] if node.targets else None)
    return result
