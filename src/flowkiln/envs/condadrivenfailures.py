"""Failures of conda-lock and of the solver that it drives, in our words, the solver's own explanation kept."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
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

_REFUSED = re.compile(r"Could not lock the environment for platform [a-z0-9-]+(?:: |\n)")
_SECTION = re.compile(r"^    (Command|STDOUT|STDERR):[ \n]", re.MULTILINE)
_UNSOLVABLE = re.compile(r"unsatisfiable|not ?found|could not solve|nothing provides|conflict", re.IGNORECASE)
_UNEXPLAINED = "the solver gave no reason"
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
    said = _Said.of(finished.stderr)
    if said is not None and said.unsolvable:
        error = condafailures.unsolvable(_readable(said.explanation, solver), solver, question)
        error.step = step
        return error
    log = _write_log(finished, arguments, question)
    words = finished.stderr if said is None else said.stderr or said.message
    lines = _readable(words, solver).splitlines()[-condafailures.LINES :]
    message = "\n".join([f"{what}: conda-lock with {name} ended with {finished.code}", *lines])
    return SolverFailed(message, hint='Try it alone, or set `conda.solver = "rattler"`.', step=step, log=log)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What conda-lock shows of a solver that failed: ``answer`` is the JSON that the solver printed, if it did."""

    message: str
    answer: Any
    stderr: str

    @classmethod
    def of(cls, text: str) -> _Said | None:
        """The end of conda-lock's output; None where the solver was not asked or did not fail."""
        found = list(_REFUSED.finditer(text))
        if not found:
            return None
        shown, _, after = text[found[-1].end() :].rpartition("\nTraceback (most recent call last)")
        parts = _SECTION.split(shown or after)  # the last traceback is conda-lock's own
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        message = parts[0].strip()
        answer = _document(sections.get("STDOUT", "")) or _document(message)
        return cls(message=message, answer=answer, stderr=sections.get("STDERR", "").strip())

    @property
    def unsolvable(self) -> bool:
        """Whether the solver said that there is no answer, rather than that something broke."""
        if isinstance(self.answer, dict):
            kind = str(self.answer.get("exception_name", ""))
            return "solver_problems" in self.answer or bool(_UNSOLVABLE.search(kind or self.message))
        # of a program that moves packages conda-lock shows the message alone
        return not self.stderr and bool(self.message)

    @property
    def explanation(self) -> str:
        """Why there is no answer, as the solver says it."""
        if isinstance(self.answer, dict):
            problems = self.answer.get("solver_problems") or self.answer.get("message") or self.answer.get("error")
            tree = self.stderr.partition("Could not solve for environment specs")[2].strip()
            if tree:
                return tree
            return "\n".join(map(str, problems)) if isinstance(problems, list) else str(problems or _UNEXPLAINED)
        return self.message if self.message != "None" else _UNEXPLAINED


def _document(said: str) -> Any:
    """The JSON in ``said``; conda-lock shows one without a message as Python would."""
    whole = said[said.find("{") : said.rfind("}") + 1]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(whole)
        except (ValueError, SyntaxError):
            continue
    return None


def _readable(text: str, solver: CondaSolver) -> str:
    """``text`` with the channels that it means, and no secrets, colours or empty lines."""

    def channel(found: re.Match[str]) -> str:
        number = int(found["number"])
        channels = solver.plan.channels
        return channels[number].shown if number < len(channels) else "a channel of the match specs"

    shown = text.partition("\nCurrent channels:")[0]  # ours are told anyway, those of conda-lock mean nothing here
    plain = re.sub(r"\x1b\[[0-9;]*m", "", _LOCAL.sub(channel, shown))
    return "\n".join(line.rstrip() for line in redact.text(plain).splitlines() if line.strip())


def _write_log(finished: Finished, arguments: Sequence[str | Path], question: CondaQuestion) -> str | None:
    path = paths.cache_root() / "logs" / f"lock-{question.name}-{question.platform.slug}-conda.log"
    text = f"{' '.join(map(str, arguments))}\n\n{finished.stdout}\n{finished.stderr}"
    try:
        files.write_atomic(path, redact.text(text).encode(), mode=0o600)
    except (OSError, NoSpace, ReadOnly):
        return None
    return str(path)
