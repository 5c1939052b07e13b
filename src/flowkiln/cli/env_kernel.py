"""``flowkiln env kernel``: an environment as a kernel of Jupyter."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import click

from flowkiln._base import files
from flowkiln._base.errors import ExitCode
from flowkiln.cli import targets
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb

_KERNEL = "ipykernel"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@verb("kernel", example="flowkiln env kernel flow.py:fit\nflowkiln env kernel flow.py:fit --name training")
@click.argument("env")
@click.option("--name", help="What Jupyter calls it. Default: the environment's name.")
@click.pass_context
def kernel(context: click.Context, *, env: str, name: str | None) -> int:
    """Make ENV a kernel for notebooks, of the user who runs this.

    The environment needs ipykernel. Starting the kernel installs the environment where it is missing, activates it
    and runs in the notebook's folder; after ENV is locked anew it is the new one.
    """
    from flowkiln.cli import environments

    speaker = session(context)
    one = environments.single(env, speaker)
    part = environments.part(environments.locked(one, env), None)
    provided = {name for package in part.conda for name, _ in package.provides}
    if _KERNEL not in {package.name for package in part.packages} | provided:
        message = f"{one.name} has no {_KERNEL}, which a kernel needs"
        raise BadUsage(message, hint=f"Add {_KERNEL} where it is declared, and run `flowkiln env lock {env}`.")
    label = name or one.name
    folder = _home() / "kernels" / f"flowkiln-{_UNSAFE.sub('-', label).strip('-').lower() or 'env'}"
    files.write_atomic(folder / "kernel.json", json.dumps(_specification(env, label), indent=1).encode() + b"\n")
    speaker.result({"kernel": str(folder), "name": label}, [f"{label}: {folder}"])
    return ExitCode.OK


def _specification(env: str, label: str) -> dict[str, object]:
    """A kernel's description, as Jupyter reads it: the command, what people see, the language."""
    own = [sys.executable, "-m", "flowkiln", "--quiet"]
    inside = ["python", "-m", f"{_KERNEL}_launcher", "-f", "{connection_file}"]
    return {
        "argv": [*own, "env", "exec", _absolute(env), "--", *inside],
        "display_name": f"flowkiln: {label}",
        "language": "python",
        "metadata": {"debugger": True},
    }


def _absolute(env: str) -> str:
    """``env`` as it is named from any folder. Raises ``BadUsage`` for what has no path."""
    target = targets.parse(env)
    if isinstance(target, targets.FlowTarget | targets.FolderTarget | targets.SourceTarget):
        front, colon, part = env.rpartition(":")
        path = Path(front if colon and not Path(env).exists() else env)
        return str(path.absolute()) + (f":{part}" if str(path) == front and colon else "")
    message = f"{env} is named without a file, and a kernel is started in other folders"
    raise BadUsage(message, hint="Name the flow, its lock folder, or the file that declares it, as FLOW.py:STEP.")


def _home() -> Path:
    """Where Jupyter looks for what a user has of their own."""
    told = os.environ.get("JUPYTER_DATA_DIR")
    if told:
        return Path(told)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Jupyter"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "jupyter"
