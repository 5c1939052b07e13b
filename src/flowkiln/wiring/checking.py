"""Whether the environments of a flow have what its steps import."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowkiln.envs.installerrors import InterpreterMissing
from flowkiln.flow import imports as reading
from flowkiln.wiring import locks, requests, trees

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkiln._base.settings import Settings
    from flowkiln.envs.tree import Tree
    from flowkiln.flow.graph import Graph
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.wiring.locks import Request


class Lacking(NamedTuple):
    """An import that a step's environment cannot answer, and where it stands."""

    step: str
    module: str
    file: str
    line: int


def imports(flow: type[FlowSpec], graph: Graph, settings: Settings) -> tuple[list[Lacking], list[str]]:
    """Imports that installed environments lack, and notes on environments that could not be looked into.

    Nothing is locked or installed for this.
    """
    wanted = requests.of_flow(flow, graph, settings)
    if not any(wanted.values()):
        return [], []
    host = trees.Host(settings)
    found = reading.of_flow(flow)
    lacking: list[Lacking] = []
    notes: dict[str, None] = {}
    for step in graph.order():
        request = wanted.get(step)
        if request is None:
            continue
        tree, why = _tree(request, host)
        if tree is None:
            notes[f"imports of {', '.join(request.steps)} were not checked: {why}"] = None
            continue
        lacking += [
            Lacking(step, one.module, one.file, one.line)
            for one in reading.missing(found, step, modules(tree.files()))
        ]
    return lacking, list(notes)


def _tree(request: Request, host: trees.Host) -> tuple[Tree | None, str]:
    standing = locks.read(request.folder)
    state = locks.state(request, standing, host.platform)
    if state != "fresh":
        return None, f"the lock of environment {request.name!r} is {state}"
    part = standing[request.name].on(host.platform)
    if part is None:
        return None, f"environment {request.name!r} has no solution for {host.platform}"
    try:
        tree = host.find(part)
    except InterpreterMissing as error:
        return None, error.message.partition(";")[0]
    return tree, f"environment {request.name!r} is not installed"


def modules(files: Iterable[str]) -> set[str]:
    """The names that can be imported from a tree with these files, first parts only."""
    found = set()
    for path in files:
        _, mark, inside = path.partition("/site-packages/")
        if mark:
            first, slash, _ = inside.partition("/")
            found.add(first if slash else first.partition(".")[0])
    return found
