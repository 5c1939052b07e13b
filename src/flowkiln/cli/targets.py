"""The one parser of ``ENV``: what a user may write to name an environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkiln.cli.errors import UnknownTarget

_TASK = re.compile(r"(?P<flow>[A-Za-z_]\w*)/(?P<run>\d+)/(?P<step>[A-Za-z_]\w*)(?:/(?P<task>\d+))?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_IMAGE = re.compile(r".+@sha256:[0-9a-f]{6,64}")
_SCRIPT = re.compile(r"(?m)^# /// script\s*$")

HINT = (
    "ENV is FLOW.py[:STEP], a name of [tool.flowkiln.envs], a *.locks folder, a requirements,\n"
    "pyproject or script file, or a task as Flow/RUN/STEP[/TASK]."
)


@dataclass(frozen=True, slots=True)
class FlowTarget:
    """The environments of a flow file, or that of one step."""

    path: Path
    step: str | None = None


@dataclass(frozen=True, slots=True)
class NameTarget:
    """An environment of ``[tool.flowkiln.envs]`` in the nearest pyproject.toml."""

    name: str


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """A folder of lock files: no declaring file is read. ``name`` picks one environment."""

    path: Path
    name: str | None = None


@dataclass(frozen=True, slots=True)
class SourceTarget:
    """A file that lists requirements. ``part`` is a group or extra of a pyproject.toml."""

    path: Path
    kind: Literal["requirements", "pyproject", "script"]
    part: str | None = None


@dataclass(frozen=True, slots=True)
class TaskTarget:
    """The environment that a step, or one task, of a past run ran in."""

    flow: str
    run: str
    step: str
    task: int | None = None

    def __str__(self) -> str:
        return f"{self.flow}/{self.run}/{self.step}" + ("" if self.task is None else f"/{self.task}")


Target = FlowTarget | NameTarget | FolderTarget | SourceTarget | TaskTarget


def parse(text: str, *, folder: Path | None = None) -> Target:
    """What ``text`` names; paths are relative to ``folder``. Raises ``UnknownTarget``."""
    if _IMAGE.fullmatch(text):
        message = f"{text!r} is an image; this version of flowkiln reads no images"
        raise UnknownTarget(message, hint=HINT)
    task = _TASK.fullmatch(text)
    if task is not None:
        number = task["task"]
        return TaskTarget(task["flow"], task["run"], task["step"], None if number is None else int(number))
    base = folder or Path.cwd()
    whole = base / Path(text).expanduser()
    if text and whole.exists():
        return _of_path(whole, None, text)
    front, colon, part = text.rpartition(":")
    if colon and front:
        path = base / Path(front).expanduser()
        if path.exists():
            return _of_path(path, part, text)
    if _NAME.fullmatch(text) and Path(text).suffix not in (".py", ".txt", ".in", ".toml", ".locks"):
        return NameTarget(text)
    message = f"there is no {front if colon and front else text}"
    raise UnknownTarget(message, hint=HINT)


def _of_path(path: Path, part: str | None, text: str) -> Target:
    if path.is_dir():
        if (path / "flowkiln.lock").is_file() or path.name.endswith(".locks"):
            return FolderTarget(path, part)
        message = f"{text} is a folder without lock files"
        raise UnknownTarget(message, hint=HINT)
    if path.suffix == ".py":
        return _of_python(path, part, text)
    if path.name == "pyproject.toml":
        return SourceTarget(path, "pyproject", part)
    if path.name == "flowkiln.lock":
        return FolderTarget(path.parent, part)
    if part is None and path.suffix in (".txt", ".in"):
        return SourceTarget(path, "requirements")
    message = f"{text} is not a file that declares an environment"
    raise UnknownTarget(message, hint=HINT)


def _of_python(path: Path, part: str | None, text: str) -> Target:
    source = path.read_text(encoding="utf-8", errors="replace")
    if "FlowSpec" not in source and _SCRIPT.search(source):
        if part:
            message = f"{text}: a script has one environment, without a name"
            raise UnknownTarget(message, hint=HINT)
        return SourceTarget(path, "script")
    return FlowTarget(path, part or None)
