"""Attributes of a running flow: artifacts loaded when first read, stored when the step ends.

What a step does not touch passes on by reference. What it loads passes on by reference too unless it changed;
only hashes are compared, so that passing on needs none of the packages that a value is made of.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln._base.errors import FlowkilnError
from flowkiln.flow.parameters import READ_ONLY
from flowkiln.store import artifacts
from flowkiln.store.artifacts import Artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.store.interfaces import Blobs

FOREACH_STACK = "_foreach_stack"
"""Bookkeeping of a task inside a foreach: never inherited, never merged."""

_STATE = "_flowkiln"
_SCALARS = (str, bytes, int, float, bool, complex, type(None))


class Attributes:
    """The artifacts that one flow instance can read, and which of them it has loaded.

    ``table`` maps names to stored artifacts in JSON form. ``frozen`` names cannot be assigned. ``read_only``
    instances, the inputs of a join, cannot be changed at all. ``owner`` says whose they are, for messages.
    """

    def __init__(
        self,
        table: Mapping[str, JSONObject],
        blobs: Blobs,
        *,
        owner: str,
        frozen: Iterable[str] = (),
        read_only: bool = False,
        hint: str | None = None,
    ) -> None:
        self.table = {name: document for name, document in table.items() if name != FOREACH_STACK}
        self.frozen = frozenset(frozen)
        self._blobs = blobs
        self._owner = owner
        self._read_only = read_only
        self._hint = hint
        self._loaded: dict[str, tuple[Artifact, Any]] = {}
        self._fixed: dict[str, Any] = {}

    def has(self, name: str) -> bool:
        """Whether there is an artifact of this name."""
        return name in self.table

    def fetch(self, flow: FlowSpec, name: str) -> Any:
        """The artifact ``name``, kept on ``flow`` from now on. Raises ``AttributeError``."""
        if name not in self.table:
            message = f"Flow {type(flow).__name__} has no attribute {name!r} ({self._owner})"
            if self._hint:
                message += f". {self._hint}"
            raise AttributeError(message, name=name)
        value, artifact = self._load(name)
        self._loaded[name] = (artifact, value if isinstance(value, _SCALARS) else None)
        vars(flow)[name] = value
        return value

    def get(self, name: str) -> Any:
        """The value of a parameter or class constant, loaded once. Raises ``AttributeError``."""
        if name not in self._fixed:
            if name not in self.table:
                message = f"parameter {name!r} has no value in this run"
                raise AttributeError(message, name=name)
            self._fixed[name], _ = self._load(name)
        return self._fixed[name]

    def check_write(self, name: str) -> None:
        """Raises ``AttributeError`` when ``name`` cannot be assigned."""
        if self._read_only:
            message = f"inputs of a join are read-only: set `self.{name}` instead ({self._owner})"
            raise AttributeError(message)
        if name in self.frozen:
            raise AttributeError(READ_ONLY)
        if not name.isidentifier():
            message = f"{name!r} cannot be the name of an attribute of a flow: names are as in `self.name`"
            raise AttributeError(message)
        if name in reserved():
            message = f"self.{name} means something for flows already: give the attribute another name"
            raise AttributeError(message)

    def check_delete(self, name: str) -> None:
        """Raises ``AttributeError`` when ``name`` is a parameter or class constant, which stays what it is."""
        if name in self.frozen:
            raise AttributeError(READ_ONLY)

    def adopt(self, name: str, document: JSONObject) -> None:
        """Takes over a stored artifact from elsewhere, without loading it."""
        self.table[name] = document

    def seal(self, flow: FlowSpec, skip: Iterable[str] = ()) -> tuple[dict[str, JSONObject], list[FlowkilnError]]:
        """Stores what ``flow`` holds, emptying it: the table of all its artifacts, and what could not be stored."""
        held = vars(flow)
        left_out = {*skip, _STATE}
        result = {name: document for name, document in self.table.items() if name not in left_out}
        errors: list[FlowkilnError] = []
        for name in sorted(held):
            value = held[name]
            if name in left_out or name.startswith("__") or _own_method(flow, value):
                continue
            del held[name]
            try:
                result[name] = self._sealed(name, value)
            except FlowkilnError as error:
                result.pop(name, None)
                errors.append(error)
        return result, errors

    def _sealed(self, name: str, value: Any) -> JSONObject:
        known = self._loaded.get(name)
        if known is not None:
            artifact, kept = known
            scalar = isinstance(value, _SCALARS)
            if value is kept if scalar else artifacts.same(artifact, value):
                return self.table[name]
        return artifacts.save(name, value, self._blobs).to_json()

    def _load(self, name: str) -> tuple[Any, Artifact]:
        artifact = Artifact.from_json(self.table[name])
        return artifacts.load(artifact, self._blobs, name=name), artifact


@cache
def reserved() -> frozenset[str]:
    """The names that every flow has a method or property of."""
    from flowkiln.flow.spec import FlowSpec  # noqa: PLC0415  the class itself has none

    return frozenset(name for name in vars(FlowSpec) if not name.startswith("_"))


def _own_method(flow: FlowSpec, value: object) -> bool:
    return isinstance(value, MethodType) and value.__self__ is flow


class Constant:
    """Replaces a class attribute while a step runs: read-only, its value the one stored when the run started."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.original = original

    def __get__(self, flow: FlowSpec | None, owner: type | None = None) -> Any:
        task = None if flow is None else flow._flowkiln  # noqa: SLF001  the flow's own state
        if task is None or not task.attributes.has(self.name):
            return self.original
        return task.attributes.get(self.name)

    def __set__(self, flow: object, value: object) -> NoReturn:
        raise AttributeError(READ_ONLY)


def constants_of(flow: type) -> dict[str, Any]:
    """The class constants of a flow: public class attributes that are neither callable, type nor descriptor."""
    from flowkiln.flow.spec import FlowSpec  # noqa: PLC0415  the class itself has none

    found: dict[str, Any] = {}
    for kind in reversed(flow.__mro__):
        if kind in (object, FlowSpec):
            continue
        for name, value in vars(kind).items():
            found.pop(name, None)
            if isinstance(value, Constant):
                found[name] = value.original
            elif not (name.startswith("_") or isinstance(value, type) or hasattr(value, "__get__")):
                found[name] = value
    return found


def freeze_constants(flow: type) -> frozenset[str]:
    """Makes the class constants of ``flow`` read-only for its running instances and returns their names."""
    constants = constants_of(flow)
    for name, value in constants.items():
        if not isinstance(vars(flow).get(name), Constant):
            setattr(flow, name, Constant(name, value))
    return frozenset(constants)


def opening(flow: type, values: Mapping[str, Any], blobs: Blobs) -> dict[str, JSONObject]:
    """The artifacts that a run of ``flow`` opens with, in JSON form: parameters and class constants.

    ``values`` is what ``parameters.evaluate`` gave. A constant that cannot be stored stays a plain class attribute.
    Raises ``UnpicklableArtifact`` for parameters.
    """
    table = {name: artifacts.save(name, value, blobs).to_json() for name, value in values.items()}
    for name, value in constants_of(flow).items():
        try:
            table[name] = artifacts.save(name, value, blobs).to_json()
        except FlowkilnError:
            continue  # a lock or a client on the class is the same in every process that imports the flow
    return table
