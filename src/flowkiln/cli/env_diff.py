"""``flowkiln env diff``: what differs between two locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.cli.environments import Environment


@verb("diff", example="flowkiln env diff flow.py:start flow.py:fit\nflowkiln env diff old/train.locks train.locks")
@click.argument("a")
@click.argument("b")
@click.pass_context
def diff(context: click.Context, *, a: str, b: str) -> int:
    """Show what changes from the locks of A to those of B. Several environments are compared by name."""
    from flowkiln.cli import environments
    from flowkiln.envs import lockdiff

    speaker = session(context)
    answers, lines = [], []
    for name, one, other in _pairs(environments.named(a, speaker), environments.named(b, speaker)):
        changes = lockdiff.diff(one.lock if one else None, other.lock if other else None)
        answers.append({"name": name, "changes": [change.to_json() for change in changes]})
        lines.append(f"{name}: " + (f"{len(changes)} changes" if changes else "equal"))
        lines += [f"  {change}" for change in changes]
    speaker.result({"a": a, "b": b, "environments": answers}, lines)
    return ExitCode.OK


def _pairs(
    before: list[Environment], after: list[Environment]
) -> list[tuple[str, Environment | None, Environment | None]]:
    if len(before) == len(after) == 1:
        one, other = before[0], after[0]
        name = one.name if one.name == other.name else f"{one.name} -> {other.name}"
        return [(name, one, other)]
    mine, yours = ({one.name: one for one in found} for found in (before, after))
    return [(name, mine.get(name), yours.get(name)) for name in sorted(mine.keys() | yours.keys())]
