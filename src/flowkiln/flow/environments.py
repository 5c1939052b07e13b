"""Which environment each step of a flow gets, from its decorators and ``[tool.flowkiln.envs]``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln._base.errors import FlowkilnError
from flowkiln._base.paths import nearest_pyproject
from flowkiln.envs import sources
from flowkiln.envs.spec import EnvSpec
from flowkiln.flow.errors import BadEnvironment
from flowkiln.flow.marks import flow_decorators

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowkiln.flow.graph import Graph, Node
    from flowkiln.flow.marks import Decorator

_SOURCES = (
    "packages",
    "conda",
    "source",
    "groups",
    "extras",
    "requirements",
    "pyproject",
    "group",
    "extra",
    "script",
)
_OWN = ("name", "disabled")
SIDES = ("pypi", "conda")
"""Where packages come from; a decorator of a step and one of its flow for each."""
_BASES = tuple(f"{side}_base" for side in SIDES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvRequest:
    """An environment that a flow asks for: its name, the request, and the steps that run in it.

    ``file`` is the file that declares it, beside which its lock belongs: the flow file, or the ``pyproject.toml``
    of an environment in ``[tool.flowkiln.envs]``.
    """

    name: str
    spec: EnvSpec
    file: Path
    steps: tuple[str, ...]

    @property
    def shared(self) -> bool:
        """Whether it is declared in a ``pyproject.toml`` that other flows use too."""
        return self.file.name == "pyproject.toml"


def requests(flow: type, graph: Graph) -> dict[str, EnvRequest | None]:
    """The environment of each step; None where the step runs in the launcher's interpreter.

    Once any step declares one, those that declare nothing get one that holds only the interpreter. Equal requests
    are one environment. Raises ``BadEnvironment`` and the errors of ``envs.sources``.
    """
    bases = {one.name.removesuffix("_base"): one for one in flow_decorators(flow) if one.name in _BASES}
    file = Path(graph.file).absolute()
    wanted = {name: _wanted(graph.nodes[name], bases, file) for name in graph.order()}
    if not any(isinstance(one, _Wanted) for one in wanted.values()):
        return dict.fromkeys(graph.nodes)
    bare = _Wanted(name=None, spec=EnvSpec(), file=file)
    chosen = {name: bare if one is _UNDECLARED else one for name, one in wanted.items()}
    return _named({name: one for name, one in chosen.items() if isinstance(one, _Wanted)}, graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A step's request with the name given to it, if any."""

    name: str | None
    spec: EnvSpec
    file: Path


_UNDECLARED = "undeclared"
_DISABLED = "disabled"


def _wanted(node: Node, bases: Mapping[str, Decorator], file: Path) -> _Wanted | str:
    own = {one.name: one for one in node.decorators if one.name in SIDES}
    if not own and not bases:
        return _UNDECLARED
    sides = [
        side for side in SIDES if (side in own or side in bases) and not _disabled(own.get(side), bases.get(side))
    ]
    if not sides:
        return _DISABLED
    above = _level(node, [own[side] for side in sides if side in own])
    below = _level(node, [bases[side] for side in sides if side in bases])
    for options in (above, below):
        if options.get("name") is not None and not _given(options):
            return _from_project(node, options, file)
        if _given(options):
            break
    try:
        merged = sources.merge(_without(below), _without(above), folder=file.parent)
        spec = sources.spec(merged, folder=file.parent, script=file)
    except FlowkilnError as error:
        error.step = error.step or node.name
        found = own if _without(above) else bases
        _place(error, next((found[side] for side in sides if side in found), None))
        raise
    name = above.get("name") if above.get("name") is not None else below.get("name")
    return _Wanted(name=name, spec=spec, file=file)


def _disabled(own: Decorator | None, base: Decorator | None) -> bool:
    """Whether one side is switched off for a step: the step's own word counts, else the flow's."""
    told = [one.arguments["disabled"] for one in (own, base) if one is not None]
    return bool(next((word for word in told if word is not None), False))


def _level(node: Node, decorators: Iterable[Decorator]) -> dict[str, Any]:
    """What one level says, the step's or the flow's, as options of ``envs.sources``. Raises ``BadEnvironment``."""
    options: dict[str, Any] = {}
    said: dict[str, Decorator] = {}
    for decorator in decorators:
        for key, value in _options(decorator).items():
            if key in options and options[key] != value:
                first = f"@{said[key].name}({key}={options[key]!r})"
                message = f"step {node.name!r}: {first} and @{decorator.name}({key}={value!r}) are one environment"
                error = BadEnvironment(
                    message, step=node.name, hint=f"Give both the same {key}, or only one of them."
                )
                raise error.at(decorator.file or node.file, decorator.line or node.line)
            options[key] = value
            said[key] = decorator
    return options


def _options(decorator: Decorator) -> dict[str, Any]:
    """The arguments that were given, by the names that they have as options of ``envs.sources``."""
    given = {key: value for key, value in decorator.arguments.items() if value is not None}
    if not decorator.name.startswith("conda"):
        return given
    packages, libraries = given.pop("packages", None), given.pop("libraries", None)
    if packages is not None and libraries is not None:
        given["conda"] = sources.merge({"conda": libraries}, {"conda": packages}).get("conda", [])
    elif packages is not None or libraries is not None or not {"name", "source"} & set(given):
        given["conda"] = packages if packages is not None else libraries or []
    return given


def _place(error: FlowkilnError, decorator: Decorator | None) -> None:
    """Puts the decorator's place before the message of ``error``, which may name another file."""
    if decorator is not None and decorator.file is not None:
        error.message = f"{decorator.file}:{decorator.line}: @{decorator.name}: {error.message}"
        error.args = (error.message,)


def _given(options: Mapping[str, Any]) -> bool:
    """Whether ``options`` say themselves what the environment holds."""
    return any(options.get(key) is not None for key in _SOURCES if key != "pyproject")


def _without(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _OWN and value is not None}


def _from_project(node: Node, options: Mapping[str, Any], file: Path) -> _Wanted:
    name = options["name"]
    told = options.get("pyproject")
    project = Path(file.parent, told) if told is not None else nearest_pyproject(file.parent)
    if project is None:
        message = f"step {node.name!r}: @pypi(name={name!r}), but there is no pyproject.toml above {file.parent}"
        hint = f"Declare [tool.flowkiln.envs.{name}] there, or give packages."
        raise BadEnvironment(message, step=node.name, hint=hint).at(node.file, node.line)
    beside = sorted(key for key, value in _without(options).items() if key != "pyproject" and value is not None)
    if beside:
        message = f"step {node.name!r}: {', '.join(beside)} beside name={name!r}, which is declared in {project}"
        hint = f"Set it in [tool.flowkiln.envs.{name}], or give packages here."
        raise BadEnvironment(message, step=node.name, hint=hint).at(node.file, node.line)
    return _Wanted(name=name, spec=sources.project_spec(project, name), file=project)


def _named(wanted: Mapping[str, _Wanted], graph: Graph) -> dict[str, EnvRequest | None]:
    """Requests by step: equal ones share a name, the one given or that of the first step that uses them."""
    given = _given_names(wanted, graph)
    made: dict[_Wanted, EnvRequest] = {}
    for step, one in wanted.items():
        known = one if one.name is not None else replace(one, name=given.get((one.file, one.spec)))
        steps = (*made[known].steps, step) if known in made else (step,)
        made[known] = EnvRequest(name=known.name or "", spec=known.spec, file=known.file, steps=steps)
    names = {(one.file, one.name) for one in made.values() if one.name}
    result: dict[str, EnvRequest | None] = dict.fromkeys(graph.nodes)
    for request in made.values():
        final = request if request.name else replace(request, name=_free(request, names))
        names.add((final.file, final.name))
        result.update(dict.fromkeys(final.steps, final))
    return result


def _given_names(wanted: Mapping[str, _Wanted], graph: Graph) -> dict[tuple[Path, EnvSpec], str]:
    """The first name given to each request. Raises ``BadEnvironment`` when one name means two requests."""
    found: dict[tuple[Path, EnvSpec], str] = {}
    first: dict[tuple[Path, str], tuple[str, EnvSpec]] = {}
    for step, one in wanted.items():
        if one.name is None:
            continue
        found.setdefault((one.file, one.spec), one.name)
        other, spec = first.setdefault((one.file, one.name), (step, one.spec))
        if spec != one.spec:
            node = graph.nodes[step]
            message = f"step {step!r}: name={one.name!r} is given to another environment too, by step {other!r}"
            error = BadEnvironment(message, step=step, hint="Give each its own name, or the same options.")
            raise error.at(node.file, node.line)
    return found


def _free(request: EnvRequest, names: set[tuple[Path, str]]) -> str:
    for step in request.steps:
        if (request.file, step) not in names:
            return step
    number = 2
    while (request.file, f"{request.steps[0]}-{number}") in names:
        number += 1
    return f"{request.steps[0]}-{number}"
