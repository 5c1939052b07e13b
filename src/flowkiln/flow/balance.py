"""Whether every split and foreach of a graph is closed by one join that all its branches reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.flow.errors import UnbalancedJoin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln.flow.errors import FlowError
    from flowkiln.flow.graph import Frame, Graph, Node

_Around = tuple["Frame", ...]


def balance(graph: Graph) -> list[FlowError]:
    """The complaints about an acyclic graph all of whose targets exist. Each follows from no other."""
    inside: dict[str, _Around] = {}
    found: list[FlowError] = []
    for name in graph.order():
        node = graph.nodes[name]
        parents = graph.parents(name)
        if any(parent not in inside for parent in parents):
            continue  # what leads here is already complained about
        ways = [graph.edge(parent, name, inside) for parent in parents] or [()]
        problem = _join(graph, node, parents, ways) if node.joins else _plain(graph, node, parents, ways)
        if problem is not None:
            found.append(problem)
        else:
            inside[name] = ways[0][:-1] if node.joins else ways[0]
    return found


def _plain(graph: Graph, node: Node, parents: tuple[str, ...], ways: list[_Around]) -> FlowError | None:
    if any(way != ways[0] for way in ways):
        message = f"step {node.name!r} is reached by several branches ({', '.join(parents)}) but takes no inputs"
        return _at(node, message, f"Make it a join: `def {node.name}(self, inputs):`.")
    if node.name == graph.end and ways[0]:
        opened = ways[0][-1].step
        message = f"the last step {node.name!r} is reached while {graph.kind(opened)} {opened!r} is still open"
        return _at(graph.nodes[opened], message, "Add a join before the last step: a step that takes `inputs`.")
    return None


def _join(graph: Graph, node: Node, parents: tuple[str, ...], ways: list[_Around]) -> FlowError | None:
    if not parents:
        return _at(node, f"join {node.name!r} is the first step", "A first step takes only `self`.")
    if not all(ways):
        alone = parents[next(position for position, way in enumerate(ways) if not way)]
        message = f"join {node.name!r} takes inputs, but {alone!r} leads to it outside of any split or foreach"
        return _at(node, message, f"Write `def {node.name}(self):`, or split before it.")
    if len({way[:-1] for way in ways}) > 1 or len({way[-1].step for way in ways}) > 1:
        openers = ", ".join(dict.fromkeys(way[-1].step for way in ways))
        message = f"join {node.name!r} mixes branches of different splits or foreaches ({openers})"
        return _at(node, message, "Close each with a join of its own, the inner one first.")
    return _coverage(graph, node, parents, ways)


def _coverage(graph: Graph, node: Node, parents: tuple[str, ...], ways: list[_Around]) -> FlowError | None:
    opener = graph.nodes[ways[0][-1].step]
    if opener.name in parents:
        kind = graph.kind(opener.name)
        message = f"{kind} {opener.name!r} leads directly to join {node.name!r}"
        return _at(opener, message, "Put at least one step between them.")
    covered = {way[-1].branch for way in ways}
    missing = [target for target in opener.targets if target not in covered]
    if missing:
        message = f"join {node.name!r} closes split {opener.name!r} without its branch {', '.join(missing)}"
        return _at(node, message, f"Lead all branches of {opener.name!r} to {node.name!r}.")
    branches = [way[-1].branch for way in ways]
    twice = sorted({branch for branch in branches if branches.count(branch) > 1})
    if twice:
        message = f"join {node.name!r} is reached more than once from branch {', '.join(twice)}"
        return _at(node, message, "Lead each branch to the join once.")
    return None


def _at(node: Node, message: str, hint: str) -> FlowError:
    return UnbalancedJoin(message, step=node.name, hint=hint).at(node.file, node.next_line or node.line)


def closed(graph: Graph) -> Iterator[tuple[str, str]]:
    """Each split or foreach of a sound graph with the join that closes it."""
    inside = graph.frames()
    for name in graph.order():
        if graph.nodes[name].joins:
            yield graph.edge(graph.parents(name)[0], name, inside)[-1].step, name
