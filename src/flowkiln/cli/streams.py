"""stdout and stderr as commands write to them: closed, full or left by their reader, no write ever raises."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputStopped(Exception):
    """Ends a command whose result nobody can read any more."""


class Guarded:
    """A text stream whose writes never raise ``OSError``: the first that fails is kept, the rest goes nowhere.

    ``lost`` is that first error, None while all went well. Everything else is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        self.forgiven = False

    def write(self, text: str) -> int:
        """Writes ``text``, or loses it."""
        if self.lost is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flushes what was written, or loses it."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        # What the stream still holds would raise again at each flush, the interpreter's last one included.
        with contextlib.suppress(OSError, ValueError):
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number, inheritable=number <= 2)
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[Guarded]:
    """Guards stdout and stderr, which libraries find guarded, too; gives stdout."""
    _hold_descriptors()
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        out, err = (Guarded(_usable(stream, opened)) for stream in before)
        sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def _hold_descriptors() -> None:
    """Fills 0, 1 and 2 where the caller closed them: a file opened later would get the number, and the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _usable(stream: TextIO | None, opened: contextlib.ExitStack) -> TextIO:
    if stream is None:  # the interpreter's word for a closed one
        return opened.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no fault of ours
    return stream


def lost(stream: object) -> OSError | None:
    """The error by which ``stream`` lost output; None where it did not, its reader just left, or it is forgiven."""
    if not isinstance(stream, Guarded) or stream.lost is None or stream.forgiven:
        return None
    return None if stream.lost.errno == errno.EPIPE else stream.lost


def forgive(stream: object) -> OSError | None:
    """Like ``lost``; from here on what was lost is no failure of the command."""
    error = lost(stream)
    if isinstance(stream, Guarded):
        stream.forgiven = True
    return error


def write(text: str) -> None:
    """Writes one line of a result to stdout. Raises ``OutputStopped`` once nothing can be written any more."""
    sys.stdout.write(text + "\n")
    if getattr(sys.stdout, "lost", None) is not None:
        raise OutputStopped
