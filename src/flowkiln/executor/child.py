"""One attempt inside the step's own process: from the fork, or the start, to the process's end.

The process ends like a Python program does (threads joined, exit handlers run, files closed) but without tearing
the interpreter down, which costs more than a small task.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import gc
import io
import os
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, NoReturn, cast

from flowkiln._base.errors import ExitCode, FlowkilnError, NoSpace, ReadOnly
from flowkiln._base.json import compact
from flowkiln.executor import deadline
from flowkiln.executor.backend import Assignment
from flowkiln.executor.outcome import Failure, Outcome, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.store.folder import FolderStore

    Perform = Callable[[Assignment, FolderStore, JSONObject], Outcome]
    Writer = io.TextIOBase | io.BufferedIOBase

_FILES: tuple[type, ...] = (io.TextIOBase.__bases__[0], io.BufferedIOBase.__bases__[0])
"""The plain types below ``io``'s abstract ones, which take longer to ask."""
_FAILED = 1
TIMED_OUT = 124
"""The exit code after ``TimeoutException``: the template then ends the rest of the process group."""


def detach(stdout: int, stderr: int) -> None:
    """Makes a forked process its own: session, output to ``stdout`` and ``stderr``, other random numbers."""
    os.setsid()
    for descriptor, number in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # ``random`` seeds itself anew after a fork; numpy's global generator does not.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def perform_attempt(
    order: JSONObject,
    perform: Perform,
    store: FolderStore,
    info: JSONObject,
    inherited: Sequence[Writer] = (),
) -> NoReturn:
    """Runs the attempt that ``order`` describes, writes its outcome to the spool file and ends the process.

    ``inherited`` are the files that were open for writing before the fork.
    """
    code = _FAILED
    try:
        process = os.getpid()
        outcome, code = _outcome(order, perform, store, info)
        if os.getpid() == process:  # else user code forked and its child came back here
            _write(order["spool"], outcome)
            code = code or _exit_code(outcome)
        else:
            code = 0
        _leave(inherited)
    except BaseException:  # noqa: BLE001  the last frame of this process: report whatever happened
        _report()
        code = code or _FAILED
    finally:
        os._exit(code)


def _exit_code(outcome: Outcome) -> int:
    if outcome.failure is None or outcome.ok:
        return 0
    return TIMED_OUT if outcome.failure.failure_class == "timeout" else _FAILED


def _outcome(order: JSONObject, perform: Perform, store: FolderStore, info: JSONObject) -> tuple[Outcome, int]:
    started = time.time_ns() // 1000
    if order["timeout"]:
        deadline.start(order["timeout"])
    code = 0
    try:
        outcome = perform(Assignment.from_json(order["assignment"]), store, info)
    except SystemExit as error:
        outcome, code = _left(error)
    except BaseException as error:  # noqa: BLE001  user code may raise anything, at any moment of the limit
        _report()
        outcome = Outcome(status="failed", failure=failure_of(error))
    if order["timeout"]:
        deadline.stop()
    failure = outcome.failure
    if failure is not None and deadline.is_timeout(failure.kind) and failure.failure_class == "user":
        failure = dataclasses.replace(failure, failure_class="timeout", cause="timeout")
    ended = outcome.ended or time.time_ns() // 1000
    return dataclasses.replace(outcome, failure=failure, started=outcome.started or started, ended=ended), code


def _left(error: SystemExit) -> tuple[Outcome, int]:
    """The outcome of a step that called ``sys.exit``, and the exit code it asked for."""
    if error.code is None or isinstance(error.code, int):
        code = (error.code or 0) & 0xFF
    else:
        _say(f"{error.code}\n")
        code = _FAILED
    text = f"the step called sys.exit({error.code!r}) and so ended without finishing"
    failure = Failure(failure_class="user", cause="exit", text=text, kind="SystemExit", exit_code=code)
    return Outcome(status="failed", failure=failure), code


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception which escaped from a step describes; a broken store is not the user's."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = text_of(error).partition("\n")[0] or name
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, FlowkilnError) and (
        error.exit_code == ExitCode.STORE or isinstance(error, (NoSpace, ReadOnly))
    ):
        return Failure(
            failure_class="infrastructure",
            cause="lost",
            text=error.message,
            kind=name,
            trace=trace,
            code=error.code,
            hint=error.hint,
        )
    timed_out = isinstance(error, deadline.TimeoutException)
    return Failure(
        failure_class="timeout" if timed_out else "user",
        cause="timeout" if timed_out else "exception",
        text=text,
        kind=name,
        trace=trace,
    )


def _write(spool: str, outcome: Outcome) -> None:
    """Puts the outcome where the supervisor reads it, whole or not at all.

    Where that cannot be written, a dangling link says why: it takes no space.
    """
    scratch = spool + ".part"
    document = outcome.to_json()
    if outcome.failure is not None:
        document["failure"] = _printable(document["failure"])
    data = compact(document)
    try:
        with open(scratch, "wb") as stream:  # noqa: PTH123  the hot path of every task
            stream.write(data)
        os.rename(scratch, spool)  # noqa: PTH104  the hot path of every task
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(scratch)  # noqa: PTH108  as above
        os.symlink(str(error.strerror), spool)  # noqa: PTH211  likewise
        raise


def _printable(failure: JSONObject) -> JSONObject:
    """``failure`` with lone surrogates, which no terminal takes, written as backslash escapes."""
    return {
        key: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for key, value in failure.items()
    }


def _leave(inherited: Sequence[Writer]) -> None:
    """What the interpreter does at its end, in its order, short of destroying every object."""
    gc.collect()
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  the only way to join as the interpreter does
    atexit._run_exitfuncs()  # noqa: SLF001  likewise
    _close(open_writers())
    for stream in (*inherited, sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a closed or broken stream must not change the outcome
            stream.flush()


def open_writers() -> list[Writer]:
    """The files that this process has open for writing, flushed, outermost wrapper first; not the standard ones.

    After ``gc.freeze`` only those that were opened since.
    """
    standard = {id(stream) for stream in (sys.stdout, sys.stderr, sys.stdin, sys.__stdout__, sys.__stderr__)}
    standard |= {id(getattr(stream, "buffer", None)) for stream in (sys.stdout, sys.stderr, sys.stdin)}
    files = [item for item in gc.get_objects() if isinstance(item, _FILES) and id(item) not in standard]
    found = cast("list[Writer]", files)
    found.sort(key=_depth)
    for item in found:
        with contextlib.suppress(Exception):  # closed, or its device is full: its owner's business
            item.flush()
    return found


def _depth(item: Writer) -> int:
    if isinstance(item, io.TextIOBase):
        return 0
    return 2 if isinstance(item, (io.BufferedWriter, io.BufferedRandom)) else 1


def _close(writers: Sequence[Writer]) -> None:
    """Closes files that user code left open, so that no buffered byte is lost."""
    for item in writers:
        with contextlib.suppress(Exception):  # as in a finaliser: nobody is left to tell
            item.close()


def restore_signals() -> None:
    """Gives this process the signal handling that a Python program starts with."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _report() -> None:
    with contextlib.suppress(Exception):  # standard error may be closed or broken
        traceback.print_exc()
        sys.stderr.flush()


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # standard error may be closed or broken
        sys.stderr.write(text)
        sys.stderr.flush()
