"""conda, mamba or micromamba as the solver, driven by the conda-lock command: the only place that runs it.

The solver is given files alone: channels in a folder with what it may choose from, and the platform's virtual
packages. It needs no network, no login and no settings, and gets none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flowkiln._base import command, files, paths
from flowkiln._base.errors import ToolMissing
from flowkiln.envs import condadrivenfailures, condalock, condapool
from flowkiln.envs.condaerrors import CondaConflict, CondaLockUnusable, SolverFailed, SolverMissing, WrongAnswer
from flowkiln.envs.subdirs import NOARCH, subdir_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowkiln.envs.condapool import Attempt, Candidate, Pool
    from flowkiln.envs.condaquestion import CondaQuestion, CondaSolver, Driven
    from flowkiln.envs.virtual import Virtual

OLDEST = (4, 0, 0)
"""The oldest conda-lock that is driven."""

_INSTALL = "Install it with `uv tool install 'conda-lock>=4,<5'` or pip, or name a file with FLOWKILN_CONDA_LOCK."


def choose(
    solver: CondaSolver,
    question: CondaQuestion,
    pool: Pool,
    wanted: Mapping[str, str],
    unmet: Callable[[Sequence[Candidate]], Sequence[str]],
) -> list[Candidate]:
    """The packages that the program of ``solver`` chooses from ``pool`` for the specs ``wanted``, by name.

    ``unmet`` tells what an answer lacks. Raises the ``EnvError`` that says what is wrong, naming environment and
    platform.
    """
    runner = _Runner(solver, question, wanted)
    failure: CondaConflict | WrongAnswer | None = None
    for attempt in condapool.attempts(pool, question, frozenset(wanted)):
        try:
            found = runner.run(attempt)
            _prove(solver, question, unmet(found))
        except CondaConflict as error:
            failure = error
        except WrongAnswer as error:
            if not attempt.update:
                raise
            failure = error  # moving packages goes by less than choosing them anew does
        else:
            return found
    assert failure is not None
    raise failure


def ready(solver: CondaSolver) -> None:
    """Guarantees that the programs are there. Raises ``SolverMissing`` and ``CondaLockUnusable``."""
    if solver.driven is not None:
        find(solver.driven, solver.environ)
        find_conda_lock(solver.environ)


def _prove(solver: CondaSolver, question: CondaQuestion, unmet: Sequence[str]) -> None:
    """Guarantees that an answer lacks nothing. Raises ``WrongAnswer`` with what is ``unmet``."""
    if unmet and solver.driven is not None:
        message = f"environment {question.label}: what {solver.driven.solver} chose does not answer the request"
        raise WrongAnswer("\n".join((message, *unmet[:16])), hint=_OTHER, step=next(iter(question.steps), None))


class _Runner:
    """The programs, found and checked once, and the time that is left for all attempts together."""

    def __init__(self, solver: CondaSolver, question: CondaQuestion, wanted: Mapping[str, str]) -> None:
        assert solver.driven is not None
        self.solver = solver
        self.question = question
        self.wanted = wanted
        self.driven = solver.driven
        self.program = find(solver.driven, solver.environ)
        self.conda_lock = find_conda_lock(solver.environ)
        self.subdir = subdir_of(question.platform)
        self.ends = time.monotonic() + solver.limits.total

    def run(self, attempt: Attempt) -> list[Candidate]:
        """The answer to one attempt. Raises ``CondaConflict`` where there is none, ``EnvError`` for all else."""
        with files.scratch_folder(paths.cache_root() / "scratch") as folder:
            arguments = self._arguments(folder, attempt)
            finished = self._finished(arguments, folder)
            answer = folder / "conda-lock.yml"
            if finished.code != 0 or finished.ended != "exit" or not answer.exists():
                error = condadrivenfailures.translate(finished, arguments, self.solver, self.question)
                if isinstance(error, SolverFailed):
                    check_version(self.conda_lock)
                raise error
            return self._read(answer, attempt)

    def _finished(self, arguments: Sequence[str | Path], folder: Path) -> command.Finished:
        left = max(self.ends - time.monotonic(), 0.1)
        try:
            return command.run(
                arguments,
                environment=self._environment(folder),
                folder=folder,
                limits=command.Limits(total=left, stall=left),  # a solver says nothing while it works
                tick=self._tick,
            )
        except ToolMissing:
            check_version(self.conda_lock)
            raise

    def _tick(self, seconds: float) -> None:
        if round(seconds) % 5 == 0:
            self.solver.reporter.say(f"locking {self.question.label}: {self.driven.solver}, {seconds:.0f} s")

    def _arguments(self, folder: Path, attempt: Attempt) -> list[str | Path]:
        """The command; what it reads is written to ``folder``."""
        channels = _write_channels(folder / "channels", attempt, self.subdir, len(self.solver.plan.channels))
        (folder / "tmp").mkdir()
        asked = dict.fromkeys(attempt.update, "") | dict(self.wanted)
        specs = [f"{name} {rest}".strip() for name, rest in asked.items()]
        _write(folder / "environment.yml", {"dependencies": specs})
        virtual = {one.name: _version_of(one) for one in self.question.virtual}
        _write(folder / "virtual-packages.yml", {"subdirs": {self.subdir: {"packages": virtual}}})
        _write(folder / "names.json", {})
        if attempt.update:
            _write(folder / "conda-lock.yml", _installed(attempt, self.subdir, channels))
        program = _named(self.program, self.driven, folder)
        arguments: list[str | Path] = [self.conda_lock, "lock", "--conda", program]
        arguments += ["--file", "environment.yml", "--lockfile", "conda-lock.yml", "--kind", "lock"]
        arguments += ["--platform", self.subdir, "--virtual-package-spec", "virtual-packages.yml"]
        arguments += ["--pypi_to_conda_lookup_file", "names.json"]  # else it fetches a table that nobody needs here
        arguments += [word for url in channels for word in ("--channel", url)]
        return arguments + [word for name in attempt.update for word in ("--update", name)]

    def _environment(self, folder: Path) -> dict[str, str]:
        """The whole environment: no settings of conda's or of this machine's, and no way out of ``folder``."""
        told = {
            "PATH": os.pathsep.join((str(self.program.parent), "/usr/bin", "/bin")),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "CONDA_AGGRESSIVE_UPDATE_PACKAGES": "",
            "CONDA_CHANNEL_PRIORITY": "strict",
            "CONDA_NOTIFY_OUTDATED_CONDA": "false",
            "CONDA_NUMBER_CHANNEL_NOTICES": "0",
            "CONDA_REPODATA_FNS": "repodata.json",
            "CONDA_REPORT_ERRORS": "false",
            "MAMBA_CHANNEL_PRIORITY": "strict",
            "MAMBA_NO_RC": "true",
        }
        if self.driven.solver == "micromamba":
            told["MAMBA_ROOT_PREFIX"] = str(folder / "root")
        # Empty: the platform has none of it, whatever this machine has.
        absent = dict.fromkeys(("ARCHSPEC", "CUDA", "GLIBC", "LINUX", "OSX", "WIN"), "")
        assumed = {one.name.removeprefix("__").upper(): one.pair[1] for one in self.question.virtual}
        return told | {f"CONDA_OVERRIDE_{name}": text for name, text in (absent | assumed).items()}

    def _read(self, path: Path, attempt: Attempt) -> list[Candidate]:
        """The packages of the lock that conda-lock wrote. Raises ``WrongAnswer``."""
        by_place = {one.place: one for listed in attempt.pool.values() for one in listed}
        by_place |= {one.place: one for one in attempt.installed}
        step = next(iter(self.question.steps), None)
        chosen: dict[str, Candidate] = {}
        for entry in condalock.load(path.read_text(encoding="utf-8"), path)["package"]:
            if entry["manager"] != "conda" or entry["name"].startswith("__"):
                continue
            place = unquote("/".join(urlsplit(entry["url"]).path.split("/")[-3:]))
            if place not in by_place:
                message = f"environment {self.question.label}: {self.driven.solver} chose {Path(place).name}"
                message = f"{message}, which was not among what it may choose from"
                raise WrongAnswer(message, hint=_OTHER, step=step)
            chosen[by_place[place].name] = by_place[place]
        return condapool.needed(chosen, self.wanted)


_OTHER = 'Look at the settings of its installation, or use `conda.solver = "rattler"`.'


def _write(path: Path, document: Any) -> None:
    """Writes a document as JSON, which every reader of YAML takes."""
    path.write_text(json.dumps(document), encoding="utf-8")


def _version_of(virtual: Virtual) -> str:
    return virtual.version if virtual.build == "0" else f"{virtual.version} {virtual.build}"


def _write_channels(folder: Path, attempt: Attempt, subdir: str, count: int) -> list[str]:
    """The URLs of channels, best first, that have the packages of ``attempt``: their repodata alone."""
    by_place: dict[tuple[int, str], list[Candidate]] = {}
    for listed in attempt.pool.values():
        for one in listed:
            by_place.setdefault((one.channel, one.subdir), []).append(one)
    count = max((count, *(number + 1 for number, _ in by_place)))
    for number in range(count):
        for part in (subdir, NOARCH):
            groups: dict[str, dict[str, Any]] = {"packages": {}, "packages.conda": {}}
            for one in by_place.get((number, part), ()):
                groups["packages.conda" if one.filename.endswith(".conda") else "packages"][one.filename] = (
                    one.entry
                )
            (folder / str(number) / part).mkdir(parents=True)
            _write(folder / str(number) / part / "repodata.json", {"info": {"subdir": part}, **groups})
    return [(folder / str(number)).as_uri() for number in range(count)]


def _installed(attempt: Attempt, subdir: str, channels: Sequence[str]) -> dict[str, Any]:
    """The lock that conda-lock is to move packages of."""
    packages = [
        {
            "name": one.name,
            "version": one.version,
            "manager": "conda",
            "platform": subdir,
            "dependencies": dict(map(condalock.split, one.depends)),
            "url": f"{channels[one.channel]}/{one.subdir}/{one.filename}",
            "hash": {key: one.entry[key] for key in ("md5", "sha256") if key in one.entry},
            "category": "main",
            "optional": False,
        }
        for one in attempt.installed
    ]
    metadata = {
        "content_hash": {subdir: "0" * 64},
        "channels": [{"url": url, "used_env_vars": []} for url in channels],
        "platforms": [subdir],
        "sources": ["environment.yml"],
    }
    return {"version": 1, "metadata": metadata, "package": packages}


def _named(program: Path, driven: Driven, folder: Path) -> Path:
    """The program by a name that tells conda-lock which of the three it is."""
    if program.name == driven.solver:
        return program
    link = folder / "bin" / driven.solver
    link.parent.mkdir()
    link.symlink_to(program)
    return link


def find(driven: Driven, environ: Mapping[str, str]) -> Path:
    """The solver's program: the one that is told, else the one on PATH, else that of the shell's own variables.

    Raises ``SolverMissing``.
    """
    if driven.program is not None:
        if not os.access(driven.program, os.X_OK) or driven.program.is_dir():
            raise SolverMissing(f"{driven.program} is not a program", hint="Correct `conda.program`.")
        return driven.program
    variable = "CONDA_EXE" if driven.solver == "conda" else "MAMBA_EXE"
    told = environ.get(variable, "")
    found = shutil.which(driven.solver, path=environ.get("PATH", os.defpath))
    if found is None and Path(told).name == driven.solver and os.access(told, os.X_OK):
        found = told
    if found is None:
        message = f"{driven.solver} is to choose conda packages (setting conda.solver) and is not on PATH"
        hint = 'Name its file with `conda.program` (FLOWKILN_CONDA_PROGRAM), or set `conda.solver = "rattler"`.'
        raise SolverMissing(message, hint=hint)
    return Path(found).absolute()


def find_conda_lock(environ: Mapping[str, str]) -> Path:
    """The conda-lock program: ``FLOWKILN_CONDA_LOCK``, else the one beside this Python, else the one on PATH.

    Raises ``CondaLockUnusable`` when there is none.
    """
    told = environ.get("FLOWKILN_CONDA_LOCK")
    beside = Path(sys.executable).with_name("conda-lock")
    if told:
        found: Path | None = Path(told).expanduser()
    elif os.access(beside, os.X_OK):
        found = beside
    else:
        named = shutil.which("conda-lock", path=environ.get("PATH", os.defpath))
        found = Path(named) if named else None
    if found is None:
        raise CondaLockUnusable("conda-lock, which drives `conda.solver`, was not found", hint=_INSTALL)
    return found.absolute()


def check_version(program: Path) -> str:
    """The version of a conda-lock program. Raises ``CondaLockUnusable`` for one that is too old or is none.

    It takes as long as a small solve, so a call that gave a lock does without.
    """
    version = _version(program)
    if version is None:
        raise CondaLockUnusable(f"{program} is not a usable conda-lock", hint=_INSTALL)
    shown = ".".join(map(str, version))
    if version < OLDEST:
        message = f"conda-lock {shown} at {program} is too old; 4.0 or newer is needed"
        raise CondaLockUnusable(message, hint=_INSTALL)
    return shown


@lru_cache(maxsize=8)
def _version(program: Path) -> tuple[int, ...] | None:
    try:
        finished = command.run(
            [program, "--version"],
            environment={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
            limits=command.Limits(total=60, stall=60),
        )
    except ToolMissing:
        return None
    match = re.search(r"conda-lock\D*(\d+)\.(\d+)\.(\d+)", finished.stdout)
    return tuple(map(int, match.groups())) if match else None
