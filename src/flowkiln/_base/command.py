"""The one place that starts other programs and waits for them: deadline, signs of life, whole process group.

A program runs in a process group of its own, so that ending it ends what it started. Its output is read as it
comes; a program that says nothing is reported through ``tick`` and ended at its limits.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from flowkiln._base import parallel
from flowkiln._base.errors import ToolMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Ended = Literal["exit", "deadline", "stall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a program may take, in seconds: ``total`` in all, ``stall`` without a line of output."""

    total: float = 900.0
    stall: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended: ``ended`` is ``exit`` unless a limit was reached; ``code`` is its exit code."""

    code: int
    ended: Ended
    seconds: float
    output: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """``output`` as text; bytes that are not UTF-8 are replaced."""
        return self.output.decode(errors="replace")


def run(
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    limits: Limits | None = None,
    on_line: Callable[[str], None] | None = None,
    tick: Callable[[float], None] | None = None,
    given: bytes = b"",
    await_output: bool = True,
) -> Finished:
    """Runs a program to its end and returns its output; never raises for a bad exit code.

    ``environment`` is the whole environment, ``given`` what stdin holds. ``on_line`` gets each line of stderr as
    it comes, ``tick`` the seconds since the start about once a second. Without ``await_output`` the end of the
    program is enough: what it left behind may keep its output open. A program that reaches a limit is ended
    with its group (SIGTERM, then SIGKILL after two seconds), and so it is when the caller is interrupted or told
    to stop (``parallel.together``). Raises ``ToolMissing`` when the program cannot be started.
    """
    limits = limits or Limits()
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            [os.fspath(argument) for argument in arguments],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        message = f"cannot start {arguments[0]}: {error.strerror or error}"
        raise ToolMissing(message) from error
    streams = _Streams(process, on_line, given, await_output=await_output)
    try:
        ended = streams.read(limits, started, tick)
        if ended != "exit":
            end_group(process)
        code = process.wait()
    except BaseException:
        end_group(process)
        raise
    finally:
        streams.close()
    return Finished(
        code=code,
        ended=ended,
        seconds=time.monotonic() - started,
        output=streams.data("stdout"),
        stderr=streams.data("stderr").decode(errors="replace"),
    )


def end_group(process: subprocess.Popen[bytes], *, patience: float = 2.0) -> None:
    """Ends ``process`` and its group: SIGTERM, after ``patience`` seconds SIGKILL; returns when it is gone."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Streams:
    """The streams of a process, read and written without blocking."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        on_line: Callable[[str], None] | None,
        given: bytes,
        *,
        await_output: bool,
    ) -> None:
        self._process = process
        self._await_output = await_output
        self._on_line = on_line
        self._parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._rest = b""
        self._given = memoryview(given)
        self._selector = selectors.DefaultSelector()
        for name in (*self._parts, "stdin"):
            stream = cast("BinaryIO | None", getattr(process, name))
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
                self._selector.register(stream, event, name)

    def read(self, limits: Limits, started: float, tick: Callable[[float], None] | None) -> Ended:
        """Reads until both streams end, or as ``await_output`` says the program, or a limit is reached."""
        heard = ticked = started
        while self._selector.get_map():
            # Asked before the last look: what the program wrote before its end is in the pipes then.
            over = not self._await_output and self._process.poll() is not None
            for key, _ in self._selector.select(0 if over else 0.25 if self._await_output else 0.02):
                if key.data == "stdin":
                    self._give(key)
                else:
                    self._take(key)
                heard = time.monotonic()
                over = False
            if over:
                break
            if parallel.stopped():
                raise KeyboardInterrupt
            now = time.monotonic()
            if now - started > limits.total:
                return "deadline"
            if now - heard > limits.stall:
                return "stall"
            if tick is not None and now - ticked >= 1.0:
                ticked = now
                tick(now - started)
        return "exit"

    def data(self, name: str) -> bytes:
        """What was read of one stream."""
        return b"".join(self._parts[name])

    def close(self) -> None:
        """Closes the pipes."""
        self._selector.close()
        for stream in (self._process.stdout, self._process.stderr, self._process.stdin):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _give(self, key: selectors.SelectorKey) -> None:
        """Writes what the pipe has room for; its end, when all is written or the process reads no more."""
        try:
            self._given = self._given[os.write(key.fd, self._given[: 1 << 16]) :]
        except BrokenPipeError:
            self._given = self._given[:0]
        if not self._given:
            self._selector.unregister(key.fileobj)
            cast("BinaryIO", key.fileobj).close()

    def _take(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, 1 << 16)
        if not data:
            self._selector.unregister(key.fileobj)
            data = b"\n" if key.data == "stderr" and self._rest else b""
        elif key.data in self._parts:
            self._parts[key.data].append(data)
        if key.data == "stderr" and self._on_line is not None:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace"))
