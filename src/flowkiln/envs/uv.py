"""The only place that runs uv: found, checked, in an environment made from scratch, watched while it works."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import command, files, paths, redact
from flowkiln._base.errors import NoSpace, ReadOnly, ToolMissing
from flowkiln._base.report import Silent
from flowkiln.envs import authorities, handing, provided, uverrors, uvpins
from flowkiln.envs.errors import IndexDenied, UvUnusable
from flowkiln.envs.uvtrace import LEVELS, Trace
from flowkiln.envs.wheels import MACOS_FLOOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowkiln._base.report import Reporter
    from flowkiln.envs.condaquestion import CondaSolver
    from flowkiln.envs.handing import HandedWheel
    from flowkiln.envs.indexes import IndexPlan
    from flowkiln.envs.linkside import Linker
    from flowkiln.envs.lock import LockedConda
    from flowkiln.envs.sourcebuilds import Sources
    from flowkiln.envs.spec import EnvSpec
    from flowkiln.envs.wheels import Target

OLDEST = (0, 9)
_FINDING = threading.Lock()  # find_uv_bin reads sysconfig, whose first use is not safe in several threads
_INSTALL = "Install it with `pip install 'uv>=0.9'`, or name another one with FLOWKILN_UV."

_PASSED_ON = (
    *("HOME", "NETRC", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    *("SSL_CLIENT_CERT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "UV_HTTP_RETRIES", "UV_HTTP_TIMEOUT"),
)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How uv is run: indexes, limits, where its words go. One per locking command; used by several threads.

    ``patches`` maps ``X.Y`` to the ``X.Y.Z`` that markers are resolved for where that is not the newest known.
    ``conda`` is how conda packages are chosen before: there for requests that have some. ``builder`` builds
    what has no wheel, ``linker`` runs link scripts; None where nothing may be built.
    """

    plan: IndexPlan
    limits: command.Limits = field(default_factory=command.Limits)
    offline: bool = False
    patches: Mapping[str, str] = field(default_factory=dict)
    reporter: Reporter = field(default_factory=Silent)
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    logs: Path = field(default_factory=lambda: paths.cache_root() / "logs")
    conda: CondaSolver | None = None
    builder: Sources | None = None
    linker: Linker | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One resolution: an environment on one target with a full Python version.

    ``preferred`` is the text of a pylock file whose versions are kept where they satisfy the request;
    ``upgrade`` names the packages that are free of it (True: all). ``pins`` are further constraints, ``roots``
    packages besides those of the request. ``conda`` are the packages that are there already: what they provide is
    taken as it is. ``handed`` are wheels that come from no index, those of direct references in place of any other.
    """

    name: str
    spec: EnvSpec
    target: Target
    full_python: str
    preferred: str | None = None
    upgrade: bool | frozenset[str] = False
    pins: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    quiet: bool = False
    steps: tuple[str, ...] = ()
    conda: tuple[LockedConda, ...] = ()
    handed: tuple[HandedWheel, ...] = ()

    @property
    def label(self) -> str:
        """What is being locked, for people."""
        return f"{self.name} for {self.target.platform}"

    @property
    def provided(self) -> tuple[tuple[str, str], ...]:
        """Name and version of each distribution that comes from conda."""
        return provided.of(self.conda)


@dataclass(frozen=True, slots=True)
class Answer:
    """uv's pylock text with what the resolver told on the way."""

    pylock: str
    trace: Trace


def ask(solver: Solver, question: Question) -> Answer:
    """Resolves ``question``. Raises the ``EnvError`` that says what is wrong, naming the environment.

    An index that refuses the login is asked once more with another one, where a command or the keyring has one.
    """
    used = {} if solver.offline else {one.url: solver.plan.credentials(one.url) for one in solver.plan.everywhere}
    try:
        return _ask(solver, question)
    except IndexDenied as error:
        if solver.offline or not solver.plan.renew_used(str(error.data["url"]), used):
            raise
    return _ask(solver, question)


def _ask(solver: Solver, question: Question) -> Answer:
    uv = find(solver.environ)
    trace = Trace()
    with files.scratch_folder(paths.cache_root() / "scratch") as folder:
        arguments: list[str | Path] = [uv, *_arguments(question, folder, solver)]
        watch = _Watch(solver.reporter, question, trace)
        finished = command.run(
            arguments,
            environment=environment(solver),
            folder=folder,
            limits=solver.limits,
            on_line=trace.feed,
            tick=watch.tick,
        )
        answer = folder / "pylock.toml"
        if finished.code == 0 and finished.ended == "exit" and answer.exists():
            return Answer(answer.read_text(encoding="utf-8"), trace)
    log = None if question.quiet else _write_log(solver.logs, question, arguments, finished.stderr)
    raise uverrors.translate(finished, trace, question, solver, log)


def _plan(solver: Solver, question: Question) -> IndexPlan:
    """The indexes with the pins of what comes from no index: of what conda provides there are none."""
    there = {name for name, _ in question.provided}
    return replace(solver.plan, pins=tuple(pin for pin in solver.plan.pins if pin[0] not in there))


def _arguments(question: Question, folder: Path, solver: Solver) -> list[str | Path]:
    spec = question.spec
    lines = handing.requirements(spec.requirements, question.handed, folder)
    if _plan(solver, question).pins:
        wanted = folder / "pyproject.toml"
        wanted.write_text(uvpins.text(lines, question.roots, _plan(solver, question)), encoding="utf-8")
    else:
        wanted = folder / "requirements.in"
        wanted.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    output = folder / "pylock.toml"
    if question.preferred:
        output.write_text(question.preferred, encoding="utf-8")
    arguments: list[str | Path] = ["pip", "compile", wanted.name]
    fixed = provided.constraints(question.provided)
    limits = "".join(f"{line}\n" for line in (*spec.constraints, *question.pins, *fixed))
    if limits:
        (folder / "constraints.in").write_text(limits, encoding="utf-8")
        arguments += ["--constraints", "constraints.in"]
    arguments += ["--output-file", output.name, "--format", "pylock.toml", "--no-header"]
    arguments += ["--python", sys.executable, "--python-version", question.full_python]
    arguments += ["--python-platform", question.target.uv_platform, "--only-binary", ":all:"]
    if fixed:
        arguments += ["--find-links", provided.write(folder, question.provided)]
    for links in handing.links(question.handed, folder):
        arguments += ["--find-links", links]
    if spec.exclude_newer:
        arguments += ["--exclude-newer", spec.exclude_newer]
    if solver.offline:
        arguments.append("--offline")
    if question.upgrade is True:
        arguments.append("--upgrade")
    elif question.upgrade:
        for name in sorted(question.upgrade):
            arguments += ["--upgrade-package", name]
    return arguments


def environment(solver: Solver) -> dict[str, str]:
    """uv's whole environment: indexes, certificates, proxies and home; no other setting of uv or pip gets in."""
    told = {name: solver.environ[name] for name in _PASSED_ON if solver.environ.get(name)}
    told |= {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "RUST_LOG": LEVELS,
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "1",
        "UV_NATIVE_TLS": "1",  # its name in older versions
        "UV_CACHE_DIR": str(cache_dir(solver.environ)),
        "MACOSX_DEPLOYMENT_TARGET": ".".join(map(str, MACOS_FLOOR)),
    }
    return told | authorities.variables(solver.environ) | solver.plan.variables(offline=solver.offline)


def cache_dir(environ: Mapping[str, str]) -> Path:
    """The user's own uv cache when it can be written, else one inside flowkiln's cache."""
    told = environ.get("UV_CACHE_DIR")
    base = environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None)
    own = paths.cache_root() / "uv"
    wanted = Path(told).expanduser().absolute() if told else Path(base) / "uv" if base else own
    existing = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    return wanted if os.access(existing, os.W_OK) else own


def find(environ: Mapping[str, str]) -> Path:
    """The uv program: ``FLOWKILN_UV``, else the one installed with flowkiln, else the one on PATH.

    Raises ``UvUnusable`` when there is none or it is too old.
    """
    told = environ.get("FLOWKILN_UV")
    found = Path(told).expanduser() if told else _installed() or _on_path(environ)
    if found is None:
        raise UvUnusable("uv was not found", hint=_INSTALL)
    version = _version(found)
    if version is None:
        raise UvUnusable(f"{found} is not a usable uv", hint=_INSTALL)
    if version[:2] < OLDEST:
        shown = ".".join(map(str, version))
        raise UvUnusable(f"uv {shown} at {found} is too old; 0.9 or newer is needed", hint=_INSTALL)
    return found


def _installed() -> Path | None:
    try:
        from uv import find_uv_bin  # noqa: PLC0415  only where uv runs
    except ImportError:
        return None
    try:
        with _FINDING:
            return Path(find_uv_bin())
    except FileNotFoundError:
        return None


def _on_path(environ: Mapping[str, str]) -> Path | None:
    found = shutil.which("uv", path=environ.get("PATH"))
    return Path(found) if found else None


@lru_cache(maxsize=8)
def _version(program: Path) -> tuple[int, ...] | None:
    try:
        finished = command.run(
            [program, "--version"], environment={"UV_NO_CONFIG": "1"}, limits=command.Limits(total=20, stall=20)
        )
    except ToolMissing:
        return None
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", finished.stdout)
    return tuple(map(int, match.groups())) if match else None


def _write_log(folder: Path, question: Question, arguments: Sequence[str | Path], stderr: str) -> Path | None:
    path = folder / f"lock-{question.name}-{question.target.platform.slug}.log"
    text = " ".join(map(str, arguments)) + "\n\n" + stderr
    try:
        files.write_atomic(path, redact.text(text).encode(), mode=0o600)
    except (OSError, NoSpace, ReadOnly):
        return None
    return path


@dataclass(slots=True)
class _Watch:
    """Tells every five seconds what uv is at."""

    reporter: Reporter
    question: Question
    trace: Trace
    told: float = 0.0

    def tick(self, seconds: float) -> None:
        if self.question.quiet or seconds - self.told < 4.0:
            return
        self.told = seconds
        item = f" {self.trace.item}" if self.trace.item else ""
        self.reporter.say(f"locking {self.question.label}: {self.trace.phase}{item}, {seconds:.0f} s")
