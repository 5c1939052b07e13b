"""``flowkiln doctor``: whether this machine has what flowkiln needs, and where each thing comes from."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

import flowkiln
from flowkiln._base import paths, platforms
from flowkiln._base.errors import ExitCode, FlowkilnError
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln._base.settings import Settings
    from flowkiln.envs.indexes import Index, IndexPlan

LOW_SPACE = 2_000_000_000
"""Bytes free below which the cache's disk is called short of space."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``origin`` says where it, or the setting that chose it, comes from."""

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    origin: str = ""


@verb("doctor", example="flowkiln doctor\nflowkiln doctor --offline --json")
@click.pass_context
def doctor(context: click.Context) -> int:
    """Look at all that flowkiln needs on this machine: Python, uv, settings, folders, indexes."""
    speaker = session(context)
    settings = speaker.settings(Path.cwd())
    findings = [_tried(name, check, settings) for name, check in CHECKS.items()]
    words = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
    lines = []
    for finding in findings:
        origin = f"   ({finding.origin})" if finding.origin else ""
        first, *rest = finding.text.splitlines() or [""]
        lines.append(f"{words[finding.state]:8} {finding.name:13} {first}{origin}")
        lines += [f"{'':23}{line}" for line in rest[:12]]
    speaker.result({"findings": [asdict(finding) for finding in findings]}, lines)
    return ExitCode.BAD_INPUT if any(finding.state == "problem" for finding in findings) else ExitCode.OK


def _tried(name: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except FlowkilnError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        return Finding(name, "problem", f"[{error.code}] {error.message}{hint}")
    except OSError as error:
        return Finding(name, "problem", str(error))


def _python(settings: Settings) -> Finding:  # noqa: ARG001  every check is called alike
    version = platform.python_version()
    known = (3, 11) <= sys.version_info[:2] <= (3, 15)
    text = f"{version}, flowkiln {flowkiln.__version__}"
    if not known:
        return Finding("python", "problem", f"{text}; 3.11 to 3.15 are supported", sys.executable)
    return Finding("python", "ok", text, sys.executable)


def _machine(settings: Settings) -> Finding:  # noqa: ARG001
    libc = platforms.host_glibc()
    shown = f", glibc {libc[0]}.{libc[1]}" if libc else ""
    return Finding("machine", "ok", f"{platforms.host()}{shown}, {os.cpu_count()} cores")


def _uv(settings: Settings) -> Finding:  # noqa: ARG001
    from flowkiln.envs import uv

    found = uv.find(os.environ)
    return Finding("uv", "ok", str(found), "FLOWKILN_UV" if os.environ.get("FLOWKILN_UV") else "")


def _interpreters(settings: Settings) -> Finding:
    from flowkiln.wiring.trees import Host

    found = [(one, one.refusal()) for one in Host(settings).interpreters.all()]
    told = f"downloads: {settings.text('python.downloads')}"
    if not any(why is None for _, why in found):
        never = settings.text("python.downloads") == "never"
        return Finding("interpreters", "problem" if never else "ok", f"none here; {told}")
    lines = [f"{one.version}  {one.path}" for one, why in found if why is None]
    others = [f"{one.version} ({why})" for one, why in found if why is not None]
    lines += [f"not used: {', '.join(others)}"] if others else []
    return Finding("interpreters", "ok", "\n".join([told, *lines]))


def _settings(settings: Settings) -> Finding:
    told = [f"{setting.key} ({value.origin})" for setting, value in settings if value.origin != "default"]
    return Finding("settings", "ok", ", ".join(told) or "all at their defaults")


def _cache(settings: Settings) -> Finding:
    folder = paths.cache_root()
    standing = _standing(folder)
    if not os.access(standing, os.W_OK):
        return Finding("cache", "problem", f"{folder} cannot be written", settings.origin("cache"))
    free = shutil.disk_usage(standing).free
    text = f"{folder}, {size(free)} free"
    return Finding("cache", "warning" if free < LOW_SPACE else "ok", text, settings.origin("cache"))


def _store(settings: Settings) -> Finding:
    folder = settings.store
    origin = settings.origin("store")
    if not os.access(_standing(folder), os.W_OK):
        return Finding("store", "problem", f"{folder} cannot be written", origin)
    return Finding("store", "ok", f"{folder}" + ("" if folder.exists() else " (made by the first run)"), origin)


def _standing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _indexes(settings: Settings) -> Finding:
    from flowkiln.envs import indexes

    plan = indexes.plan(settings=settings.items("indexes") or ())
    origin = ", ".join(sorted({index.origin for index in plan.indexes}))
    if settings.flag("offline"):
        return Finding("indexes", "ok", f"{plan.shown}; not asked, offline", origin)
    problems = [text for index in plan.indexes if (text := _reached(index, plan)) is not None]
    if problems:
        return Finding("indexes", "problem", "\n".join(problems), origin)
    ignored = f"\nset, and without effect here: {', '.join(plan.ignored)}" if plan.ignored else ""
    return Finding("indexes", "warning" if ignored else "ok", f"{plan.shown} answers{ignored}", origin)


def _reached(index: Index, plan: IndexPlan) -> str | None:
    """Why ``index`` cannot be used, None when it answers."""
    from flowkiln.envs.transport import Network, Transport

    transport = Transport(Network(stall=10.0, credentials=plan.credentials), connections=1)
    try:
        answer = transport.get(f"{index.shown}/pip/", {"Accept": "application/vnd.pypi.simple.v1+json, text/html"})
        status = answer.status
        answer.drain_conn()
    except FlowkilnError as error:
        return f"{index.shown}: {error.message}"
    finally:
        transport.close()
    # An index of one's own need not have pip; only a refusal says something.
    return f"{index.shown} answers {status}" if status in (401, 403, 407) or status >= 500 else None


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "python": _python,
    "machine": _machine,
    "uv": _uv,
    "interpreters": _interpreters,
    "settings": _settings,
    "cache": _cache,
    "store": _store,
    "indexes": _indexes,
}
