"""Runs the flows of the table through the command line, and reads what stands in the store afterwards."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln.store import artifacts
from flowkiln.store.artifacts import Artifact
from flowkiln.store.folder import FolderStore
from flowkiln.wiring import history
from tests.services.wheels import Distribution, Member, wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln.executor.outcome import Outcome
    from tests.conformance.rows import Place, Row
    from tests.e2e.project import Done, Project
    from tests.services.index import PackageIndex

FLOWS = Path(__file__).parent / "flows"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_TESTS = ("tests", "_core/tests", "doc")


@dataclass(frozen=True)
class Target:
    """Where steps run: what is added to the command line and to its environment.

    ``image_id`` says by which id the platform knows an image; None where steps have none.
    """

    name: str
    words: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    image_id: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Attempt:
    """One attempt as the store has it."""

    place: Place
    number: int
    outcome: Outcome
    values: dict[str, object]
    lines: dict[str, list[str]]


@dataclass(frozen=True)
class Result:
    """A run that has ended."""

    run: str
    done: Done
    attempts: list[Attempt]

    def last(self, place: Place) -> Attempt:
        """The last attempt of the task at ``place``."""
        return [one for one in self.attempts if one.place == place][-1]


class Runner:
    """Runs rows in one project; a row runs once on each target."""

    def __init__(self, project: Project, index: PackageIndex) -> None:
        self._project = project
        self._results: dict[tuple[str, str], Result] = {}
        for version in ("1.0", "2.0"):
            index.add(wheel("probe", version))
        index.add(installed("numpy", leave_out=_TESTS))
        project.environ["UV_DEFAULT_INDEX"] = index.url
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        project.write(
            "shared.py",
            "from flowkiln import pypi, pypi_base\n\n"
            f"AT = {{'python': {PYTHON!r}, 'platforms': ['linux/{machine}']}}\n"
            "locked = pypi_base(packages={'numpy': '', 'probe': '1.0'}, **AT)\n"
            "later = pypi(packages={'probe': '2.0'}, **AT)\n",
        )
        for path in FLOWS.glob("*.py"):
            project.write(path.name, path.read_text(encoding="utf-8"))

    def run(self, row: Row, target: Target) -> Result:
        """What the row comes to on the target."""
        key = (row.flow, target.name)
        if key not in self._results:
            self._results[key] = self._run(row, target)
        return self._results[key]

    def _run(self, row: Row, target: Target) -> Result:
        file = self._project.folder / f"{row.flow}-{target.name}.id"
        words = ["run", *target.words, "--max-workers", "2", "--run-id-file", str(file), *row.words]
        done = self._project.python(f"{row.flow}.py", *words, **target.environ)
        assert file.exists(), done.err
        run = file.read_text().strip()
        return Result(run, done, _attempts(FolderStore(str(self._project.folder / ".flowkiln")), run))


def _attempts(store: FolderStore, run: str) -> list[Attempt]:
    found = []
    for row in history.tasks(store, history.find(store, run).run):
        for number in range(row.attempt + 1):
            outcome = history.outcome(store, run, row.task, number)
            if outcome is None or row.step == "_parameters":
                continue
            lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
            for line in history.log_lines(store, outcome):
                lines[line.stream].append(line.text)
            values = {name: _plain(store, name, told) for name, told in outcome.artifacts.items()}
            found.append(Attempt((row.step, row.indices), number, outcome, values, lines))
    return sorted(found, key=lambda one: (one.place, one.number))  # tasks are numbered as they come


def _plain(store: FolderStore, name: str, told: dict[str, Any]) -> object:
    """The artifact's value; of an array what it is the same by."""
    value = artifacts.load(Artifact.from_json(told), store.blobs, name=name)
    if hasattr(value, "dtype"):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if type(value).__module__.startswith("flowkiln"):  # a failure that was caught
        return type(value).__name__, {key: repr(one) for key, one in vars(value).items()}
    return value


def installed(name: str, *, leave_out: tuple[str, ...] = ()) -> Distribution:
    """A wheel of what is installed in the development environment, without the folders ``leave_out``."""
    found = importlib.metadata.distribution(name)
    info = f"{name}-{found.version}.dist-info/"
    members = []
    for path in found.files or ():
        text = str(path)
        if text.startswith((info, "..")) or "__pycache__" in text or any(f"/{one}/" in text for one in leave_out):
            continue
        members.append(Member(text, Path(str(path.locate())).read_bytes()))
    told = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ") for line in told if line.startswith("Tag: ")]
    python, abi, _ = tags[0].split("-")
    tag = f"{python}-{abi}-{'.'.join(one.split('-')[2] for one in tags)}"
    return wheel(name, found.version, tag=tag, files={}, members=members, purelib=False)
