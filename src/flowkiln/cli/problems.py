"""Errors as people and programs see them: at most 25 lines, a next step, the place of the full text."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import paths, redact
from flowkiln._base.errors import ExitCode, FlowkilnError, ReadOnly
from flowkiln.cli import streams
from flowkiln.cli.errors import BadUsage, FolderGone, InternalError, OutputLost
from flowkiln.cli.output import OUTPUT_SCHEMA, Session, is_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

MAX_LINES = 25
MAX_WIDTH = 400


def execute(
    command: click.Command, arguments: Sequence[str], *, program: str, session: Session | None = None
) -> int:
    """Runs ``command``; the exit code, everything raised on purpose or not turned into words."""
    session = session or Session()
    ours = itertools.takewhile(lambda word: word != "--", arguments)  # what follows is another program's
    session.json = "--json" in ours
    with streams.guarded() as out:
        code = _answer(command, list(arguments), program, session)
        out.flush()
        if code == ExitCode.OK and (error := streams.lost(out)) is not None:
            unwritten = OutputLost(f"cannot write to stdout: {error.strerror or error}")
            show(unwritten, session)
            return unwritten.exit_code
        return code


def _answer(command: click.Command, arguments: list[str], program: str, session: Session) -> int:
    try:
        return _call(command, arguments, program, session)
    except streams.OutputStopped:
        return ExitCode.OK
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return ExitCode.INTERRUPTED
    except FlowkilnError as error:
        show(error, session)
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last line of defence: words for people, the traceback in a file
        known = _diagnosis(error) if isinstance(error, OSError) else None
        if known is not None:
            show(known, session)
            return known.exit_code
        internal = _internal(error)
        show(internal, session)
        if session.verbose:
            sys.stderr.write(redact.text("".join(traceback.format_exception(error))))
        return internal.exit_code


def _call(command: click.Command, arguments: list[str], program: str, session: Session) -> int:
    import click

    try:
        answer = command.main(arguments, prog_name=program, standalone_mode=False, obj=session)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.BAD_INPUT
    except click.ClickException as error:
        usage = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else program
        raise BadUsage(error.format_message(), hint=f"`{usage} --help` shows what there is.") from None
    return answer if isinstance(answer, int) else ExitCode.OK


def show(error: FlowkilnError, session: Session) -> None:
    """Prints ``error``: under --json its object on stdout; else, or where that is lost, its lines on stderr."""
    if session.json:
        document = {"schema": OUTPUT_SCHEMA, "error": error.to_json()}
        sys.stdout.write(redact.text(json.dumps(document, indent=2, default=str)) + "\n")
        sys.stdout.flush()
        if streams.lost(sys.stdout) is None:
            return
    lines = render(error, whole=session.verbose)
    if is_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
        head, _, rest = lines[0].partition("]")
        lines[0] = f"\033[1;31m{head}]\033[0m{rest}"
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def render(error: FlowkilnError, *, whole: bool = False) -> list[str]:
    """The lines of ``error``: at most ``MAX_LINES``, what was cut kept in a file that is named; or the whole."""
    named = not error.step or error.message.startswith(f"step '{error.step}'")
    step = "" if named else f" step '{error.step}':"
    head = f"error[{error.code}]{step} "
    body = (head + redact.text(error.message)).splitlines()
    tail = [f"  hint: {line}" if i == 0 else f"        {line}" for i, line in enumerate(_hint_lines(error))]
    log = error.log
    room = MAX_LINES - len(tail) - 1
    if not whole and (len(body) > room or any(len(line) > MAX_WIDTH for line in body)):
        log = log or _keep("\n".join(body), "error")
        body = _cut(body, room)
    if log:
        tail.append(f"  full log: {log}")
    return [*body, *tail]


def _hint_lines(error: FlowkilnError) -> list[str]:
    return redact.text(error.hint).splitlines()[:6] if error.hint else []


def _cut(body: list[str], room: int) -> list[str]:
    short = [line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 3] + "..." for line in body]
    if len(short) <= room:
        return short
    first = room // 2
    last = room - first - 1
    return [*short[:first], f"  ... {len(short) - first - last} lines more ...", *short[-last:]]


def _diagnosis(error: OSError) -> FlowkilnError | None:
    """What ``error`` comes from where it is a folder that everything needs: the current one, or the cache."""
    try:
        Path.cwd()
    except OSError:
        return FolderGone("the folder that you are in does not exist any more")
    place = error.filename
    cache = paths.cache_root()
    if not isinstance(place, str) or cache not in (Path(place), *Path(place).parents):
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        message = f"the cache cannot be {cache}: {cause.strerror}"
        hint = "Set FLOWKILN_CACHE, or `cache` in the settings, to a folder that can be written."
        return ReadOnly(message, hint=hint)
    return None


def _internal(error: Exception) -> InternalError:
    text = "".join(traceback.format_exception(error))
    log = _keep(text, "internal")
    summary = (str(error).splitlines() or [""])[0][:200]
    message = f"{type(error).__name__}: {summary}".removesuffix(": ")
    return InternalError(message, hint="This is a bug in flowkiln; please report it with the log.", log=log)


def _keep(text: str, kind: str) -> str | None:
    """The path of a new file below the cache that holds ``text``, or None when none can be written."""
    try:
        path = new_log(kind)
        path.write_text(redact.text(text) + "\n", encoding="utf-8")
    except OSError:
        return None
    return str(path)


def new_log(kind: str) -> Path:
    """A fresh path for a log file of this process. Raises ``OSError``."""
    folder = paths.cache_root() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return folder / f"{stamp}-{kind}-{os.getpid()}.log"
