"""Failures of conda-lock and of the solver that it drives, in our words, the solver's own explanation kept."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING, Any

from flowkiln._base import files, paths, redact
from flowkiln._base.errors import NoSpace, ReadOnly
from flowkiln.envs import condafailures
from flowkiln.envs.condaerrors import SolverFailed
from flowkiln.envs.errors import LockTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkiln._base.command import Finished
    from flowkiln.envs.condaquestion import CondaQuestion, CondaSolver
    from flowkiln.envs.errors import EnvError

_REFUSED = re.compile(r"Could not lock the environment for platform [\w-]+:?\s*(?P<said>.*)", re.DOTALL)
_COMMAND = re.compile(r"\n\s*Command: \[.*", re.DOTALL)
_UNSOLVABLE = re.compile(
    r"unsatisfiable|solver_problems|packages ?not ?found|could not solve|resolvepackagenotfound"
    r"|not available from current channels|nothing provides|conflict",
    re.IGNORECASE,
)
_LOCAL = re.compile(r"(?:file://)?(?:/[^\s'\",/]+)*/\.scratch-[^\s'\",/]+/channels/(?P<number>\d+)")


def translate(
    finished: Finished, arguments: Sequence[str | Path], solver: CondaSolver, question: CondaQuestion
) -> EnvError:
    """The error for a call that gave no lock; it names environment, platform and step."""
    assert solver.driven is not None
    name = solver.driven.solver
    what = f"environment {question.name!r} for {question.platform}"
    step = next(iter(question.steps), None)
    if finished.ended != "exit":
        message = f"{what}: {name} chose no conda packages within {solver.limits.total:.0f} s and was ended"
        hint = "Raise the limit with FLOWKILN_LOCK_TIMEOUT=600 (`lock-timeout`), or name exact versions."
        return LockTimeout(message, hint=hint, step=step, retryable=True)
    said = _explanation(finished, solver)
    if said is not None and _UNSOLVABLE.search(said):
        error = condafailures.unsolvable(said, solver, question)
        error.step = step
        return error
    log = _write_log(finished, arguments, question)
    lines = (said or _last_words(finished.stderr, solver)).splitlines()[-condafailures.LINES :]
    message = "\n".join([f"{what}: conda-lock with {name} ended with {finished.code}", *lines])
    return SolverFailed(message, hint='Try it alone, or set `conda.solver = "rattler"`.', step=step, log=log)


def _explanation(finished: Finished, solver: CondaSolver) -> str | None:
    """What the solver itself said; None where conda-lock did not get so far as to ask it."""
    found = _REFUSED.search(finished.stderr)
    if found is None:
        return None
    said = _COMMAND.sub("", found["said"]).strip()
    document = _document(said)
    if isinstance(document, dict):
        problems = document.get("solver_problems") or document.get("message") or document.get("error")
        said = "\n".join(map(str, problems)) if isinstance(problems, list) else str(problems or said)
    return _readable(said, solver)


def _document(said: str) -> Any:
    """conda-lock shows JSON without a message as Python would."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(said)
        except (ValueError, SyntaxError):
            continue
    return None


def _last_words(text: str, solver: CondaSolver) -> str:
    """The error at the end of a Python program's traceback, else all lines."""
    return _readable(text.rpartition("\n  File ")[2].partition("\n")[2] or text, solver)


def _readable(text: str, solver: CondaSolver) -> str:
    """``text`` with the channels that it means, and no secrets, colours or empty lines."""

    def channel(found: re.Match[str]) -> str:
        number = int(found["number"])
        channels = solver.plan.channels
        return channels[number].shown if number < len(channels) else "a channel of the match specs"

    plain = re.sub(r"\x1b\[[0-9;]*m", "", _LOCAL.sub(channel, text))
    return "\n".join(line.rstrip() for line in redact.text(plain).splitlines() if line.strip())


def _write_log(finished: Finished, arguments: Sequence[str | Path], question: CondaQuestion) -> str | None:
    path = paths.cache_root() / "logs" / f"lock-{question.name}-{question.platform.slug}-conda.log"
    text = f"{' '.join(map(str, arguments))}\n\n{finished.stdout}\n{finished.stderr}"
    try:
        files.write_atomic(path, redact.text(text).encode(), mode=0o600)
    except (OSError, NoSpace, ReadOnly):
        return None
    return str(path)
