"""Everything that can be said against a flow before it runs, each with file, line and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flowkiln.flow import declarations
from flowkiln.flow.balance import balance
from flowkiln.flow.errors import (
    BadEnds,
    BadStepName,
    BadStepSignature,
    BadTransition,
    Cycle,
    FlowError,
    InvalidFlow,
    SourceUnreadable,
    UnknownTarget,
    Unreachable,
)
from flowkiln.flow.graph import NO_SOURCE, read
from flowkiln.flow.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowkiln.flow.graph import Graph, Node
    from flowkiln.flow.marks import Decorator

_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
_TAKEN = frozenset(name for name in dir(FlowSpec) if not name.startswith("__")) | {"cmd"}


def problems(flow: type, extra: Iterable[Decorator] = ()) -> list[FlowError]:
    """All problems of a flow class, those of single steps first. ``extra`` are decorators of the command line."""
    graph = read(flow, extra)
    found = [*declarations.problems(flow, graph), *_steps(graph), *_ends(graph), *_targets(graph)]
    if any(not isinstance(problem, declarations.HARMLESS) for problem in found):
        return found  # the shape of a graph that cannot be read would only give complaints that follow from these
    return [*found, *(_cycles(graph) or [*_orphans(graph), *balance(graph)])]


def require(flow: type, extra: Iterable[Decorator] = ()) -> Graph:
    """The graph of a flow without problems. Raises the problem, or ``InvalidFlow`` listing several."""
    decorators = tuple(extra)
    found = problems(flow, decorators)
    if not found:
        return read(flow, decorators)
    if len(found) == 1:
        only = found[0]
        if only.place:
            only.message = f"{only.message} ({only.place})"
            only.args = (only.message,)
        raise only
    raise InvalidFlow(listing(flow.__name__, found), problems=tuple(found))


def listing(flow: str, found: Iterable[FlowError]) -> str:
    """Problems as lines of text: place, code, message, and what to do."""
    lines = [f"flow {flow} has problems:"]
    for problem in found:
        place = f"{problem.place}: " if problem.place else ""
        lines.append(f"  {place}[{problem.code}] {problem.message}")
        if problem.hint:
            lines.append(f"      {problem.hint}")
    return "\n".join(lines)


def _steps(graph: Graph) -> Iterator[FlowError]:
    for node in graph.nodes.values():
        yield from _name(node)
        yield from _signature(node)
        yield from _transition(graph, node)


def _name(node: Node) -> Iterator[FlowError]:
    if node.name in _TAKEN:
        message = f"step {node.name!r}: this name already means something for flows"
        yield BadStepName(message, step=node.name, hint="Give the step another name.").at(node.file, node.line)
    elif not _NAME.fullmatch(node.name):
        message = f"step {node.name!r}: step names consist of lower-case letters, digits and underscores"
        hint = "Rename the step, without an underscore in front."
        yield BadStepName(message, step=node.name, hint=hint).at(node.file, node.line)


def _signature(node: Node) -> Iterator[FlowError]:
    if node.flavour != "def":
        message = f"step {node.name!r} is {'an ' if node.flavour[0] == 'a' else 'a '}{node.flavour}"
        hint = (
            "A step is a plain function: use asyncio.run inside it."
            if "async" in node.flavour
            else "Remove `yield`."
        )
        yield BadStepSignature(message, step=node.name, hint=hint).at(node.file, node.line)
    if node.first not in (None, "self"):
        message = f"step {node.name!r} calls its first argument {node.first!r}"
        yield _signed(node, message, "Call it `self`: transitions are read from the text as `self.next(...)`.")
    if node.arguments == 0:
        message = f"step {node.name!r} takes no argument"
        yield _signed(node, message, f"Write `def {node.name}(self):`.")
    elif node.arguments > 2:
        message = f"step {node.name!r} takes more than `self` and `inputs`"
        yield _signed(node, message, "Pass values as attributes of self; values from outside are Parameters.")
    elif node.joins and len(node.targets) > 1:
        message = f"step {node.name!r} is a join and splits at once"
        yield _signed(node, message, "Lead to one step and split there.")
    elif node.joins and node.foreach is not None:
        message = f"step {node.name!r} is a join and opens a foreach at once"
        yield _signed(node, message, "Lead to one step and open the foreach there.")


def _signed(node: Node, message: str, hint: str) -> FlowError:
    return BadStepSignature(message, step=node.name, hint=hint).at(node.file, node.line)


def _transition(graph: Graph, node: Node) -> Iterator[FlowError]:
    alone = len(graph.nodes) == 1
    if node.problem == NO_SOURCE:
        if not alone and node.flavour == "def":  # else that is what is wrong with it
            message = f"step {node.name!r}: {node.problem}"
            hint = "Define the flow in a file."
            yield SourceUnreadable(message, step=node.name, hint=hint).at(node.file, node.line)
        return
    if node.first not in (None, "self"):
        return  # its transition is written with that other name
    line = node.next_line or node.line
    if node.name == graph.end:
        return
    if node.problem is not None:
        message = f"step {node.name!r}: {node.problem}"
        hint = (
            'End the step with self.next(self.a), self.next(self.a, self.b) or self.next(self.a, foreach="items").'
        )
        yield BadTransition(message, step=node.name, hint=hint).at(node.file, line)
    elif not node.targets and graph.end is not None:  # else it may be meant as the last step
        message = f"step {node.name!r} does not end with self.next(...)"
        hint = "Add it as the last statement of the step, or mark the last step with @step(end=True)."
        yield BadTransition(message, step=node.name, hint=hint).at(node.file, line)


def _ends(graph: Graph) -> Iterator[FlowError]:
    if not graph.nodes:
        message = f"flow {graph.flow} has no steps"
        yield BadEnds(message, hint="Mark methods with @step.").at(graph.file, None)
        return
    for which, found in (("start", graph.start), ("end", graph.end)):
        marked = [n for n in graph.nodes.values() if (n.marked_start if which == "start" else n.marked_end)]
        yield from _one_end(graph, which, found, marked)
    yield from _beyond_ends(graph)


def _one_end(graph: Graph, which: str, found: str | None, marked: list[Node]) -> Iterator[FlowError]:
    if len(marked) > 1:
        message = f"several steps are marked with @step({which}=True): {', '.join(node.name for node in marked)}"
        yield BadEnds(message, hint="Mark one of them.").at(marked[1].file, marked[1].line)
    elif found is None:
        message = f"flow {graph.flow} has no {which} step"
        yield BadEnds(message, hint=f"Call a step `{which}`, or mark one with @step({which}=True).").at(
            graph.file, None
        )
    elif marked and found != which and which in graph.nodes:
        other = graph.nodes[which]
        message = f"step {found!r} is marked with @step({which}=True), but there is a step called {which!r} too"
        yield BadEnds(message, hint=f"Rename {which!r} or remove the mark.").at(other.file, other.line)


def _beyond_ends(graph: Graph) -> Iterator[FlowError]:
    if graph.start is not None:
        for name in graph.parents(graph.start):
            if name == graph.end:
                continue  # which must not lead anywhere
            node = graph.nodes[name]
            message = f"step {name!r} leads to the first step {graph.start!r}"
            yield BadEnds(message, step=name, hint="Nothing leads to the first step.").at(node.file, node.next_line)
    if graph.end is None:
        return
    node = graph.nodes[graph.end]
    if node.next_line is not None:
        message = f"the last step {node.name!r} calls self.next"
        yield BadEnds(message, step=node.name, hint="Remove the call.").at(node.file, node.next_line)
    if node.joins:
        message = f"the last step {node.name!r} takes inputs, so it is a join"
        hint = "Join in a step before it."
        yield BadEnds(message, step=node.name, hint=hint).at(node.file, node.line)


def _targets(graph: Graph) -> Iterator[FlowError]:
    for node in graph.nodes.values():
        for target in node.targets:
            if target not in graph.nodes:
                from difflib import get_close_matches  # noqa: PLC0415  only for the mistake

                close = get_close_matches(target, graph.nodes, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Steps are {', '.join(graph.nodes)}."
                message = f"step {node.name!r} leads to {target!r}, which is not a step of this flow"
                yield UnknownTarget(message, step=node.name, hint=hint).at(node.file, node.next_line)


def _cycles(graph: Graph) -> list[FlowError]:
    state: dict[str, int] = {}
    path: list[str] = []
    found: list[FlowError] = []

    def visit(name: str) -> None:
        state[name] = 1
        path.append(name)
        for target in graph.nodes[name].targets:
            if state.get(target) == 1:
                around = [*path[path.index(target) :], target]
                node = graph.nodes[name]
                message = f"steps lead back to themselves: {' -> '.join(around)}"
                found.append(Cycle(message, step=name, hint="Lead forward.").at(node.file, node.next_line))
            elif target not in state:
                visit(target)
        path.pop()
        state[name] = 2

    for name in graph.nodes:
        if name not in state:
            visit(name)
    return found


def _orphans(graph: Graph) -> Iterator[FlowError]:
    reached: set[str] = set()
    pending = [graph.start] if graph.start else []
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(graph.nodes[name].targets)
    for name, node in graph.nodes.items():
        if name not in reached:
            message = f"step {name!r} is never reached from {graph.start!r}"
            hint = "Lead to it with self.next, or remove it."
            yield Unreachable(message, step=name, hint=hint).at(node.file, node.line)
