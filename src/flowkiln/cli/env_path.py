"""``flowkiln env path`` and ``link``: where an environment is, for editors and scripts."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flowkiln._base import paths
from flowkiln._base.errors import ExitCode
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb


@verb("path", example="flowkiln env path flow.py:fit")
@click.argument("env")
@click.pass_context
def path(context: click.Context, *, env: str) -> int:
    """Print the folder of ENV on this machine, installing it first when needed."""
    from flowkiln.cli import environments

    speaker = session(context)
    tree = environments.tree(env, speaker)
    document = {"path": str(tree.root), "python": tree.python, "env_id": tree.env_id}
    speaker.result(document, [str(tree.root)])
    return ExitCode.OK


@verb("link", example="flowkiln env link flow.py:fit .venv")
@click.argument("env")
@click.argument("link", type=click.Path(path_type=Path), default=".venv")
@click.pass_context
def link(context: click.Context, *, env: str, link: Path) -> int:
    """Make LINK (.venv unless told) a symbolic link to ENV, so that editors find it. The link keeps ENV."""
    from flowkiln.cli import environments
    from flowkiln.envs import roots

    speaker = session(context)
    tree = environments.tree(env, speaker)
    if link.exists() and not link.is_symlink():
        message = f"{link} exists and is not a link"
        raise BadUsage(message, hint="Move it away, or give another name.")
    scratch = link.with_name(f".{link.name}.{os.getpid()}")
    scratch.symlink_to(tree.root)
    scratch.replace(link)
    roots.record(paths.cache_root(), link)
    speaker.result({"link": str(link), "path": str(tree.root)}, [f"{link} -> {tree.root}"])
    return ExitCode.OK
