"""``flowkiln env verify``: whether installed environments are what was locked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.cli.environments import Environment
    from flowkiln.cli.output import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An environment with what was found: ``ok``, ``changed``, ``repaired`` or ``not installed``."""

    name: str
    steps: tuple[str, ...]
    state: str
    path: str | None = None
    text: str | None = None

    def line(self) -> str:
        """The finding for people; ``text`` belongs to the error."""
        used = f" ({', '.join(self.steps)})" if self.steps and self.steps != (self.name,) else ""
        return f"{self.name}{used}: {self.state}" + (f"   {self.path}" if self.path else "")


@verb("verify", example="flowkiln env verify flow.py\nflowkiln env verify --full flow.py:fit")
@click.argument("envs", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Hash every byte instead of comparing what `stat` says.")
@click.option("--repair", is_flag=True, help="Make an environment that fails anew; install one that is not here.")
@click.pass_context
def verify(context: click.Context, *, envs: tuple[str, ...], full: bool, repair: bool) -> int:
    """Verify the environments of ENVS on this machine, every one of them.

    Exit code 17 when one is not what was locked, or when it is not installed.
    """
    from flowkiln.cli import environments, problems
    from flowkiln.envs.installerrors import EnvironmentMismatch

    speaker = session(context)
    findings = [
        _finding(one, text, speaker, full=full, repair=repair)
        for text in envs
        for one in environments.named(text, speaker)
    ]
    bad = [one for one in findings if one.state not in ("ok", "repaired")]
    document = {"environments": [asdict(one) for one in findings], "level": "full" if full else "stat"}
    if not bad:
        speaker.result(document, [one.line() for one in findings])
        return ExitCode.OK
    message = f"{len(bad)} of {counted(len(findings), 'environment')} not as locked: " + ", ".join(
        f"{one.name} ({one.state})" for one in bad
    )
    message = "\n".join([message, *(one.text for one in bad if one.text)])
    hint = f"`flowkiln env verify --repair {' '.join(envs)}` makes them anew."
    error = EnvironmentMismatch(message, hint=hint, step=next((one.steps[0] for one in bad if one.steps), None))
    if speaker.json:
        speaker.result({**document, "error": error.to_json()}, ())
    else:
        speaker.result(document, [one.line() for one in findings])
        problems.show(error, speaker)
    return error.exit_code


def _finding(one: Environment, text: str, speaker: Session, *, full: bool, repair: bool) -> Finding:
    from flowkiln.cli import environments
    from flowkiln.envs.installerrors import EnvironmentMismatch
    from flowkiln.envs.proof import verify as prove

    tree = environments.installed(one, text, speaker)
    state, told = "not installed", None
    if tree is not None:
        try:
            prove(tree.root, tree.env_id, tree.tree_digest, "full" if full else "stat")
        except EnvironmentMismatch as error:
            state, told = "changed", error.message
        else:
            state = "ok"
    if repair and state != "ok":
        tree, state, told = environments.repaired(one, text, speaker), "repaired", None
    path = str(tree.root) if tree is not None else None
    return Finding(name=one.name, steps=one.steps, state=state, path=path, text=told)
