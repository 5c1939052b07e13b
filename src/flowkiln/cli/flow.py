"""``python FLOW.py VERB``: the command line of one flow."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkiln.cli.options import Nouns, Verb, session, verb

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flowkiln.cli.output import Session
    from flowkiln.flow.spec import FlowSpec

VERBS = {
    "run": "flowkiln.cli.flow_run:run",
    "check": "flowkiln.cli.flow_check:check",
    "show": "flowkiln.cli.flow_show:show",
    "dump": "flowkiln.cli.flow_dump:dump",
    "logs": "flowkiln.cli.flow_logs:logs",
}


class FlowSession:
    """The flow that the command line is about, and what its top-level options said."""

    def __init__(self, flow: type[FlowSpec]) -> None:
        self.flow = flow
        self.decospecs: list[str] = []
        self.locked = False
        self.frozen = False
        self.suffixes: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The flow's file, absolute. Raises ``NotAFlow`` when the flow was typed, piped in or given with ``-c``."""
        told = getattr(sys.modules[self.flow.__module__], "__file__", None)
        path = Path(told).absolute() if told else None
        if path is None or not path.is_file():
            from flowkiln.wiring.errors import NotAFlow

            message = f"{self.flow.__name__} is in no file: its steps run in processes of their own, which read it"
            raise NotAFlow(message, hint="Write the flow to a file: python FLOW.py run")
        return path


def flow_session(context: click.Context) -> FlowSession:
    """The flow of the command in progress."""
    found = session(context).flow
    assert isinstance(found, FlowSession)
    return found


def flow_parameters() -> list[click.Option]:
    """Fresh instances of the options of a flow's command line, which stand on either side of the verb."""
    return [
        click.Option(
            ["--with"],
            multiple=True,
            expose_value=False,
            callback=_with,
            metavar="DECORATOR",
            help="Decorator for every step that lacks it, as `retry:times=2`. May be repeated.",
        ),
        click.Option(
            ["--locked"],
            is_flag=True,
            expose_value=False,
            callback=_set("locked"),
            help="A lock that is missing or out of date is an error. Implied where CI is set.",
        ),
        click.Option(
            ["--frozen"],
            is_flag=True,
            expose_value=False,
            callback=_set("frozen"),
            help="Locks are used as they are, uncompared; a missing one is an error.",
        ),
        click.Option(
            ["--package-suffixes"],
            expose_value=False,
            callback=_suffixes,
            metavar=".A,.B",
            help="More kinds of files that belong to the flow's code.",
        ),
        click.Option(
            ["--environment"],
            type=click.Choice(["local", "pypi", "conda"]),
            expose_value=False,
            help="Accepted for flows of Metaflow; the decorators alone decide.",
        ),
    ]


def _with(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:  # noqa: ARG001
    flow_session(context).decospecs.extend(value)


def _set(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001
        if value:
            setattr(flow_session(context), name, True)

    return callback


def _suffixes(context: click.Context, parameter: click.Parameter, value: str | None) -> None:  # noqa: ARG001
    if value:
        flow_session(context).suffixes = tuple(part.strip() for part in value.split(",") if part.strip())


class FlowVerb(Verb):
    """A verb of a flow's command line, with the options of that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(flow_parameters())


class FlowGroup(Nouns):
    """The verbs of a flow. No verb is ``check``; ``env V`` is ``flowkiln env V FLOW.py``."""

    def __init__(self, lazy: Mapping[str, str]) -> None:
        super().__init__(
            name="flow",
            lazy=lazy,
            invoke_without_command=True,
            help="Run, check and look at a flow.",
            epilog="\b\nExample:\n  python flow.py run --max-workers 4",
        )
        self.params.extend(flow_parameters())

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb; without one, ``check``."""
        session(ctx).home = flow_session(ctx).file.parent
        answer = super().invoke(ctx)
        if ctx.invoked_subcommand is not None:
            return answer
        check = self.get_command(ctx, "check")
        assert check is not None
        with check.make_context("check", [], parent=ctx) as below:
            return check.invoke(below)


@verb(
    "env",
    example="python flow.py env lock",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def flow_env(context: click.Context, arguments: tuple[str, ...]) -> Any:
    """Work with this flow's environments: `env V` is `flowkiln env V FLOW.py`; a step's name picks that step."""
    from flowkiln.cli.env import env
    from flowkiln.flow.marks import steps_of

    chosen = flow_session(context)
    known = steps_of(chosen.flow).keys()
    words = _with_flow(list(arguments), env.list_commands(context), os.path.relpath(chosen.file), known)
    # Below the flow's own context: this command is only the way there, and no part of a usage text.
    with env.make_context("env", words, parent=context.parent) as below:
        return env.invoke(below)


_ENV_PLACES = {"exec": slice(0, 1), "why": slice(1, None), "link": slice(0, 1)}
"""Which arguments of a verb are an ENV, where not all are."""
_VALUED = ("--platform", "--format", "--upgrade", "--profile", "--store")
"""Options of the verbs below ``env`` whose next word is their value."""


def _steps_named(words: list[str], path: str, steps: Collection[str]) -> list[str]:
    """``words`` with the flow before each ``:STEP``, and before each bare name of a step where an ENV stands."""
    end = words.index("--") if "--" in words else len(words)
    plain = [at for at in range(end) if not words[at].startswith("-") and (at == 0 or words[at - 1] not in _VALUED)]
    envs = plain[1:][_ENV_PLACES.get(words[plain[0]], slice(None))] if plain else []
    named = [path + word if word.startswith(":") else word for word in words]
    for at in envs:
        if words[at] in steps:
            named[at] = f"{path}:{words[at]}"
    return named


def _with_flow(words: list[str], verbs: list[str], path: str, steps: Collection[str] = ()) -> list[str]:
    """``words`` with this flow as their ENV: at each step, else after the verb (``why`` takes it last)."""
    named = _steps_named(words, path, steps)
    first = next((position for position, word in enumerate(named) if not word.startswith("-")), None)
    if named != words or first is None or named[first] not in verbs:
        return named
    return [*named, path] if named[first] == "why" else [*named[: first + 1], path, *named[first + 1 :]]


def command(flow: type[FlowSpec], speaker: Session) -> FlowGroup:
    """The command line of ``flow``; ``speaker`` remembers which flow it is."""
    speaker.flow = FlowSession(flow)
    group = FlowGroup(VERBS)
    group.add_command(flow_env, "env")
    return group


def main(flow: type[FlowSpec], arguments: list[str] | None = None) -> None:
    """Runs the command line of ``flow`` and ends the process with its exit code."""
    from flowkiln.cli.output import Session
    from flowkiln.cli.problems import execute

    speaker = Session()
    words = sys.argv[1:] if arguments is None else arguments
    program = f"python {_beside(sys.argv[0])}"
    sys.exit(execute(command(flow, speaker), words, program=program, session=speaker))


def _beside(path: str) -> str:
    try:
        return os.path.relpath(path)
    except OSError:  # the current folder is gone, which is told once there is something to tell
        return path


@verb(
    "flow",
    example="flowkiln flow train.py run --max-workers 4",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def any_flow(context: click.Context, *, file: Path, arguments: tuple[str, ...]) -> Any:
    """Run a verb of the flow in FILE: `flowkiln flow FILE VERB` is `python FILE VERB`."""
    from flowkiln.wiring import loading

    speaker = session(context)
    flow = loading.load(file.absolute())
    # Steps run the flow's file as __main__, and so are its classes named in what they store.
    sys.modules["__main__"] = sys.modules[flow.__module__]
    below = command(flow, speaker).make_context(f"flowkiln flow {file}", list(arguments), parent=context)
    with below:
        return below.command.invoke(below)
