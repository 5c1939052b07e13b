"""``flowkiln env diff``: what differs between two locks, or between what two runs ran in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.cli.environments import Environment
    from flowkiln.cli.output import Session
    from flowkiln.envs.lock import EnvLock
    from flowkiln.wiring.comparing import Pair


TEXT, MARKDOWN = "text", "markdown"


@verb(
    "diff",
    example="flowkiln env diff flow.py:start flow.py:fit\nflowkiln env diff old/train.locks train.locks\n"
    "flowkiln env diff Train/1769904000000000 Train/1769990400000000 --format markdown",
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--format",
    "form",
    type=click.Choice([TEXT, MARKDOWN]),
    default=TEXT,
    show_default=True,
    help="Form of what is shown; markdown is for pull requests.",
)
@click.pass_context
def diff(context: click.Context, *, a: str, b: str, form: str) -> int:
    """Show what changes from the locks of A to those of B. Several environments are compared by name.

    Whole runs as Flow/RUN, and two tasks, are compared by what they ran in, whatever the backend: the same
    environment is one with equal locked packages for a platform, installed to equal bytes.
    """
    speaker = session(context)
    if _past(a) and _past(b):
        from flowkiln.cli import rundiff

        pairs = rundiff.pairs(a, b, speaker)
        told = {"a": a, "b": b, "same": _all_same(pairs), "steps": [pair.to_json() for pair in pairs]}
        speaker.result(told, rundiff.markdown(a, b, pairs) if form == MARKDOWN else rundiff.lines(pairs))
        return ExitCode.OK
    answers, lines = _of_locks(a, b, speaker)
    document = {"a": a, "b": b, "environments": answers}
    speaker.result(document, _markdown(a, b, lines) if form == MARKDOWN else lines)
    return ExitCode.OK


def _past(text: str) -> bool:
    """Whether ``text`` names a past run, or a step or task of one."""
    from flowkiln.cli import targets

    return isinstance(targets.parse(text), (targets.RunTarget, targets.TaskTarget))


def _all_same(pairs: list[Pair]) -> bool | None:
    """Whether every step ran in the same environment, None where no step says no and some do not know."""
    found = {pair.same for pair in pairs}
    return False if False in found else None if None in found else True


def _markdown(a: str, b: str, lines: list[str]) -> list[str]:
    return [f"### `{a}` and `{b}`", "", "```diff", *lines, "```"]


def _of_locks(a: str, b: str, speaker: Session) -> tuple[list[JSONObject], list[str]]:
    """The changes from the locks of A to those of B, as rows and as lines."""
    from flowkiln.cli import environments
    from flowkiln.envs import lockdiff

    answers: list[JSONObject] = []
    lines: list[str] = []
    for name, one, other in _pairs(environments.named(a, speaker), environments.named(b, speaker)):
        if one is None or other is None:
            only = a if other is None else b
            answers.append({"name": name, "only": "a" if other is None else "b", "changes": []})
            lines.append(f"{name}: only in {only}")
            continue
        changes = lockdiff.diff(_lock(one, a), _lock(other, b))
        answers.append({"name": name, "only": None, "changes": [change.to_json() for change in changes]})
        lines.append(f"{name}: " + (counted(len(changes), "change") if changes else "equal"))
        lines += [f"  {change}" for change in changes]
    return answers, lines


def _lock(one: Environment, text: str) -> EnvLock:
    """The lock as it stands; that of an environment without one is missing, not empty. Raises ``MissingLock``."""
    from flowkiln.cli import environments

    return one.lock or environments.locked(one, text)


def _pairs(
    before: list[Environment], after: list[Environment]
) -> list[tuple[str, Environment | None, Environment | None]]:
    """What is compared: one with one whatever their names, else by name, and all of both sides."""
    if len(before) == len(after) == 1:
        one, other = before[0], after[0]
        name = one.name if one.name == other.name else f"{one.name} -> {other.name}"
        return [(name, one, other)]
    mine, yours = ({one.name: one for one in found} for found in (before, after))
    return [(name, mine.get(name), yours.get(name)) for name in sorted(mine.keys() | yours.keys())]
