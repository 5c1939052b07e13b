"""What a flow imports: for warming up a worker, and for checking that an environment has it.

Source text is read, nothing is executed but ``preload``'s imports.
"""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln.flow.marks import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

NEVER_PRELOADED = frozenset({"torch", "tensorflow", "jax", "cupy", "polars", "grpc", "ray"})
"""Packages that start threads or devices when imported, and so cannot be forked."""

FLOW_FILE = None
"""In place of a step's name: the module level of the flow file and of local modules, which every step runs."""


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """An import: the dotted ``module``, where it stands, whether its failure is provided for, names taken from it.

    A relative module begins with its dots.
    """

    module: str
    file: str
    line: int
    optional: bool = False
    names: tuple[str, ...] = ()

    @property
    def top(self) -> str:
        """The first part of the module's name."""
        return self.module.partition(".")[0]


def of_flow(flow: type) -> dict[str | None, tuple[Import, ...]]:
    """The imports of a flow: under ``None`` those at module level, under each step's name those in its body.

    Functions and local modules that are used count too: a function of the flow file that a step names, a module
    beside the flow file that is imported. ``if TYPE_CHECKING`` does not count.
    """
    reader = _Reader(flow)
    found: dict[str | None, tuple[Import, ...]] = {FLOW_FILE: tuple(reader.module_level())}
    for name, function in steps_of(flow).items():
        found[name] = tuple(dict.fromkeys(reader.of_function(function)))
    return found


def missing(
    imports: Mapping[str | None, Iterable[Import]], step: str, provided: Collection[str]
) -> tuple[Import, ...]:
    """The imports that ``step`` makes and its environment lacks. ``provided`` are top-level module names.

    Modules of the standard library and of flowkiln itself are always there; optional imports may be missing.
    """
    present = {*provided, *sys.stdlib_module_names, "flowkiln", "__main__"}
    made = [*imports.get(FLOW_FILE, ()), *imports.get(step, ())]
    return tuple(one for one in dict.fromkeys(made) if one.top not in present and not one.optional)


def preload(flow: type) -> None:
    """Imports what the steps of ``flow`` import unconditionally, so that forked attempts find it loaded.

    An import that fails is left to the step that needs it.
    """
    import importlib  # noqa: PLC0415  only in a worker

    reader = _Reader(flow)
    wanted: dict[str, None] = {}
    for function in steps_of(flow).values():
        wanted.update((one.module, None) for one in reader.unconditional(function))
    for module in wanted:
        if module.partition(".")[0] in {*NEVER_PRELOADED, ""} or module in sys.modules:
            continue
        try:
            importlib.import_module(module)
        except Exception:  # noqa: BLE001, S112  the module's own code runs; the step will show the error
            continue


class _Reader:
    """Reads the flow's file and the modules beside it, each once."""

    def __init__(self, flow: type) -> None:
        self._flow = flow
        self._trees: dict[str, ast.Module | None] = {}
        code = [code for code in map(_code_of, steps_of(flow).values()) if code is not None]
        self._folders = {os.path.dirname(os.path.abspath(one.co_filename)) for one in code}
        self._files = list(dict.fromkeys(os.path.abspath(one.co_filename) for one in code))

    def module_level(self) -> Iterator[Import]:
        """The imports that run when the flow file is imported, those of local modules included."""
        seen: set[str] = set()
        pending = list(self._files)
        while pending:
            file = pending.pop(0)
            if file in seen:
                continue
            seen.add(file)
            tree = self._tree(file)
            for one in _imports(tree.body if tree else [], file):
                local = self._local(one)
                if local is None:
                    yield one
                pending.extend(local or ())

    def of_function(self, function: Callable[..., Any]) -> Iterator[Import]:
        """The imports in a function, in those that it names, and at the level of local modules it imports."""
        for node, file in self._reached(function):
            for one in _imports(node.body, file):
                yield from self._spread(one, set())

    def unconditional(self, function: Callable[..., Any]) -> Iterator[Import]:
        """The imports at the top level of a function's body and of the functions it names."""
        for node, file in self._reached(function):
            for statement in node.body:
                if isinstance(statement, (ast.Import, ast.ImportFrom)):
                    yield from _named(statement, file, optional=False)

    def _spread(self, one: Import, seen: set[str]) -> Iterator[Import]:
        local = self._local(one)
        if local is None:
            yield one
            return
        for file in local:
            if file not in seen:
                seen.add(file)
                tree = self._tree(file)
                for inner in _imports(tree.body if tree else [], file):
                    yield from self._spread(inner, seen)

    def _reached(self, function: Callable[..., Any]) -> list[tuple[ast.FunctionDef, str]]:
        """The function itself and, transitively, functions and methods of the same file that it names."""
        code = _code_of(function)
        if code is None:
            return []
        file = os.path.abspath(code.co_filename)
        known = _functions(self._tree(file))
        first = next(
            (node for node in known.get(code.co_name, []) if _first_line(node) == code.co_firstlineno), None
        )
        found = [first] if first is not None else []
        steps = set(steps_of(self._flow))
        for node in found:  # grows while it is walked
            for name in _names(node):
                found.extend(one for one in known.get(name, []) if one not in found and name not in steps)
        return [(node, file) for node in found]

    def _local(self, one: Import) -> tuple[str, ...] | None:
        """The files that an import of a module beside the flow file runs, or None when it comes from elsewhere."""
        dots = len(one.module) - len(one.module.lstrip("."))
        parts = [part for part in one.module.split(".") if part]
        if dots:
            folder = os.path.dirname(one.file)
            for _ in range(dots - 1):
                folder = os.path.dirname(folder)
            return tuple(_module_files(folder, parts, one.names))
        for folder in self._folders:
            path = os.path.join(folder, *parts)
            if os.path.isfile(f"{path}.py") or os.path.isdir(path):
                return tuple(_module_files(folder, parts, one.names))
        return None

    def _tree(self, file: str) -> ast.Module | None:
        if file not in self._trees:
            try:
                with open(file, "rb") as stream:
                    self._trees[file] = ast.parse(stream.read())
            except (OSError, SyntaxError, ValueError):
                self._trees[file] = None
        return self._trees[file]


def _module_files(folder: str, parts: list[str], names: tuple[str, ...]) -> Iterator[str]:
    """The files of the module ``parts`` below ``folder``: its packages, itself, and submodules among ``names``."""
    path = os.path.join(folder, *parts)
    around = [os.path.join(folder, *parts[: n + 1], "__init__.py") for n in range(len(parts))]
    inner = [os.path.join(path, f"{name}.py") for name in names]
    for file in (*around, f"{path}.py", *inner):
        if os.path.isfile(file):
            yield file


def _code_of(function: Callable[..., Any]) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _functions(tree: ast.Module | None) -> dict[str, list[ast.FunctionDef]]:
    found: dict[str, list[ast.FunctionDef]] = {}
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, []).append(node)
    return found


def _names(node: ast.FunctionDef) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self":
            yield inner.attr


def _imports(body: Iterable[ast.stmt], file: str, *, optional: bool = False) -> Iterator[Import]:
    """The imports in statements, those of inner blocks and classes included, without those of inner functions.

    One inside ``try`` with an ``except`` for ``ImportError`` is optional; so is one inside ``if``.
    """
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _named(node, file, optional=optional)
        elif isinstance(node, ast.ClassDef):
            yield from _imports(node.body, file, optional=optional)
        elif isinstance(node, ast.If):
            if not _type_checking(node.test):
                yield from _imports(node.body, file, optional=True)
            yield from _imports(node.orelse, file, optional=True)
        elif isinstance(node, (ast.Try, ast.TryStar)):
            guarded = any(_catches_import_error(handler) for handler in node.handlers)
            yield from _imports(node.body, file, optional=optional or guarded)
            for handler in node.handlers:
                yield from _imports(handler.body, file, optional=True)
            yield from _imports([*node.orelse, *node.finalbody], file, optional=optional)
        elif isinstance(node, (ast.With, ast.For, ast.While)):
            yield from _imports(node.body, file, optional=optional)


def _named(node: ast.Import | ast.ImportFrom, file: str, *, optional: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, file, node.lineno, optional)
    else:
        module = "." * node.level + (node.module or "")
        yield Import(module, file, node.lineno, optional, tuple(alias.name for alias in node.names))


def _type_checking(test: ast.expr) -> bool:
    named = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
    return named == "TYPE_CHECKING"


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    listed = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {one.id for one in listed if isinstance(one, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})
