"""``python FLOW.py run``: locks what is missing, then runs the flow."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import flowkiln
from flowkiln._base.settings import RUN_PREFIX
from flowkiln.cli import live, problems, streams
from flowkiln.cli.flow import FlowVerb, flow_session
from flowkiln.cli.options import flag, session, verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.cli.flow import FlowSession
    from flowkiln.cli.output import Session
    from flowkiln.executor.ending import RunEnd
    from flowkiln.executor.plan import RunPlan
    from flowkiln.flow.parameters import Parameter
    from flowkiln.wiring.policy import Policy

GIVEN = "flowkiln.parameters"
LONGEST_SHOWN = 200
"""Characters of a default that help shows."""


class RunVerb(FlowVerb):
    """The verb whose options are, beside its own, the parameters of the flow."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of ``run`` and those of the flow's parameters."""
        own = super().get_params(ctx)
        chosen = session(ctx).flow
        if chosen is None:
            return own
        from flowkiln.flow.parameters import parameters_of

        declared = [_option(one) for one in parameters_of(flow_session(ctx).flow) if not one.problems()]
        return [*declared, *own]


def _option(parameter: Parameter) -> click.Option:
    names = [f"--{parameter.name}"]
    if "_" in parameter.name:
        names.append(f"--{parameter.name.replace('_', '-')}")
    text = str(parameter.help or "")
    if parameter.required:
        text += " (required)"
    elif parameter.show_default and parameter.default is not None and not parameter.deferred:
        text += f" (default: {_short(parameter.default)})"
    return click.Option(
        [*names, f"parameter_{parameter.attribute}"],
        metavar=parameter.kind_name.upper(),
        help=text.strip(),
        envvar=RUN_PREFIX + parameter.name.replace("-", "_").upper(),
        expose_value=False,
        callback=_keep(parameter.name),
    )


def _short(value: object) -> str:
    """``value`` in one line of help, whatever its own ``__str__`` does."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  the user's class, or an integer of thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> None:  # noqa: ARG001
        if value is not None:
            context.meta.setdefault(GIVEN, {})[name] = value

    return callback


def _tags(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for tag in value:
        if not tag.strip() or not tag.isprintable():
            message = f"{tag!r} is no tag: a tag is a text of printable characters"
            raise click.BadParameter(message, context, parameter)
    return value


@verb(
    "run",
    cls=RunVerb,
    example="python flow.py run --max-workers 4 --tag nightly\npython flow.py run --with docker\n"
    "python flow.py run --with docker:memory=2000 --verify-env full",
)
@click.option(
    "--tag", "tags", multiple=True, callback=_tags, metavar="TAG", help="Tag of the run. May be repeated."
)
@flag("max-workers", type=int, metavar="N", help="Tasks that run at once. Default: the number of cores.")
@flag("max-num-splits", type=int, metavar="N", help="Widest foreach that may run. Default: 100000.")
@flag("isolation", metavar="HOW", help="How a task's process is made: auto, fork or spawn.")
@flag("verify-env", metavar="LEVEL", help="How a task's environment is proved: digest, stat or full.")
@click.option(
    "--run-id-file", type=click.Path(path_type=Path, dir_okay=False), help="File to write the run's id to."
)
@click.option(
    "--events",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that every event is appended to, as NDJSON.",
)
@click.pass_context
def run(context: click.Context, *, tags: tuple[str, ...], run_id_file: Path | None, events: Path | None) -> int:
    """Run the flow on this machine, each step in its locked environment.

    With `--with docker` each step runs in a container of its environment's image. Environments without a lock are
    locked first. Where CI is set, a missing or stale lock is an error.
    """
    from flowkiln.wiring import running

    speaker, chosen = session(context), flow_session(context)
    order = running.Order(
        flow=chosen.flow,
        file=chosen.file,
        given=dict(context.meta.get(GIVEN, {})),
        decospecs=tuple(chosen.decospecs),
        policy=policy_of(chosen),
        suffixes=chosen.suffixes,
        tags=tags,
        verbose=speaker.verbose,
    )
    settings = speaker.settings(chosen.file.parent)
    with ExitStack() as files:
        if run_id_file is not None:
            ids = files.enter_context(closing(live.IdFile(run_id_file)))
            order = replace(order, opened=ids.write)
        watching = watchers(speaker, files, events)
        return finish(running.run(order, settings, speaker.reporter, watching), speaker)


def watchers(speaker: Session, files: ExitStack, events: Path | None) -> Callable[[RunPlan], list[Any]]:
    """What makes the observers of a run: the screen, and the file of events, if any, which is opened now.

    ``files`` closes it. Raises ``BadUsage`` when it cannot be written.
    """
    written = [] if events is None else [files.enter_context(closing(live.EventFile(events)))]

    def make(plan: RunPlan) -> list[Any]:
        steps = [(step.name, step.prefix.name or "-") for step in plan.steps]
        speaker.say(f"flowkiln {flowkiln.__version__} executing {plan.flow}")
        for step in plan.steps:
            where = step.prefix.env_id or "unmanaged"
            speaker.note(f"step {step.name}: {step.prefix.python} ({step.prefix.version}, {where})")
        if any(step.prefix.other_platform and step.prefix.managed for step in plan.steps):
            speaker.say(f"environments are those of {plan.steps[0].prefix.platform}: same lock, other platform")
        return [live.observer(steps, quiet=speaker.quiet, as_json=speaker.json), *written]

    return make


def finish(end: RunEnd, speaker: Session) -> int:
    """Shows how a run ended, and gives its exit code."""
    error = end.error()
    if not speaker.json and (lost := streams.forgive(sys.stdout)) is not None:
        speaker.say(f"warning: cannot write to stdout: {lost.strerror or lost}; the run's lines were lost there")
    failed = error.to_json() if error else None
    speaker.result_json({"flow": end.flow, "run": end.run, "status": end.status, "error": failed})
    if error is not None and not speaker.json:
        problems.show(error, speaker)
    return end.exit_code


def policy_of(chosen: FlowSession) -> Policy:
    """What the command line allows to be done about locks; ``CI`` implies --locked."""
    from flowkiln.wiring.policy import Policy

    return Policy(locked=chosen.locked or bool(os.environ.get("CI")), frozen=chosen.frozen)
