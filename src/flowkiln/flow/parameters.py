"""Parameters of a flow: their declaration, and their values at the start of a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from flowkiln.flow.errors import BadParameterValue, FlowError, MissingParameter, UnknownParameter
from flowkiln.flow.marks import caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

READ_ONLY = "Flow level attributes and Parameters are not modifiable"
RESERVED = frozenset(
    {
        *("params", "with", "tag", "namespace", "obj", "tags", "decospecs", "run-id-file", "max-num-splits"),
        *("max-workers", "max-log-size", "user-namespace", "run-id", "task-id", "runner-attribute-file", "help"),
        *("events", "isolation", "verify-env", "json", "store", "profile", "quiet", "verbose", "offline"),
        *("locked", "frozen", "environment", "package-suffixes"),
    }
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})


class JSONTypeClass:
    """The type of parameters whose value is JSON text on the command line: ``type=JSONType``."""

    name = "JSON"

    def __repr__(self) -> str:
        return "JSON"


JSONType = JSONTypeClass()
_TYPES = (str, int, float, bool)


class ParameterContext(NamedTuple):
    """What a callable ``default`` is called with."""

    flow_name: str
    user_name: str
    parameter_name: str
    logger: Callable[[str], None]
    ds_type: str


class Parameter:
    """A value that a run is started with: ``--NAME VALUE``, read in steps as the attribute it is assigned to.

    ``type`` is ``str``, ``int``, ``float``, ``bool`` or ``JSONType``; without it the default's type. ``default``
    is a value, or a function of a ``ParameterContext`` called once when a run starts. ``required`` has no effect
    beside a default. ``separator`` splits text into a list.
    """

    def __init__(
        self,
        name: str,
        default: Any = None,
        type: Any = None,  # noqa: A002  the public name
        help: str | None = None,  # noqa: A002  the public name
        required: bool | None = None,
        show_default: bool | None = None,
        *,
        separator: str | None = None,
        **unknown: object,
    ) -> None:
        self.name = str(name)
        self.default = default
        self.type = type
        self.help = help
        self.required = bool(required) and default is None
        self.show_default = True if show_default is None else show_default
        self.separator = separator
        self.attribute = str(name)
        self.unknown = tuple(unknown)
        self.file, self.line = caller(1)

    accepts = "name, default, type, help, required, show_default, separator"

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, flow: Any, owner: type | None = None) -> Any:
        task = None if flow is None else flow._flowkiln  # noqa: SLF001  the flow's own state
        return self if task is None else task.attributes.get(self.attribute)

    def __set__(self, flow: object, value: object) -> NoReturn:
        raise AttributeError(READ_ONLY)

    def __delete__(self, flow: object) -> NoReturn:
        raise AttributeError(READ_ONLY)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def kind(self) -> Any:
        """The type in effect: the one given, else the default's, else ``str``."""
        if self.type is not None:
            return self.type
        if self.default is None or self.deferred or self.separator is not None:
            return str
        if isinstance(self.default, (dict, list)):
            return JSONType
        return type(self.default)

    @property
    def kind_name(self) -> str:
        """The type in effect, as a word."""
        return "JSON" if isinstance(self.kind, JSONTypeClass) else getattr(self.kind, "__name__", repr(self.kind))

    @property
    def deferred(self) -> bool:
        """Whether the default is a function that is called when a run starts."""
        return callable(self.default) and not isinstance(self.default, type)

    def problems(self) -> list[str]:
        """What is wrong with the declaration itself, one sentence each."""
        found = [f"unknown argument {name!r}; accepted: {self.accepts}" for name in self.unknown]
        if not _NAME.fullmatch(self.name):
            found.append("a name begins with a letter and consists of letters, digits, '-' and '_'")
        elif self.name.lower().replace("_", "-") in RESERVED:
            found.append("this name is taken by an option of the command line")
        return [*found, *self._kind_problems()]

    def _kind_problems(self) -> list[str]:
        if self.kind not in _TYPES and not isinstance(self.kind, JSONTypeClass):
            return [f"type is str, int, float, bool or JSONType, not {self.kind_name}"]
        if self.separator is not None and self.kind is not str:
            return ["separator is for text: use type=str"]
        if self.separator == "":
            return ["separator is empty"]
        if self.default is None or self.deferred:
            return []
        try:
            self.checked(self.default)
        except BadParameterValue as error:
            return [f"default: {error.message}"]
        return []

    def convert(self, text: str) -> Any:
        """The value that ``text`` stands for. Raises ``BadParameterValue``."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise self._bad(text, "text in UTF-8") from error
        if self.separator is not None:
            return text.split(self.separator) if text else []
        if isinstance(self.kind, JSONTypeClass):
            return self._json(text)
        if self.kind is bool:
            word = text.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
            raise self._bad(text, "true or false")
        try:
            return self.kind(text)
        except ValueError as error:
            raise self._bad(text, "a whole number" if self.kind is int else "a number") from error

    def checked(self, value: Any) -> Any:
        """``value`` of a default in the parameter's type. Raises ``BadParameterValue``."""
        if isinstance(self.kind, JSONTypeClass):
            return self._json(value) if isinstance(value, str) else value
        if self.separator is not None:
            return value if isinstance(value, list) else self.convert(value)
        if self.kind is float and type(value) is int:
            return float(value)
        if type(value) is not self.kind:
            message = f"{value!r} is {type(value).__name__}, not {self.kind_name}"
            raise BadParameterValue(message)
        return value

    def fallback(self, context: ParameterContext) -> Any:
        """The value of the default, None without one. Raises ``BadParameterValue`` when a callable fails."""
        if not self.deferred:
            return None if self.default is None else self.checked(self.default)
        try:
            value = self.default(context)
        except Exception as error:  # the default is user code
            message = f"parameter {self.name!r}: its default raised {type(error).__name__}: {error}"
            raise BadParameterValue(message).at(self.file, self.line) from error
        if self.type is None and self.separator is None:
            return value
        try:
            return self.checked(value)
        except BadParameterValue as error:
            message = f"parameter {self.name!r}: its default returned something else: {error.message}"
            raise BadParameterValue(message).at(self.file, self.line) from error

    def _json(self, text: str) -> Any:
        import json  # noqa: PLC0415  only where it is used

        try:
            return json.loads(text)
        except RecursionError as error:
            raise self._bad(text, "JSON that can be read: it is nested too deeply") from error
        except ValueError as error:
            raise self._bad(text, f"JSON ({error})") from error

    def _bad(self, text: str, wanted: str) -> BadParameterValue:
        shown = text if len(text) <= 80 else text[:77] + "..."
        example = "JSON" if isinstance(self.kind, JSONTypeClass) else self.kind_name.upper()
        hint = f"Give it as --{self.name} {example}."
        return BadParameterValue(f"parameter {self.name!r}: {shown!r} is not {wanted}", hint=hint)


def key_of(name: str) -> str:
    """The form in which parameter names are compared: case, ``-`` and ``_`` make no difference."""
    return name.lower().replace("-", "_")


def parameters_of(flow: type) -> list[Parameter]:
    """The parameters of a flow class, those of its bases first, in order of definition."""
    found: dict[str, Parameter] = {}
    for kind in reversed(flow.__mro__):
        for name, value in vars(kind).items():
            found.pop(name, None)
            if isinstance(value, Parameter):
                found[name] = value
    return list(found.values())


def evaluate(flow: type, given: Mapping[str, str]) -> dict[str, Any]:
    """The value of each parameter by attribute name; ``given`` maps parameter names to texts.

    Raises ``UnknownParameter``, ``MissingParameter`` and ``BadParameterValue``; several complaints come as one.
    """
    declared = parameters_of(flow)
    known = {key_of(parameter.name): parameter for parameter in declared}
    texts = {key_of(name): text for name, text in given.items()}
    complaints: list[FlowError] = [
        UnknownParameter(f"flow {flow.__name__} has no parameter {name!r}", hint=_known(declared))
        for name in given
        if key_of(name) not in known
    ]
    values: dict[str, Any] = {}
    for parameter in declared:
        try:
            values[parameter.attribute] = _value(flow, parameter, texts.get(key_of(parameter.name)))
        except FlowError as error:
            complaints.append(error)
    if complaints:
        raise _together(complaints)
    return values


def _value(flow: type, parameter: Parameter, text: str | None) -> Any:
    if text is not None:
        return parameter.convert(text)
    if parameter.required:
        message = f"parameter {parameter.name!r} is required"
        shown = parameter.kind_name.upper()
        raise MissingParameter(message, hint=f"Give it with --{parameter.name} {shown}.")
    from flowkiln.flow.current import user_name  # noqa: PLC0415  not needed to declare parameters

    return parameter.fallback(ParameterContext(flow.__name__, user_name() or "", parameter.name, _log, "local"))


def _log(text: str) -> None:
    import sys  # noqa: PLC0415  only for callable defaults

    sys.stderr.write(f"{text}\n")


def _known(declared: Iterable[Parameter]) -> str:
    names = ", ".join(f"--{parameter.name}" for parameter in declared)
    return f"It has {names}." if names else "It has none."


def _together(complaints: list[FlowError]) -> FlowError:
    if len(complaints) == 1:
        return complaints[0]
    lines = [f"{error.message}. {error.hint}" if error.hint else error.message for error in complaints]
    return type(complaints[0])("\n".join(lines))
