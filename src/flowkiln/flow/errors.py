"""Errors of ``flowkiln.flow``, and the value that ``@catch`` keeps.

Those that user code may want to catch bear the names that flows written for Metaflow use.
"""

from __future__ import annotations

from flowkiln._base.errors import ExitCode, FlowkilnError
from flowkiln.executor.deadline import TimeoutException


class FlowError(FlowkilnError):
    """Base of the errors raised by ``flowkiln.flow``.

    ``file`` and ``line`` tell where the cause stands, when it stands in a file.
    """

    file: str | None = None
    line: int | None = None

    def at(self, file: str | None, line: int | None) -> FlowError:
        """Itself, with the place of its cause."""
        self.file, self.line = file, line
        return self

    @property
    def place(self) -> str:
        """``file:line`` of the cause, or the empty string."""
        if self.file is None:
            return ""
        return self.file if self.line is None else f"{self.file}:{self.line}"


__all__ = [
    "BadDecorator",
    "BadEnds",
    "BadEnvironment",
    "BadParameter",
    "BadParameterValue",
    "BadStepName",
    "BadStepSignature",
    "BadTransition",
    "CaughtException",
    "CodeTooLarge",
    "Cycle",
    "DecoratorNotAllowed",
    "EmptyForeach",
    "FailureHandledByCatch",
    "FlowError",
    "FlowNotFound",
    "ForeachTooWide",
    "IncludeUnreadable",
    "InvalidFlow",
    "InvalidNextException",
    "JoinMisuse",
    "MisplacedDecorator",
    "MissingInMergeArtifactsException",
    "MissingParameter",
    "NotAnArtifact",
    "SourceUnreadable",
    "StepError",
    "TimeoutException",
    "UnbalancedJoin",
    "UnhandledInMergeArtifactsException",
    "UnknownParameter",
    "UnknownTarget",
    "Unreachable",
]


# -- the flow's text -----------------------------------------------------------------------------------------


class InvalidFlow(FlowError):
    """The flow cannot run as it is written.

    Every problem found is listed with its file, its line and what to do. ``python FLOW.py check`` shows the same
    list without running anything.
    """

    code = "FLW001"
    title = "The flow has problems"

    def __init__(self, message: str, *, problems: tuple[FlowError, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class BadStepName(FlowError):
    """A step has a name that cannot be used.

    Step names consist of lower-case letters, digits and underscores and begin with a letter or digit. Names that
    flows already have a meaning for (``next``, ``input``, ``index``, ``name``, ``cmd``) are taken.
    """

    code = "FLW002"
    title = "Bad step name"


class BadEnds(FlowError):
    """The flow does not have exactly one first and one last step.

    Call them ``start`` and ``end``, or mark others with ``@step(start=True)`` and ``@step(end=True)``. Nothing
    leads to the first step, and the last one neither calls ``self.next`` nor takes ``inputs``.
    """

    code = "FLW003"
    title = "No clear first or last step"


class BadTransition(FlowError):
    """A step does not end with a ``self.next(...)`` that can be read.

    The last statement of every step but the last one is ``self.next(self.a)``, ``self.next(self.a, self.b)`` or
    ``self.next(self.a, foreach="attribute")``.
    """

    code = "FLW004"
    title = "Unclear transition"


class UnknownTarget(FlowError):
    """A ``self.next`` leads to something that is not a step of the flow.

    Check the spelling and that the target has ``@step`` above it.
    """

    code = "FLW005"
    title = "Transition to an unknown step"


class Cycle(FlowError):
    """Steps lead back to themselves. A flow runs forward from its first step to its last one."""

    code = "FLW006"
    title = "Steps form a cycle"


class Unreachable(FlowError):
    """No path leads from the first step to this one.

    Lead to it from another step with ``self.next``, or remove it.
    """

    code = "FLW007"
    title = "Unreachable step"


class UnbalancedJoin(FlowError):
    """A split or foreach and its join do not fit together.

    Each split or foreach is closed by one join, a step that takes ``inputs``, which all its branches reach.
    """

    code = "FLW008"
    title = "Branches are not joined"


class BadStepSignature(FlowError):
    """A step's function does not take what a step takes.

    Steps are plain functions ``def name(self)``; joins are ``def name(self, inputs)``.
    """

    code = "FLW009"
    title = "Bad step signature"


class BadDecorator(FlowError):
    """A decorator has an argument that it does not know, or a value that it cannot use.

    The message lists what it accepts.
    """

    code = "FLW010"
    title = "Bad decorator argument"


class MisplacedDecorator(FlowError):
    """A decorator does not stand where it works.

    Step decorators stand above ``@step``; ``@pypi_base`` stands above the class.
    """

    code = "FLW011"
    title = "Misplaced decorator"


class DecoratorNotAllowed(FlowError):
    """A decorator cannot be used on this step, or is there twice."""

    code = "FLW012"
    title = "Decorator not allowed here"


class BadParameter(FlowError):
    """A ``Parameter`` or ``IncludeFile`` is declared in a way that cannot work.

    The message says which argument is wrong and what is accepted.
    """

    code = "FLW013"
    title = "Bad parameter declaration"
    advice = "Correct the declaration of the parameter."


class SourceUnreadable(FlowError):
    """The source text of a step cannot be read, so that its transition is unknown.

    Flows are defined in files. A class made by ``exec`` or typed into a prompt has no file to read.
    """

    code = "FLW014"
    title = "No source text"


# -- values and packages given to a run ----------------------------------------------------------------------


class BadParameterValue(FlowError):
    """The value given for a parameter cannot be read as its type.

    The message names the parameter, its type and the value.
    """

    code = "FLW020"
    title = "Bad parameter value"
    advice = "`python FLOW.py run --help` lists the parameters with their types."


class MissingParameter(FlowError):
    """A required parameter was not given. Add it to the command line: ``--NAME VALUE``."""

    code = "FLW021"
    title = "Missing parameter"


class UnknownParameter(FlowError):
    """A value was given for a parameter that the flow does not have. The message lists those it has."""

    code = "FLW022"
    title = "Unknown parameter"


class IncludeUnreadable(FlowError):
    """The file of an ``IncludeFile`` cannot be read.

    A relative path is looked up in the current folder and then beside the flow file.
    """

    code = "FLW023"
    title = "Included file is not readable"
    advice = "Give the path of a file that can be read."


class CodeTooLarge(FlowError):
    """The code package of the flow is larger than its limit.

    The folder of the flow file is packed: files with the package suffixes, hidden folders left out. The message
    lists the largest files. Move data elsewhere or narrow ``--package-suffixes``.
    """

    code = "FLW024"
    title = "Code package is too large"


class BadEnvironment(FlowError):
    """The environments that the decorators of a flow declare contradict each other or name nothing.

    The message says which steps are concerned and which declaration to change.
    """

    code = "FLW025"
    title = "Bad environment declaration"


class FlowNotFound(FlowError):
    """The flow file does not contain the flow that was asked for, or does not start one.

    The file ends with ``if __name__ == "__main__": MyFlow()``.
    """

    code = "FLW026"
    title = "Flow not found"
    advice = "The file ends with a call of its flow, `Flow()`, below `if __name__ == ...`."


# -- inside a step -------------------------------------------------------------------------------------------


class StepError(FlowError):
    """Base of the errors that the API raises inside a step."""

    exit_code = ExitCode.USER_CODE


class InvalidNextException(StepError):
    """A step called ``self.next`` in a way that cannot be followed, or not at all, or twice.

    What is called when the step runs must be what stands in the flow's text.
    """

    code = "FLW040"
    title = "Invalid self.next transition"
    advice = "End the step with one self.next(self.a)."


class EmptyForeach(InvalidNextException):
    """A foreach has nothing to run over.

    Make sure that the attribute named in ``foreach=`` has at least one item, or end the run with an error of your
    own before it.
    """

    code = "FLW041"
    title = "Foreach over nothing"


class ForeachTooWide(InvalidNextException):
    """A foreach has more items than the run allows. Raise ``--max-num-splits`` if that is intended."""

    code = "FLW042"
    title = "Foreach is too wide"


class UnhandledInMergeArtifactsException(StepError):
    """``merge_artifacts`` found attributes whose values differ between the inputs of a join.

    Set them yourself before merging, or name them in ``exclude=``. ``artifact_names`` lists them. Values are
    compared by the hash of their stored bytes, never by ``==``.
    """

    code = "FLW043"
    title = "Attributes differ between inputs"

    def __init__(self, message: str, artifact_names: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, data={"artifacts": list(artifact_names)})
        self.artifact_names = list(artifact_names)


class MissingInMergeArtifactsException(StepError):
    """``merge_artifacts(include=...)`` names attributes that no input has. ``artifact_names`` lists them."""

    code = "FLW044"
    title = "Attributes are missing from all inputs"

    def __init__(self, message: str, artifact_names: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, data={"artifacts": list(artifact_names)})
        self.artifact_names = list(artifact_names)


class JoinMisuse(StepError):
    """Something that only a join can do was asked of another step, or inputs were used wrongly."""

    code = "FLW045"
    title = "Misuse of a join"
    advice = "Take the value from one of the inputs, as in inputs[0].x or inputs.fit.x."


class FailureHandledByCatch(StepError):
    """The process of a step with ``@catch`` ended without finishing, so that the failure was recorded for it."""

    code = "FLW047"
    title = "Failure handled by @catch"


class NotAnArtifact(StepError):
    """A flow, or the inputs of a join, was stored or sent elsewhere as a value.

    Store the attributes that you need instead.
    """

    code = "FLW048"
    title = "A flow is not a value"


class CaughtException:
    """The failure that ``@catch(var=...)`` stores: ``exception`` and ``type`` as text, ``stacktrace`` as text.

    It holds text only, so that it can be read in every environment.
    """

    def __init__(self, exception: str, type: str, stacktrace: str) -> None:  # noqa: A002  the public name
        self.exception = exception
        self.type = type
        self.stacktrace = stacktrace

    def __str__(self) -> str:
        return self.stacktrace or f"{self.type}: {self.exception}"

    def __repr__(self) -> str:
        return f"<{self.type}: {self.exception}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaughtException) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]
