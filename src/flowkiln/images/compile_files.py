"""What the interpreter that compiles runs, alone: sources come in as frames, bytecode goes out as frames.

Standard library only, for every supported Python. A file's bytecode depends on its path, its content and ``X.Y.Z``
and on nothing else: not on the files before it, on how this Python was built, or on the machine.

    python -s -S -B -P compile_files.py < REQUEST > ANSWER           in an environment without other settings
    python -I -S -B compile_files.py REQUEST ANSWER                  in any

The first frame of an answer names the interpreter. A file without a frame does not compile.
"""

from __future__ import annotations

import _thread
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER, source_hash
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = 8
"""Bytes of a frame's two lengths, each followed by what it measures: a path and its content."""
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
SWITCHES = ("-s", "-S", "-B", "-P", "-W", "ignore")
LEFT_OUT = frozenset(
    ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "turtledemo", "lib2to3")
)
"""Folders of a standard library that steps do not import from."""
_LIBRARIES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_UNCHECKED = b"\x01\x00\x00\x00"  # PEP 552: named by the hash of its source, and loaded without a look at it
_STACK = 64 << 20
_PLENTY = 64 << 20


def frame(path: str, data: bytes) -> bytes:
    """One file of a request or an answer."""
    name = path.encode("utf-8", "surrogateescape")
    return b"".join((len(name).to_bytes(LENGTH, "big"), name, len(data).to_bytes(LENGTH, "big"), data))


def frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files in ``data``. Raises ``ValueError`` where it is cut off."""
    at = 0
    while at < len(data):
        parts = []
        for _ in range(2):
            end = at + LENGTH + int.from_bytes(data[at : at + LENGTH], "big")
            parts.append(data[at + LENGTH : end])
            at = end
        if at > len(data):
            message = "the last file is cut off"
            raise ValueError(message)
        yield parts[0].decode("utf-8", "surrogateescape"), parts[1]


def of_stdlib(path: str) -> bool:
    """Whether a regular file, by its path below the standard library's folder, gets bytecode there."""
    return path.endswith(".py") and LEFT_OUT.isdisjoint(path.split("/"))


def environment(environ: dict[str, str]) -> dict[str, str]:
    """The whole environment of a compiling process: what some builds need to start at all is kept."""
    return {**ENVIRONMENT, **{name: environ[name] for name in _LIBRARIES if name in environ}}


def bytecode(path: str, source: bytes) -> bytes | None:
    """The content of the ``.pyc`` file of ``source`` at ``path``; None where it is no Python of this version."""
    path = sys.intern(path)  # as it may be already
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
        held, unsettled = _strings(code)
        if unsettled:
            code = compile(source, path, "exec", dont_inherit=True, optimize=0)
            held += _strings(code)[0]
        data = marshal.dumps(code)
        del held
    except (SyntaxError, ValueError, RecursionError, OverflowError):
        return None
    except MemoryError:
        # A parser that gives up says so as well. Where memory is really out, this raises again: no file is left
        # out for a reason that is not its own.
        bytearray(_PLENTY + 100 * len(source))
        return None
    return MAGIC_NUMBER + _UNCHECKED + source_hash(source) + data


def _strings(code: CodeType) -> tuple[list[str], bool]:
    """Every string of ``code``, and whether what the process had before shows in its constants.

    Names are shared with all that the process has loaded. The writer marks what may occur again, which it tells
    from the number of owners: who holds this list gives each string a second one. And the compiler replaces a
    string that the process has already, but not everywhere: the name of a nested class is a constant too, and
    stays, and a set becomes another one. With this list held, the process has all strings the second time.
    """
    found: list[str] = []
    constants: set[str] = set()
    dotted: set[str] = set()
    unsettled = False
    pending: list[Any] = [code]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            found.append(one)
            constants.add(one)
        elif isinstance(one, CodeType):
            found += (one.co_filename, one.co_name, one.co_qualname)
            if "." in one.co_qualname:
                dotted.add(one.co_qualname)
            for names in (one.co_names, one.co_varnames, one.co_freevars, one.co_cellvars):
                found += names
            pending += one.co_consts
        elif isinstance(one, tuple | frozenset):
            unsettled = unsettled or isinstance(one, frozenset)
            pending += one
        elif isinstance(one, slice):
            pending += (one.start, one.stop, one.step)
    return found, unsettled or not dotted.isdisjoint(constants)


def _single() -> list[str]:
    """The strings that exist once in every Python and are written in another way once something interns them."""
    anonymous = "lambda: ([0 for _ in _], {0 for _ in _}, {0: 0 for _ in _}, (0 for _ in _))"
    names, _ = _strings(compile(anonymous, "", "exec"))
    return [sys.intern(name) for name in (*map(chr, range(256)), *names)]


_SINGLE = _single()


def interpreter() -> str:
    """``cpython 3.11.7``: which compiler this is."""
    major, minor, micro, level, serial = sys.version_info
    suffix = "" if level == "final" else f"{level}{serial}"
    return f"{sys.implementation.name} {major}.{minor}.{micro}{suffix}"


def answer(sources: Iterator[tuple[str, bytes]]) -> bytes:
    """The answer to a request for ``sources``."""
    parts = [frame(interpreter(), b"")]
    for path, source in sources:
        made = bytecode(path, source)
        if made is not None:
            parts.append(frame(path, made))
    return b"".join(parts)


def work(arguments: list[str]) -> None:
    """Reads the request and writes the answer, in files or, without ``arguments``, on stdin and stdout."""
    if not arguments:
        sys.stdout.buffer.write(answer(frames(sys.stdin.buffer.read())))
        sys.stdout.buffer.flush()
        return
    with open(arguments[0], "rb") as file:
        made = answer(frames(file.read()))
    with open(arguments[1], "wb") as file:
        file.write(made)


def main() -> int:
    """Works in a thread whose stack is as large on every machine: how deep a file may nest depends on it."""
    if sys.flags.isolated:
        command = [sys.executable, *SWITCHES, *sys.argv]
        os.execve(sys.executable, command, environment(dict(os.environ)))  # noqa: S606
    failures: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            work(sys.argv[1:])
        except BaseException as error:  # noqa: BLE001  raised again by the thread that ends the process
            failures.append(error)
        finally:
            done.release()

    _thread.stack_size(_STACK)
    _thread.start_new_thread(run, ())
    done.acquire()
    if any(isinstance(one, MemoryError) for one in failures):
        os.write(2, b"memory ran out\n")  # a traceback would need some
        return 1
    for one in failures:
        raise one
    return 0


if __name__ == "__main__":
    sys.exit(main())
