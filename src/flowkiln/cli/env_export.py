"""``flowkiln env export``: a lock in the form that other tools read."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.envs.lockdiff import Form


@verb("export", example="flowkiln env export flow.py:fit > requirements.txt")
@click.argument("env")
@click.option(
    "--format",
    "form",
    type=click.Choice(["requirements", "pylock"]),
    default="requirements",
    show_default=True,
    help="Requirements with hashes, or PEP 751.",
)
@click.option("--platform", metavar="OS/ARCH", help="Platform to export. Default: this machine's, else the first.")
@click.pass_context
def export(context: click.Context, *, env: str, form: str, platform: str | None) -> int:
    """Print the lock of ENV for pip, uv and others."""
    from flowkiln.cli import environments
    from flowkiln.envs import lockdiff

    speaker = session(context)
    one = environments.single(env, speaker)
    part = environments.part(environments.locked(one, env), platform)
    text = lockdiff.export(part, cast("Form", form))
    document = {"name": one.name, "platform": str(part.platform), "format": form, "text": text}
    speaker.result(document, text.splitlines())
    return ExitCode.OK
