"""``flowkiln env exec`` and ``shell``: a command, or a shell, inside an environment."""

from __future__ import annotations

import os
import shutil
import sys

import click

from flowkiln._base import paths
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb


@verb(
    "exec",
    example='flowkiln env exec flow.py:fit -- python -c "import pandas"',
    context_settings={"allow_interspersed_args": False},
)
@click.argument("env")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def execute(context: click.Context, *, env: str, command: tuple[str, ...]) -> None:
    """Run a COMMAND inside ENV, installing it first when needed. The exit code is the command's."""
    _become(context, env, command)


@verb("shell", example="flowkiln env shell flow.py:fit")
@click.argument("env")
@click.pass_context
def shell(context: click.Context, *, env: str) -> None:
    """Start your shell inside ENV; leaving the shell leaves the environment."""
    program = os.environ.get("SHELL") or "/bin/sh"
    session(context).say(f"{env}: `exit` leaves this environment")
    _become(context, env, (program,))


def _become(context: click.Context, text: str, command: tuple[str, ...]) -> None:
    from flowkiln.cli import environments
    from flowkiln.envs.running import variables

    speaker = session(context)
    tree = environments.tree(text, speaker)
    environ = variables(tree, paths.cache_root(), os.environ)
    words = command[1:] if command[0] == "--" else command
    program = shutil.which(words[0], path=environ["PATH"])
    if program is None:
        message = f"there is no program {words[0]!r} in {text}, nor on PATH"
        raise BadUsage(message, hint=f"`flowkiln env show {text}` lists its packages.")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, list(words), environ)  # noqa: S606  this process becomes the command
