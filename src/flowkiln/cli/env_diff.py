"""``flowkiln env diff``: what differs between two locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.cli.environments import Environment
    from flowkiln.envs.lock import EnvLock


@verb("diff", example="flowkiln env diff flow.py:start flow.py:fit\nflowkiln env diff old/train.locks train.locks")
@click.argument("a")
@click.argument("b")
@click.pass_context
def diff(context: click.Context, *, a: str, b: str) -> int:
    """Show what changes from the locks of A to those of B. Several environments are compared by name."""
    from flowkiln.cli import environments
    from flowkiln.envs import lockdiff

    speaker = session(context)
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
    speaker.result({"a": a, "b": b, "environments": answers}, lines)
    return ExitCode.OK


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
