"""``flowkiln env list``: the environments of a flow, a project or a lock folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import table

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.cli.environments import Environment


@verb("list", example="flowkiln env list flow.py")
@click.argument("envs", nargs=-1)
@click.pass_context
def list_environments(context: click.Context, *, envs: tuple[str, ...]) -> int:
    """List the environments of ENVS: their steps, whether their lock holds, what it has.

    Without ENVS, those of the nearest pyproject.toml.
    """
    from flowkiln.cli import environments

    speaker = session(context)
    found = [one for text in envs or ("pyproject.toml",) for one in environments.named(text, speaker)]
    rows = [[one.name, ", ".join(one.steps) or "-", one.state, *_locked(one)] for one in found]
    lines = (
        [none(envs)]
        if not rows
        else table(["NAME", "STEPS", "LOCK", "PYTHON", "PACKAGES", "PLATFORMS"], rows, right=[4])
    )
    speaker.result({"environments": [document(one) for one in found]}, lines)
    return ExitCode.OK


def none(texts: tuple[str, ...]) -> str:
    """What to say when ``texts`` declare no environment at all."""
    if texts and all(text.endswith(".py") for text in texts):
        return "no step declares an environment: all run in the launcher's own interpreter"
    return f"no environment is declared in {', '.join(texts) or 'pyproject.toml'}"


def _locked(one: Environment) -> list[str]:
    lock = one.lock
    if lock is None:
        return ["-", "-", "-"]
    count = max((len(part.wheels) for part in lock.platforms), default=0)
    return [lock.python, str(count), ", ".join(str(part.platform) for part in lock.platforms)]


def document(one: Environment) -> JSONObject:
    """An environment as the --json output shows it."""
    lock = one.lock
    return {
        "name": one.name,
        "steps": list(one.steps),
        "state": one.state,
        "folder": str(one.folder.path) if one.folder else None,
        "lock_id": lock.lock_id if lock else None,
        "python": lock.python if lock else None,
        "platforms": [
            {"platform": str(part.platform), "env_id": part.env_id, "packages": len(part.wheels)}
            for part in (lock.platforms if lock else ())
        ],
        "absent": [
            {"platform": str(part.platform), "reason": part.reason} for part in (lock.absent if lock else ())
        ],
    }
