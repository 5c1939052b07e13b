"""What can be said against a flow's decorators and parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.flow.decorating import FLOW_LEVEL
from flowkiln.flow.errors import BadDecorator, BadParameter, DecoratorNotAllowed, FlowError, MisplacedDecorator
from flowkiln.flow.marks import flow_decorators, misplaced, steps_of
from flowkiln.flow.parameters import Parameter, key_of, parameters_of
from flowkiln.flow.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln.flow.graph import Graph, Node
    from flowkiln.flow.marks import Decorator

HARMLESS = (BadDecorator, BadParameter, DecoratorNotAllowed, MisplacedDecorator)
"""Problems that leave the graph readable."""

_TAKEN = frozenset(name for name in dir(FlowSpec) if not name.startswith("__"))


def problems(flow: type, graph: Graph) -> Iterator[FlowError]:
    """Problems of decorators, steps first, then those of the flow, then those of parameters."""
    for name, function in steps_of(flow).items():
        node = graph.nodes[name]
        for problem in vars(function)["_flowkiln_step"].problems:
            yield _bad(vars(function)["_flowkiln_step"], problem, f"step {name!r}", name)
        for decorator in vars(function)["_flowkiln_below"]:
            yield _misplaced(flow, decorator, f"step {name!r}: @{decorator.name} stands below @step", name)
        yield from _decorators(node)
    yield from _flow_level(flow)
    yield from _parameters(flow)


def _decorators(node: Node) -> Iterator[FlowError]:
    seen: set[str] = set()
    for decorator in node.decorators:
        for problem in decorator.problems:
            yield _bad(decorator, problem, f"step {node.name!r}", node.name)
        if decorator.name in seen:
            message = f"step {node.name!r} has @{decorator.name} twice"
            yield _not_allowed(node, decorator, message, "Keep one of them.")
        seen.add(decorator.name)
        if decorator.name == "catch" and node.foreach is not None:
            message = f"step {node.name!r}: @catch cannot stand on a step that opens a foreach"
            yield _not_allowed(node, decorator, message, "Put the work that may fail into a step of its own.")


def _not_allowed(node: Node, decorator: Decorator, message: str, hint: str) -> FlowError:
    file = decorator.file or node.file
    line = decorator.line if decorator.file else node.line
    return DecoratorNotAllowed(message, step=node.name, hint=hint).at(file, line)


def _flow_level(flow: type) -> Iterator[FlowError]:
    for decorator in flow_decorators(flow):
        for problem in decorator.problems:
            yield _bad(decorator, problem, f"flow {flow.__name__}", None)
    names = [decorator.name for decorator in flow_decorators(flow)]
    for decorator in flow_decorators(flow)[1:]:
        if names.count(decorator.name) > 1:
            message = f"flow {flow.__name__} has @{decorator.name} twice, its bases included"
            yield DecoratorNotAllowed(message, hint="Keep one of them.").at(decorator.file, decorator.line)
            break
    for where, decorator in misplaced(flow):
        kind = "but belongs above the class" if decorator.name in FLOW_LEVEL else "which is not a step"
        yield _misplaced(flow, decorator, f"@{decorator.name} stands on {where!r}, {kind}", None)


def _misplaced(flow: type, decorator: Decorator, message: str, step: str | None) -> FlowError:
    if decorator.name in FLOW_LEVEL:
        hint = f"Move @{decorator.name} above `class {flow.__name__}`."
    else:
        hint = f"Put @step right above the function and @{decorator.name} above it, or remove it."
    return MisplacedDecorator(message, step=step, hint=hint).at(decorator.file, decorator.line)


def _bad(decorator: Decorator, problem: str, where: str, step: str | None) -> FlowError:
    message = f"{where}: @{decorator.name}: {problem}"
    return BadDecorator(message, step=step, hint=advice(decorator.name, problem)).at(decorator.file, decorator.line)


def advice(decorator: str, problem: str) -> str:
    """What to do about ``problem`` of a decorator's arguments: the argument that was meant, else where to read."""
    import difflib  # noqa: PLC0415  only where something is wrong

    _, unknown, rest = problem.partition("unknown argument ")
    name, _, accepted = rest.partition("; accepted: ")
    near = difflib.get_close_matches(name.strip("'"), accepted.split(", "), 1) if unknown else []
    return f"Did you mean {near[0]!r}?" if near else f"`python -m pydoc flowkiln.{decorator}` describes it."


def _parameters(flow: type) -> Iterator[FlowError]:
    seen: dict[str, Parameter] = {}
    for parameter in parameters_of(flow):
        for problem in parameter.problems():
            message = f"parameter {parameter.name!r}: {problem}"
            yield BadParameter(message).at(parameter.file, parameter.line)
        if parameter.attribute in _TAKEN or parameter.attribute.startswith("_"):
            message = f"parameter {parameter.name!r}: the attribute {parameter.attribute!r} cannot hold one"
            yield BadParameter(message, hint="Assign it to another name.").at(parameter.file, parameter.line)
        first = seen.setdefault(key_of(parameter.name), parameter)
        if first is not parameter:
            message = f"parameter {parameter.name!r} is the same as {first.name!r} on the command line"
            hint = "Names differ in more than case, '-' and '_'."
            yield BadParameter(message, hint=hint).at(parameter.file, parameter.line)
