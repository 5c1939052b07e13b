"""What went wrong in a step, as a value and as text cut to the user's own frames."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor.outcome import Failure, text_of
from flowkiln.flow.errors import EmptyForeach, ForeachTooWide, InvalidNextException, TimeoutException

if TYPE_CHECKING:
    from traceback import TracebackException

    from flowkiln.executor.outcome import Cause, FailureClass

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def describe(error: BaseException, *, full: bool = False, root: str | None = None) -> Failure:
    """The failure that ``error``, raised by a step, stands for.

    ``full`` keeps every frame of the traceback. Files below ``root``, the unpacked code, are shown relative to it.
    """
    failure_class, cause = _classify(error)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = text_of(error).strip().partition("\n")[0]
    exit_code = None
    if isinstance(error, SystemExit):
        text = f"the step called sys.exit({'' if error.code is None else repr(error.code)}) instead of returning"
        exit_code = _exit_code(error)
    return Failure(
        failure_class=failure_class,
        cause=cause,
        text=text or name,
        kind=name,
        trace=traceback_of(error, full=full, root=root),
        exit_code=exit_code,
        code=error.code if isinstance(error, FlowkilnError) else None,
        hint=error.hint if isinstance(error, FlowkilnError) else None,
    )


def traceback_of(error: BaseException, *, full: bool = False, root: str | None = None) -> str:
    """The traceback as text, without frames of flowkiln itself unless ``full``; an error's hint stands below it.

    A wrong ``self.next`` is told as an error and the place of the call: its message says all.
    """
    from traceback import TracebackException  # noqa: PLC0415  only when something failed

    shown = TracebackException.from_exception(error)
    if not full:
        _cut(shown, set(), own=isinstance(error, FlowkilnError))
    text = "".join(shown.format())
    if isinstance(error, InvalidNextException) and not full:
        places = [f'  File "{frame.filename}", line {frame.lineno}\n' for frame in shown.stack[-1:]]
        text = "".join([f"error[{error.code}] {error.message}\n", *places])
    if root is not None:
        text = text.replace(f'File "{root.rstrip(os.sep)}{os.sep}', 'File "')
    hint = error.hint if isinstance(error, FlowkilnError) else None
    return f"{text}hint: {hint}\n" if hint else text


def _cut(shown: TracebackException, seen: set[int], *, own: bool = False) -> None:
    """Removes our frames; where no other is left they stay, but for an error that explains itself (``own``)."""
    if id(shown) in seen:
        return
    seen.add(id(shown))
    kept = [frame for frame in shown.stack if not os.path.abspath(frame.filename).startswith(_OURS)]
    if kept or own:
        shown.stack[:] = kept
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _cut(other, seen)


def _classify(error: BaseException) -> tuple[FailureClass, Cause]:
    if isinstance(error, TimeoutException):
        return "timeout", "timeout"
    if isinstance(error, MemoryError):
        return "user", "out-of-memory"
    if isinstance(error, SystemExit):
        return "user", "exit"
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", "interrupted"
    if isinstance(error, (EmptyForeach, ForeachTooWide)):
        return "user", "foreach-width"
    if isinstance(error, InvalidNextException):
        return "user", "transition"
    return "user", "exception"


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1
