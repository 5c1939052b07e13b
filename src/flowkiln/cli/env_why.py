"""``flowkiln env why``: what leads to a package."""

from __future__ import annotations

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb


@verb("why", example="flowkiln env why numpy flow.py:fit")
@click.argument("package")
@click.argument("envs", nargs=-1, required=True)
@click.option("--platform", metavar="OS/ARCH", help="Platform to look at. Default: this machine's, else the first.")
@click.pass_context
def why(context: click.Context, *, package: str, envs: tuple[str, ...], platform: str | None) -> int:
    """Show which requirements of ENVS lead to PACKAGE, each by its shortest chain."""
    from flowkiln.cli import environments
    from flowkiln.envs import lockdiff
    from flowkiln.envs.spec import normal_name

    speaker = session(context)
    answers, lines = [], []
    for text in envs:
        for one in environments.named(text, speaker):
            part = environments.part(environments.locked(one, text), platform)
            versions = lockdiff.versions(part)
            chains = lockdiff.why(part, package, one.roots)
            if normal_name(package) not in versions:
                continue
            answers.append(
                {"name": one.name, "platform": str(part.platform), "chains": [list(one) for one in chains]}
            )
            lines.append(
                f"{one.name} ({part.platform}) has {normal_name(package)} {versions[normal_name(package)]}"
            )
            lines += ["  " + " -> ".join(f"{name} {versions[name]}" for name in chain) for chain in chains]
    if not answers:
        message = f"{package} is in none of {', '.join(envs)}"
        raise BadUsage(message, hint=f"`flowkiln env show {envs[0]}` lists what is.")
    speaker.result({"package": normal_name(package), "environments": answers}, lines)
    return ExitCode.OK
