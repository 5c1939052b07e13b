"""The root of every error that flowkiln raises on purpose.

Each folder has an ``errors.py`` with one small tree below :class:`FlowkilnError`. A leaf has a code
(``ENV012``), a title and a docstring: the docstring is the page that ``flowkiln explain CODE`` shows and that
``docs/reference/errors.md`` is generated from. A code is never reused.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject


class ExitCode(IntEnum):
    """Exit codes of every command: part of the interface, never renumbered."""

    OK = 0
    USER_CODE = 1
    BAD_INPUT = 2
    LOCK = 3
    UNSOLVABLE = 4
    SERVICE = 5
    ENVIRONMENT = 17
    LEASE = 18
    STORE = 19
    INTERNAL = 70
    INTERRUPTED = 130


class FlowkilnError(Exception):
    """Base of every error with a code.

    ``message`` says what is wrong in one or a few lines, ``hint`` what to do next, ``step`` names the step
    concerned, ``data`` holds machine-readable facts and ``log`` the place of a longer text. ``retryable``
    answers whether the same call may succeed when repeated unchanged. ``advice`` is the hint of a kind of error
    wherever no better one is given.
    """

    code: str = ""
    """The class's code; an error that passes on what another process met has that one's code."""
    title: ClassVar[str] = ""
    exit_code: ClassVar[ExitCode] = ExitCode.BAD_INPUT
    advice: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        step: str | None = None,
        hint: str | None = None,
        data: JSONObject | None = None,
        log: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.step = step
        self.hint = hint or self.advice
        self.data: JSONObject = dict(data or {})
        self.log = log
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))

    def to_json(self) -> JSONObject:
        """The error as the ``error`` object of ``--json`` output."""
        return {
            "code": self.code,
            "message": self.message,
            "step": self.step,
            "hint": self.hint,
            "data": self.data,
            "log": self.log,
        }


def _rebuild(kind: type[FlowkilnError], message: str, state: dict[str, Any]) -> FlowkilnError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


@contextmanager
def concerning(step: str | None = None, what: str = "", *, named: str = "") -> Iterator[None]:
    """Errors raised inside say which ``step`` and ``what`` they are about, unless they do.

    ``what`` goes before a message that does not hold ``named``, by default ``what`` itself.
    """
    try:
        yield
    except FlowkilnError as error:
        error.step = error.step or step
        if what and (named or what) not in error.message:
            error.message = f"{what}: {error.message}"
            error.args = (error.message,)
        raise


def leaves(root: type[FlowkilnError] = FlowkilnError) -> Iterator[type[FlowkilnError]]:
    """Every subclass with a code of its own that has been imported so far, by code."""
    found: dict[str, type[FlowkilnError]] = {}
    pending = [root]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if "code" in kind.__dict__ and kind.code:
            found[kind.code] = kind
    yield from (found[code] for code in sorted(found))


class BaseError(FlowkilnError):
    """Base of the errors raised by ``flowkiln._base``."""


class SettingError(BaseError):
    """A setting, flag or environment variable has a value that flowkiln cannot use.

    The message names the setting, where the value came from and what is accepted. Unknown settings are errors
    too: a misspelt name would otherwise do nothing. ``flowkiln config show --origin`` lists every setting with
    the place it was read from.
    """

    code = "CFG001"
    title = "Bad setting"
    advice = "`flowkiln config show --origin` lists every setting and where it was read."


class ToolMissing(BaseError):
    """A program or an optional part of flowkiln that the command needs is not installed.

    The message names it and the line that installs it.
    """

    code = "CFG002"
    title = "Something that is needed is not installed"
    advice = "Install it, or put it on PATH."


class NoSpace(BaseError):
    """The disk is full or a quota is used up.

    Nothing half-written is left behind. ``flowkiln cache gc --dry-run`` shows what can be freed.
    """

    code = "SYS001"
    title = "No space left"
    exit_code = ExitCode.SERVICE


class ReadOnly(BaseError):
    """A folder that flowkiln must write to is read-only or belongs to somebody else.

    The message names the folder and the setting that moves it.
    """

    code = "SYS002"
    title = "Folder is not writable"


class FormatTooNew(BaseError):
    """A file was written by a newer flowkiln in a format that this version does not know.

    The message names the version that is needed. Nothing was changed.
    """

    code = "SYS003"
    title = "File of a newer flowkiln"


class Unsupported(BaseError):
    """This operating system or interpreter is not supported.

    flowkiln runs on Linux and macOS with Python 3.11 to 3.15. On Windows use WSL 2.
    """

    code = "SYS004"
    title = "Unsupported system"
