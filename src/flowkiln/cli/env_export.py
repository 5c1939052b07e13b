"""``flowkiln env export``: a lock in the form that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.envs.exporting import Form

FORMS = ("pylock", "conda-lock", "explicit", "requirements", "environment")


@verb("export", example="flowkiln env export flow.py:fit > requirements.txt")
@click.argument("env")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="PEP 751, conda-lock.yml, URLs for conda, requirements with hashes, or environment.yml. "
    "Default: conda-lock with conda packages, else requirements.",
)
@click.option(
    "--platform",
    metavar="OS/ARCH",
    help="Platform to export. Default: this machine's, else the first; as conda-lock.yml, all.",
)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, not stdout.",
)
@click.pass_context
def export(context: click.Context, *, env: str, form: str | None, platform: str | None, output: Path | None) -> int:
    """Print the lock of ENV for pip, uv, conda and others."""
    from dataclasses import replace

    from flowkiln._base import files
    from flowkiln.cli import environments
    from flowkiln.cli.errors import BadUsage
    from flowkiln.envs import exporting

    speaker = session(context)
    one = environments.single(env, speaker)
    lock = environments.locked(one, env)
    part = environments.part(lock, platform)
    chosen = cast("Form", form) if form is not None else exporting.usual(part)
    text = exporting.export(replace(lock, platforms=(part,)) if platform else lock, part, chosen)
    if missing := exporting.left_out(part, chosen):
        whole = all(wheel.published is not None for wheel in part.wheels)
        other = "; --format conda-lock has all" if whole else ""
        speaker.say(f"{missing} conda packages of {one.name} are not in it{other}")
    document = {"name": one.name, "platform": str(part.platform), "format": chosen, "text": text}
    if output is None or str(output) == "-":
        speaker.result(document, text.splitlines())
        return ExitCode.OK
    try:
        files.write_atomic(output, text.encode())
    except (FileExistsError, NotADirectoryError):
        raise BadUsage(f"{output} lies in a file", hint="Name a file in a folder.") from None
    speaker.result({**document, "file": str(output)}, [str(output)])
    return ExitCode.OK
