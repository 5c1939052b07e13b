"""The graph of a flow, read from its source text without running a step.

Reading never raises for what a user wrote: what cannot be understood is kept in the node and reported by
``flow.checks``.
"""

from __future__ import annotations

import ast
import linecache
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.flow.marks import step_decorators, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowkiln.executor.plan import StepKind
    from flowkiln.flow.marks import Decorator

NO_SOURCE = "its source text cannot be read"
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step as its source says.

    ``line`` is that of its ``def``, ``next_line`` that of its last ``self.next``. ``arguments`` counts the
    function's positional arguments, ``self`` included;
    ``first`` is the name of the first one. ``targets`` are empty and ``problem`` says why where the
    transition cannot be read; a step without one has neither ``targets`` nor ``foreach``.
    """

    name: str
    file: str
    line: int
    arguments: int
    first: str | None = None
    targets: tuple[str, ...] = ()
    foreach: str | None = None
    next_line: int | None = None
    problem: str | None = None
    doc: str = ""
    flavour: str = "def"
    marked_start: bool = False
    marked_end: bool = False
    node_info: dict[str, Any] = field(default_factory=dict)
    decorators: tuple[Decorator, ...] = ()

    @property
    def joins(self) -> bool:
        """Whether the step takes the inputs of several branches."""
        return self.arguments == 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A split or foreach that a step lies inside of, and by which of its targets."""

    step: str
    branch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A flow's steps. ``start`` and ``end`` are None where they are unclear."""

    flow: str
    file: str
    doc: str
    nodes: dict[str, Node]
    start: str | None
    end: str | None

    def kind(self, name: str) -> StepKind:
        """What a step does next: ``end``, ``join``, ``foreach``, ``split`` or ``linear``."""
        node = self.nodes[name]
        if name == self.end:
            return "end"
        if node.joins:
            return "join"
        if node.foreach is not None:
            return "foreach"
        return "split" if len(node.targets) > 1 else "linear"

    def parents(self, name: str) -> tuple[str, ...]:
        """The steps that lead to ``name``, in order of definition."""
        return tuple(node.name for node in self.nodes.values() if name in node.targets)

    def order(self) -> tuple[str, ...]:
        """The steps that the first one leads to, each after all its parents; on a cycle, those before it."""
        waiting = {name: len(self.parents(name)) for name in self.nodes}
        ready = [name for name in (self.start,) if name is not None]
        done: list[str] = []
        while ready:
            name = ready.pop(0)
            done.append(name)
            for target in self.nodes[name].targets:
                if target not in waiting:
                    continue
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        return tuple(done)

    def frames(self) -> dict[str, tuple[Frame, ...]]:
        """The splits and foreaches that each step lies inside of, outermost first; for sound graphs."""
        inside: dict[str, tuple[Frame, ...]] = {}
        for name in self.order():
            parents = self.parents(name)
            around = self.edge(parents[0], name, inside) if parents else ()
            inside[name] = around[:-1] if self.nodes[name].joins else around
        return inside

    def edge(self, parent: str, child: str, inside: dict[str, tuple[Frame, ...]]) -> tuple[Frame, ...]:
        """The frames on the way from ``parent`` to ``child``."""
        if self.kind(parent) in {"split", "foreach"}:
            return (*inside[parent], Frame(step=parent, branch=child))
        return inside[parent]

    def closes(self, name: str) -> str | None:
        """The split or foreach that the join ``name`` closes, or None for other steps."""
        if not self.nodes[name].joins:
            return None
        inside = self.frames()
        around = self.edge(self.parents(name)[0], name, inside)
        return around[-1].step


def read(flow: type, extra: Iterable[Decorator] = ()) -> Graph:
    """The graph of a flow class. ``extra`` are decorators given on the command line."""
    functions = steps_of(flow)
    decorators = step_decorators(flow, extra)
    sources = _Sources()
    nodes = {name: _node(name, function, decorators[name], sources) for name, function in functions.items()}
    only = next(iter(nodes)) if len(nodes) == 1 else None
    start = only or _ending(nodes, "start", [name for name, node in nodes.items() if node.marked_start])
    end = only or _ending(nodes, "end", [name for name, node in nodes.items() if node.marked_end])
    return Graph(
        flow=flow.__name__,
        file=_file_of(flow, nodes),
        doc=_clean(flow.__doc__),
        nodes=nodes,
        start=start,
        end=end,
    )


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that was written, below wrappers made with ``functools.wraps``."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def source_of(function: Callable[..., Any], sources: _Sources | None = None) -> ast.FunctionDef | None:
    """The syntax tree of a function, or None when its source cannot be found."""
    return (sources or _Sources()).function(function)


def _ending(nodes: dict[str, Node], default: str, marked: list[str]) -> str | None:
    if len(marked) == 1:
        return marked[0]
    return default if not marked and default in nodes else None


def _file_of(flow: type, nodes: dict[str, Node]) -> str:
    import sys  # noqa: PLC0415  only for reading

    module = sys.modules.get(flow.__module__)
    named = getattr(module, "__file__", None)
    if named:
        return str(named)
    return next((node.file for node in nodes.values()), "<unknown>")


class _Sources:
    """Parsed files, each parsed once."""

    def __init__(self) -> None:
        self._files: dict[str, dict[tuple[str, int], ast.FunctionDef]] = {}

    def function(self, function: Callable[..., Any]) -> ast.FunctionDef | None:
        code = getattr(unwrapped(function), "__code__", None)
        if code is None:
            return None
        if code.co_filename not in self._files:
            linecache.checkcache(code.co_filename)  # the file may have been read before it was last written
            lines = linecache.getlines(code.co_filename, unwrapped(function).__globals__)
            self._files[code.co_filename] = _functions("".join(lines))
        return self._files[code.co_filename].get((code.co_name, code.co_firstlineno))


def _functions(text: str) -> dict[tuple[str, int], ast.FunctionDef]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return {}
    found: dict[tuple[str, int], ast.FunctionDef] = {}
    for item in ast.walk(tree):
        if isinstance(item, ast.FunctionDef):
            first = min([item.lineno, *(decorator.lineno for decorator in item.decorator_list)])
            found[item.name, first] = item
    return found


def _node(name: str, function: Callable[..., Any], decorators: tuple[Decorator, ...], sources: _Sources) -> Node:
    inner = unwrapped(function)
    code = inner.__code__
    tree = sources.function(function)
    marks = vars(function)
    targets, foreach, next_line, problem = _transition(tree)
    return Node(
        name=name,
        file=code.co_filename,
        line=tree.lineno if tree else code.co_firstlineno,
        first=code.co_varnames[0] if code.co_argcount else None,
        arguments=code.co_argcount + (3 if code.co_flags & 0x04 else 0),
        targets=targets,
        foreach=foreach,
        next_line=next_line,
        problem=problem,
        doc=_clean(function.__doc__),
        flavour=_flavour(code.co_flags),
        marked_start=marks["is_start_step"],
        marked_end=marks["is_end_step"],
        node_info=marks["node_info"],
        decorators=decorators,
    )


def _flavour(flags: int) -> str:
    if flags & (_COROUTINE | _ASYNC_GENERATOR):
        return "async def"
    return "generator" if flags & _GENERATOR else "def"


def _clean(doc: str | None) -> str:
    if not doc:
        return ""
    first, *rest = doc.strip("\n").splitlines()
    return "\n".join([first.strip(), *(line.strip() for line in rest)]).strip()


_Read = tuple[tuple[str, ...], str | None, int | None, str | None]


def _transition(tree: ast.FunctionDef | None) -> _Read:
    """Targets, foreach attribute, line and problem of the last statement of a step."""
    if tree is None:
        return (), None, None, NO_SOURCE
    call = _next_call(tree.body[-1])
    if call is None:
        inner = [found for item in ast.walk(tree) if (found := _next_call(item)) is not None]
        if not inner:
            return (), None, None, None
        line = inner[0].lineno
        return (), None, line, "`self.next(...)` is called, but it is not the last statement of the step"
    targets, problem = _targets(call)
    foreach: str | None = None
    for keyword in call.keywords:
        if keyword.arg != "foreach":
            shown = f"`{keyword.arg}=`" if keyword.arg else "`**`"
            problem = problem or f"`self.next` does not take {shown}; it takes steps and `foreach=`"
        elif not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)):
            problem = problem or '`foreach=` takes the name of an attribute in quotes: foreach="items"'
        else:
            foreach = keyword.value.value
    if foreach is not None and len(targets) != 1:
        problem = problem or "a foreach leads to exactly one step"
    if not targets:
        problem = problem or "`self.next` names no step"
    return (() if problem else targets), foreach, call.lineno, problem


def _next_call(item: ast.AST) -> ast.Call | None:
    if not isinstance(item, ast.Expr) or not isinstance(item.value, ast.Call):
        return None
    function = item.value.func
    if not (isinstance(function, ast.Attribute) and function.attr == "next"):
        return None
    return item.value if isinstance(function.value, ast.Name) and function.value.id == "self" else None


def _targets(call: ast.Call) -> tuple[tuple[str, ...], str | None]:
    found: list[str] = []
    for argument in call.args:
        named = isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name)
        if not named or argument.value.id != "self":  # type: ignore[attr-defined]
            return (), f"`self.next` takes steps as `self.NAME`, not `{ast.unparse(argument)}`"
        found.append(argument.attr)  # type: ignore[attr-defined]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        return (), f"`self.next` names {', '.join(twice)} twice"
    return tuple(found), None
