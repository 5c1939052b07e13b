"""``flowkiln env verify``: whether installed environments are what was locked."""

from __future__ import annotations

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import session, verb


@verb("verify", example="flowkiln env verify flow.py\nflowkiln env verify --full flow.py:fit")
@click.argument("envs", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Hash every byte instead of comparing what `stat` says.")
@click.option("--repair", is_flag=True, help="Make an environment that fails anew.")
@click.pass_context
def verify(context: click.Context, *, envs: tuple[str, ...], full: bool, repair: bool) -> int:
    """Verify the installed environments of ENVS. Exit code 17 when one is not what was locked."""
    from flowkiln.cli import environments
    from flowkiln.envs.installerrors import EnvironmentMismatch
    from flowkiln.envs.proof import verify as prove

    speaker = session(context)
    findings = []
    for text in envs:
        for one in environments.named(text, speaker):
            tree = environments.installed(one, text, speaker)
            if tree is None:
                findings.append({"name": one.name, "status": "not installed", "path": None})
                continue
            try:
                prove(tree.root, tree.env_id, tree.tree_digest, "full" if full else "stat")
            except EnvironmentMismatch:
                if not repair:
                    raise
                tree = environments.repaired(one, text, speaker)
                findings.append({"name": one.name, "status": "repaired", "path": str(tree.root)})
                continue
            findings.append({"name": one.name, "status": "ok", "path": str(tree.root)})
    lines = [
        f"{found['name']}: {found['status']}" + (f"   {found['path']}" if found["path"] else "")
        for found in findings
    ]
    speaker.result({"environments": findings, "level": "full" if full else "stat"}, lines)
    return ExitCode.OK
