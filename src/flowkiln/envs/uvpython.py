"""uv as a finder and installer of interpreters: the other half of ``envs.uv``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flowkiln._base import command
from flowkiln.envs import authorities, uv
from flowkiln.envs.installerrors import InterpreterNotInstalled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.report import Reporter

_PASSED_ON = (
    *("HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("UV_CACHE_DIR", "UV_HTTP_RETRIES", "UV_PYTHON_INSTALL_DIR", "UV_PYTHON_INSTALL_MIRROR"),
)
_LISTING = command.Limits(total=60.0, stall=60.0)
_INSTALLING = command.Limits(total=3600.0, stall=120.0)
_LINES = 8


def listed(environ: Mapping[str, str]) -> list[str]:
    """Paths of the released CPythons with the GIL that uv finds on this machine.

    Broken ones (shims that end with an error) are left out by uv. Raises UvUnusable.
    """
    arguments = ["python", "list", "--only-installed", "--all-versions", "--output-format", "json"]
    finished = command.run(
        [uv.find(environ), *arguments], environment=_environment(environ, "never"), limits=_LISTING
    )
    try:
        found = json.loads(finished.stdout) if finished.code == 0 else []
        return [one["path"] for one in found if one["path"]]
    except (ValueError, KeyError, TypeError):
        return []


def install(request: str, environ: Mapping[str, str], mirror: str | None, reporter: Reporter) -> None:
    """Downloads and installs the newest interpreter that ``request`` (``3.12``, ``>=3.12.1,<3.12.4``) allows.

    Raises InterpreterNotInstalled and UvUnusable.
    """
    environment = _environment(environ, "automatic")
    if mirror:
        environment["UV_PYTHON_INSTALL_MIRROR"] = mirror
    with reporter.phase(f"install Python {request}") as phase:
        finished = command.run(
            [uv.find(environ), "python", "install", "--no-bin", request],
            environment=environment,
            limits=_INSTALLING,
            tick=lambda _: phase.tick(),
        )
    if finished.code == 0 and finished.ended == "exit":
        return
    told = "\n".join(f"  {line}" for line in finished.stderr.strip().splitlines()[-_LINES:])
    message = f"uv could not install Python {request}:\n{told}"
    hint = "Install a Python of that version yourself, or name a mirror with `python.mirror`."
    raise InterpreterNotInstalled(message, hint=hint)


def _environment(environ: Mapping[str, str], downloads: str) -> dict[str, str]:
    told = {name: environ[name] for name in _PASSED_ON if environ.get(name)}
    fixed = {
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_SYSTEM_CERTS": "1",
    }
    return {**told, **fixed, **authorities.variables(environ), "UV_PYTHON_DOWNLOADS": downloads}
