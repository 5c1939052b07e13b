"""``flowkiln env exec`` and ``shell``: a command or a shell in an environment, with a task's code and inputs."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import click

from flowkiln.cli import targets
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DOCKER = "docker"


def _with(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--with",
        "backend",
        type=click.Choice([DOCKER]),
        help="Do it in a container of the environment's image; needs the docker command.",
    )(function)


@verb(
    "exec",
    example='flowkiln env exec flow.py:fit -- python -c "import pandas"\n'
    "flowkiln env exec flow.py:fit --with docker -- python -V",
    context_settings={"allow_interspersed_args": False},
)
@_with
@click.argument("env")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def execute(context: click.Context, *, env: str, command: tuple[str, ...], backend: str | None) -> int | None:
    """Run a COMMAND inside ENV, installing it first when needed. The exit code is the command's.

    A task as Flow/RUN/STEP/TASK brings its code: the command runs in a folder that holds it. With --with docker the
    command runs in a container, which has the current folder mounted unless ENV is a task.
    """
    backend, command = _late(backend, command)
    if not command:
        raise BadUsage("there is no command to run", hint="Write it behind --, as in `-- python -V`.")
    target = targets.parse(env)
    if backend == DOCKER or (isinstance(target, targets.TaskTarget) and target.task is not None):
        from flowkiln.cli import seats

        return seats.sit(session(context), env, command, contained=backend == DOCKER)
    _become(context, env, command)
    return None


def _late(backend: str | None, command: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The backend and the command where ``--with`` stands behind ENV, which begins the command otherwise."""
    if backend is None and command[:2] == ("--with", DOCKER):
        backend, command = DOCKER, command[2:]
    elif backend is None and command[:1] == (f"--with={DOCKER}",):
        backend, command = DOCKER, command[1:]
    return backend, command[1:] if command[:1] == ("--",) else command


@verb(
    "shell",
    example="flowkiln env shell flow.py:fit\nflowkiln env shell Train/1769904000000000/fit/4 --with docker",
)
@_with
@click.argument("env")
@click.pass_context
def shell(context: click.Context, *, env: str, backend: str | None) -> int | None:
    """Start your shell inside ENV; leaving the shell leaves the environment.

    A task as Flow/RUN/STEP[/TASK] brings its variables, its code (a folder that is removed afterwards unless you
    changed it) and its inputs: `python` has them as `self`, as the step found it, and a join's as `inputs`.
    """
    speaker = session(context)
    if backend == DOCKER or isinstance(targets.parse(env), targets.TaskTarget):
        from flowkiln.cli import seats

        return seats.sit(speaker, env, (), contained=backend == DOCKER)
    speaker.say(f"{env}: `exit` leaves this environment")
    _become(context, env, (own_shell(),))
    return None


def own_shell() -> str:
    """The user's shell."""
    return os.environ.get("SHELL") or "/bin/sh"


def _become(context: click.Context, text: str, words: tuple[str, ...]) -> None:
    from flowkiln.cli import environments
    from flowkiln.wiring.trees import variables

    speaker = session(context)
    tree = environments.tree(text, speaker)
    environ = variables(tree, os.environ)
    program = found_program(words[0], environ, text)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, list(words), environ)  # noqa: S606  this process becomes the command


def found_program(name: str, environ: dict[str, str], text: str) -> str:
    """The path of a command. Raises ``BadUsage``."""
    program = shutil.which(name, path=environ.get("PATH"))
    if program is None:
        message = f"there is no program {name!r} in {text}, nor on PATH"
        raise BadUsage(message, hint=f"`flowkiln env show {text}` lists its packages.")
    return program
