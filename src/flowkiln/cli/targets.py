"""The one parser of ``ENV``: what a user may write to name an environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkiln.cli.errors import UnknownTarget
from flowkiln.envs.filekinds import LOCKS, kind_of

_TASK = re.compile(r"(?P<flow>[A-Za-z_]\w*)/(?P<run>\d+)/(?P<step>[A-Za-z_]\w*)(?:/(?P<task>\d+))?")
_LISTS = (".txt", ".in", ".yml", ".yaml")
"""How files end that list requirements, or say what an environment of conda holds."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_RUN = re.compile(r"(?P<flow>[A-Za-z_]\w*)/(?P<run>\d+)")
_LAYOUT = "oci:"
_BAKED = re.compile(r"(?P<repository>[^\s@]+):fk-[0-9a-f]{64}(?:-\w+)?")
_PLACED = re.compile(r"(?:localhost|[^\s/]*[.:][^\s/]*)/[^\s@:]+:[\w][\w.-]{0,127}")
_SCRIPT = re.compile(r"(?m)^# /// script\s*$")

HINT = (
    "ENV is FLOW.py[:STEP], a name of [tool.flowkiln.envs], a *.locks folder, a file (requirements,\n"
    "pyproject.toml, script, environment.yml or a lock), or a task as Flow/RUN/STEP[/TASK]."
)
IMAGE_HINT = "An image is REPOSITORY[:TAG]@sha256:..., HOST/REPOSITORY:TAG, flowkiln:fk-... or oci:FOLDER[:NAME]."


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


@dataclass(frozen=True, slots=True)
class RunTarget:
    """A whole past run."""

    flow: str
    run: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.run}"


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """An image: of a registry, of the local engine, or in an OCI layout.

    ``reference`` is what registry or engine are asked for; of a layout it names one of several images, "" for the
    only one, and ``path`` is its folder or archive.
    """

    kind: Literal["registry", "engine", "layout"]
    reference: str
    path: Path | None = None


Target = FlowTarget | NameTarget | FolderTarget | SourceTarget | TaskTarget | RunTarget | ImageTarget


def parse(text: str, *, folder: Path | None = None) -> Target:
    """What ``text`` names; paths are relative to ``folder``. Raises ``UnknownTarget``."""
    base = folder or Path.cwd()
    if text.startswith(_LAYOUT):
        return _of_layout(base, text)
    if "@sha256:" in text:
        return ImageTarget("registry", text)
    task = _TASK.fullmatch(text)
    if task is not None:
        number = task["task"]
        return TaskTarget(task["flow"], task["run"], task["step"], None if number is None else int(number))
    whole = base / Path(text).expanduser()
    if text and whole.exists():
        return _of_path(whole, None, text)
    front, colon, part = text.rpartition(":")
    if colon and front:
        path = base / Path(front).expanduser()
        if path.exists():
            return _of_path(path, part, text)
    run = _RUN.fullmatch(text)
    if run is not None:
        return RunTarget(run["flow"], run["run"])
    image = _of_image(text)
    if image is not None:
        return image
    if _NAME.fullmatch(text) and Path(text).suffix not in (".py", ".toml", ".locks", ".lock", *_LISTS):
        return NameTarget(text)
    message = f"there is no {front if colon and front else text}"
    raise UnknownTarget(message, hint=HINT)


def _of_layout(base: Path, text: str) -> ImageTarget:
    """An image in an OCI layout: ``oci:PATH``, or ``oci:PATH:NAME`` where the whole is no path itself."""
    rest, name = text.removeprefix(_LAYOUT), ""
    path = base / Path(rest).expanduser()
    if not path.exists() and ":" in rest:
        rest, _, name = rest.rpartition(":")
        path = base / Path(rest).expanduser()
    if not rest or not path.exists():
        raise UnknownTarget(f"there is no OCI layout {text!r}", hint=IMAGE_HINT)
    return ImageTarget("layout", name, path)


def _of_image(text: str) -> ImageTarget | None:
    """An image by its tag: one of ours, or one whose registry is named; None for anything else."""
    baked = _BAKED.fullmatch(text)
    if baked is not None:
        return ImageTarget("engine" if baked["repository"] == "flowkiln" else "registry", text)
    return ImageTarget("registry", text) if _PLACED.fullmatch(text) else None


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
    if part is None and kind_of(path) in LOCKS:
        return SourceTarget(path, "requirements")
    if path.name == "flowkiln.lock":
        return FolderTarget(path.parent, part)
    if part is None and path.suffix in _LISTS:
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
