"""What activating a conda environment does to the variables of a process that runs in it.

conda's own contract: the files of ``etc/conda/env_vars.d`` are JSON objects of variables, and the scripts of
``etc/conda/activate.d`` that end in ``.sh`` are sourced, each in the order of names. Both run before user code, in
processes and in containers alike. Needs nothing but the standard library: it is part of what lies in an image.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from flowkiln._base.json import JSONObject

VARIABLES = "etc/conda/env_vars.d"
SCRIPTS = "etc/conda/activate.d"
_MARK = "conda-meta"
"""The folder that every conda environment has."""
_LIMIT = 60.0
"""Seconds that all scripts together may take."""
_SHOWN = 2000
_SOURCE = 'for flowkiln_script in "$@"; do . "$flowkiln_script" >&2; done; exec "$0" -0'
_OF_THE_SHELL = frozenset({"_", "PWD", "OLDPWD", "SHLVL"})


class ActivationError(Exception):
    """An environment cannot be activated; the text says what stands in the way."""


def is_conda(root: str) -> bool:
    """Whether the environment at ``root`` is one of conda packages."""
    return os.path.isdir(f"{root}/{_MARK}")


def activated(root: str, environ: Mapping[str, str], kept: Collection[str] = ()) -> dict[str, str]:
    """``environ`` as activating the environment at ``root`` leaves it; what is ``kept`` stays as it is.

    An environment without conda packages changes nothing. Raises ``ActivationError``.
    """
    if not is_conda(root):
        return dict(environ)
    found = {**environ, "CONDA_PREFIX": root, "CONDA_DEFAULT_ENV": root, "CONDA_SHLVL": "1"}
    found.pop("VIRTUAL_ENV", None)
    for path in _listed(f"{root}/{VARIABLES}", ".json"):
        found.update(_variables(path))
    scripts = _listed(f"{root}/{SCRIPTS}", ".sh")
    if scripts:
        found = _sourced(scripts, found)
    return found | {name: environ[name] for name in kept if name in environ}


def told(root: str, before: Mapping[str, str], after: Mapping[str, str]) -> JSONObject | None:
    """What activation changed, for the record: the names, and a digest of the values that is equal everywhere.

    None where it changed nothing. Values are not recorded, as a script may copy a secret; in the digest the prefix
    counts as ``$CONDA_PREFIX``, and the search path, which each machine has its own of, does not.
    """
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if not names:
        return None
    values = {
        name: after[name].replace(root, "$CONDA_PREFIX") if name in after else None
        for name in names
        if name != "PATH"
    }
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return {"variables": names, "digest": "sha256:" + hashlib.sha256(text.encode()).hexdigest()}


def _listed(folder: str, suffix: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(suffix)]
    except FileNotFoundError:
        return []


def _variables(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as stream:
            found = json.load(stream)
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        message = f"{path} holds no variables: {error}"
        raise ActivationError(message) from error


def _sourced(scripts: list[str], environ: dict[str, str]) -> dict[str, str]:
    """``environ`` as the scripts leave it. They are sourced one after another, as activating in a shell does."""
    import subprocess  # noqa: PLC0415  few environments have scripts

    shell, env = _program("bash") or _program("sh"), _program("env")
    if shell is None or env is None:
        message = f"there is no shell here, and the environment has activation scripts: {', '.join(scripts)}"
        raise ActivationError(message)
    try:
        done = subprocess.run(
            [shell, "-c", _SOURCE, env, *scripts],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"activation scripts took longer than {_LIMIT:.0f} s: {', '.join(scripts)}"
        raise ActivationError(message) from error
    if not done.stdout:
        said = done.stderr.decode(errors="replace").strip()[-_SHOWN:]
        message = f"an activation script ended the shell (exit code {done.returncode}): {', '.join(scripts)}"
        raise ActivationError(f"{message}\n{said}".rstrip())
    rows = (os.fsdecode(row).partition("=") for row in done.stdout.split(b"\0") if row)
    found = {name: value for name, _, value in rows}
    kept = {name: environ[name] for name in _OF_THE_SHELL if name in environ}
    return {name: value for name, value in found.items() if name not in _OF_THE_SHELL} | kept


def _program(name: str) -> str | None:
    """The system's own program of that name: what an environment or a user puts on PATH is not asked."""
    return shutil.which(name, path="/bin:/usr/bin")
