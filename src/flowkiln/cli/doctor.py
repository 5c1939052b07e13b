"""``flowkiln doctor``: whether this machine has what flowkiln needs, and where each thing comes from."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin, urlsplit

import click

import flowkiln
from flowkiln._base import paths, platforms, redact
from flowkiln._base.errors import ExitCode, FlowkilnError, SettingError
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flowkiln._base.settings import Settings
    from flowkiln.envs.indexes import Index, IndexPlan

LOW_SPACE = 2_000_000_000
"""Bytes free below which the cache's disk is called short of space."""


PYTHONS = "https://github.com/astral-sh/python-build-standalone/releases/download"
"""Where uv downloads interpreters from unless it is told otherwise."""
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html"
_PAGE = 4_000_000
"""Bytes of an index page that are read for the hosts it names."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``origin`` says where it, or the setting that chose it, comes from.

    ``hosts`` are those that flowkiln may contact for it; ``exit_code`` is what a problem with it means.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    origin: str = ""
    hosts: tuple[str, ...] = ()
    exit_code: ExitCode = ExitCode.BAD_INPUT


@verb("doctor", example="flowkiln doctor\nflowkiln doctor --with docker\nflowkiln doctor --offline --json")
@click.option(
    "--with",
    "backend",
    type=click.Choice(["docker"]),
    help="Try what this backend needs, too: the engine, the base images, the repository of images.",
)
@click.pass_context
def doctor(context: click.Context, *, backend: str | None) -> int:
    """Look at all that flowkiln needs on this machine, and name every host that it may contact."""
    speaker = session(context)
    settings = speaker.settings(Path.cwd())
    checks = dict(CHECKS)
    if backend is not None:
        from flowkiln.cli import dockerdoctor

        checks |= dockerdoctor.CHECKS
    findings = [_tried(name, check, settings) for name, check in checks.items()]
    words = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
    lines = []
    for finding in findings:
        origin = f"   ({finding.origin})" if finding.origin else ""
        first, *rest = finding.text.splitlines() or [""]
        lines.append(f"{words[finding.state]:8} {finding.name:13} {first}{origin}")
        lines += [f"{'':23}{line}" for line in rest[:12]]
        lines += [f"{'':23}contacts: {', '.join(finding.hosts)}"] if finding.hosts else []
    speaker.result({"findings": [asdict(finding) for finding in findings]}, lines)
    # What this machine lacks comes first: it can be mended here.
    return min((finding.exit_code for finding in findings if finding.state == "problem"), default=ExitCode.OK)


def _tried(name: str, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except FlowkilnError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        return Finding(name, "problem", f"[{error.code}] {error.message}{hint}", exit_code=error.exit_code)
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
    from flowkiln.envs import driver

    libc = platforms.host_glibc()
    shown = f", glibc {libc[0]}.{libc[1]}" if libc else ""
    found = driver.found()
    shown += f", NVIDIA driver {found}" if found else ""
    return Finding("machine", "ok", f"{platforms.host()}{shown}, {os.cpu_count()} cores")


def _uv(settings: Settings) -> Finding:  # noqa: ARG001
    from flowkiln.envs import uv

    found = uv.find(os.environ)
    return Finding("uv", "ok", str(found), "FLOWKILN_UV" if os.environ.get("FLOWKILN_UV") else "")


def _conda_solver(settings: Settings) -> Finding:
    from flowkiln.envs import condadriven
    from flowkiln.wiring.locks import driven_of

    driven, origin = driven_of(settings), settings.origin("conda.solver")
    if driven is None:
        known = importlib.util.find_spec("rattler") is not None
        text = "rattler" if known else "rattler, which is not installed: needed where conda packages are locked"
        return Finding("conda solver", "ok", text, origin)
    program, conda_lock = condadriven.find(driven, os.environ), condadriven.find_conda_lock(os.environ)
    version = condadriven.check_version(conda_lock)
    return Finding("conda solver", "ok", f"{program}\ndriven by conda-lock {version}, {conda_lock}", origin)


def _interpreters(settings: Settings) -> Finding:
    from flowkiln.wiring.trees import Host

    found = [(one, one.refusal()) for one in Host(settings).interpreters.all()]
    source, origin = _interpreter_source(settings)
    never = settings.text("python.downloads") == "never" or settings.flag("offline")
    told = "downloads: never" if never else f"downloads: {settings.text('python.downloads')}, from {source}"
    hosts = () if never else _hosts_of([source])
    if not any(why is None for _, why in found):
        refused = ", ".join(f"{one.version} ({why})" for one, why in found)
        text = f"none that environments can use; {told}" + (f"\nnot used: {refused}" if refused else "")
        return Finding("interpreters", "problem" if never else "ok", text, origin, hosts)
    lines = [f"{one.version}  {one.path}" for one, why in found if why is None]
    others = [f"{one.version} ({why})" for one, why in found if why is not None]
    lines += [f"not used: {', '.join(others)}"] if others else []
    return Finding("interpreters", "ok", "\n".join([told, *lines]), origin, hosts)


def _interpreter_source(settings: Settings) -> tuple[str, str]:
    """Where a missing interpreter is downloaded from, and who says so."""
    if mirror := settings.text("python.mirror"):
        return redact.text(mirror), settings.origin("python.mirror")
    if mirror := os.environ.get("UV_PYTHON_INSTALL_MIRROR"):
        return redact.text(mirror), "UV_PYTHON_INSTALL_MIRROR"
    return PYTHONS, "default; python.mirror"


def _hosts_of(urls: Iterable[str]) -> tuple[str, ...]:
    found = (urlsplit(url) for url in urls)
    hosts = (parts.hostname + (f":{parts.port}" if parts.port else "") for parts in found if parts.hostname)
    return tuple(dict.fromkeys(hosts))


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
    origin = settings.origin("store")
    try:
        folder = settings.store
    except SettingError as error:
        return Finding("store", "problem", error.message, origin)
    if not os.access(_standing(folder), os.W_OK):
        return Finding("store", "problem", f"{folder} cannot be written", origin)
    return Finding("store", "ok", f"{folder}" + ("" if folder.exists() else " (made by the first run)"), origin)


def _standing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _indexes(settings: Settings) -> Finding:
    from flowkiln.envs import indexes

    plan = indexes.plan_of(settings)
    origin = ", ".join(sorted({index.origin for index in plan.indexes}))
    hosts = _hosts_of(index.shown for index in plan.indexes)
    if settings.flag("offline"):
        return Finding("indexes", "ok", f"{plan.shown}; not asked, offline", origin, hosts)
    answers = [asked(index, plan) for index in plan.indexes]
    hosts = tuple(dict.fromkeys([*hosts, *(host for _, found in answers for host in found)]))
    problems = [text for text, _ in answers if text is not None]
    if problems:
        return Finding("indexes", "problem", "\n".join(problems), origin, hosts, ExitCode.SERVICE)
    told = [f"\nset, and locking refuses: {one}" for one in plan.refused]
    told += [f"\nset, and without effect here: {', '.join(plan.ignored)}"] if plan.ignored else []
    return Finding("indexes", "warning" if told else "ok", f"{plan.shown} answers{''.join(told)}", origin, hosts)


def asked(index: Index, plan: IndexPlan) -> tuple[str | None, tuple[str, ...]]:
    """Why ``index`` cannot be used, None when it answers, and the hosts that its files lie on."""
    from flowkiln.envs.transport import Network, Transport

    transport = Transport(Network(stall=10.0, credentials=plan.credentials, renew=plan.renew), connections=1)
    url = f"{index.shown}/pip/"
    try:
        status, page = transport.page(url, {"Accept": _ACCEPT}, _PAGE)
    except FlowkilnError as error:
        return f"{index.shown}: {error.message}", ()
    finally:
        transport.close()
    # An index of one's own need not have pip; only a refusal says something.
    if status in (401, 403, 407) or status >= 500:
        return f"{index.shown} answers {status}", ()
    files = re.findall(r'(?:"url":\s*|href=)"([^"#]+)', page) if status == HTTPStatus.OK else []
    return None, _hosts_of(urljoin(url, one) for one in files)


CHECKS: dict[str, Callable[[Settings], Finding]] = {
    "python": _python,
    "machine": _machine,
    "uv": _uv,
    "conda solver": _conda_solver,
    "interpreters": _interpreters,
    "settings": _settings,
    "cache": _cache,
    "store": _store,
    "indexes": _indexes,
}
