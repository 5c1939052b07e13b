"""A past task restored: its code in a folder of its own, its inputs where Python finds them, its variables."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import json, paths
from flowkiln._base.files import disk_errors
from flowkiln.executor import runtime
from flowkiln.flow import package
from flowkiln.wiring import history
from flowkiln.wiring.errors import SeveralTasks, UnknownRun

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.board import TaskRow
    from flowkiln.executor.plan import RunPlan, StepPlan
    from flowkiln.store.folder import FolderStore
    from flowkiln.wiring.history import Place

_MODULE = "flowkiln_task"
_STARTUP = """\
# `from flowkiln_task import self, inputs` in a script; the prompt of `python` has both already.
from flowkiln.flow import again

self, inputs = again.task({described!r}, globals())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTask:
    """One task of a run, and how its last attempt was to run."""

    store: FolderStore
    plan: RunPlan
    step: StepPlan
    assignment: Assignment
    path: str

    @property
    def number(self) -> int:
        """Its id within the run."""
        return self.assignment.task


def find(store: FolderStore, place: Place) -> PastTask:
    """The one task that ``place`` names: of a step with several, the only one that failed.

    Raises ``SeveralTasks`` and ``UnknownRun``.
    """
    rows = history.chosen(store, place)
    row = _only(place, rows)
    assignment = history.replayed(store, place.run).assignment(row.task)
    name = f"{place.run.flow}/{place.run.run}/{row.step}/{row.task}"
    if assignment is None:
        raise UnknownRun(f"task {name} has never begun", hint="Only tasks that began have inputs.")
    plan = history.plan_of(place.run)
    return PastTask(store=store, plan=plan, step=plan.step(row.step), assignment=assignment, path=name)


def _only(place: Place, rows: list[TaskRow]) -> TaskRow:
    failed = [row for row in rows if row.state == "failed"]
    for found in (rows, failed):
        if len(found) == 1:
            return found[0]
    run = f"{place.run.flow}/{place.run.run}"
    told = f", of which {len(failed)} failed" if failed else ""
    message = f"step {place.step!r} of run {run} has {len(rows)} tasks{told}"
    first = (failed or rows)[0]
    hint = f"Name one of them: {run}/{first.step}/{first.task}. `flowkiln run show {run}` lists them."
    raise SeveralTasks(message, step=place.step, hint=hint)


class Scratch:
    """A folder with the code of a task, and what makes its inputs known to Python.

    ``code`` may be changed by whoever works there. Leaving removes the folder unless that was done.
    """

    def __init__(self, task: PastTask) -> None:
        self._task = task
        parent = paths.cache_root() / "shell"
        with disk_errors(parent, setting="cache"):
            parent.mkdir(parents=True, exist_ok=True)
            self.root = Path(tempfile.mkdtemp(prefix=f"{task.plan.flow}-{task.number}-", dir=parent))
        self.code = self.root / "code"
        self.library = self.root / "library"

    def fill(self) -> None:
        """Unpacks the code. Raises the store's errors."""
        task = self._task
        with disk_errors(self.root, setting="cache"):
            unpacked = package.unpack(task.plan.code, task.store.blobs, paths.cache_root() / "code")
            shutil.copytree(unpacked, self.code, symlinks=True)
            self.library.mkdir()

    def describe(self, *, store: str, code: str, library: str) -> None:
        """Makes the task known to a Python that sees store, code and library under these paths."""
        task = self._task
        document: JSONObject = {
            "plan": task.plan.to_json(),
            "assignment": task.assignment.to_json(),
            "store": store,
            "code": code,
        }
        with disk_errors(self.root, setting="cache"):
            (self.library / "task.json").write_bytes(json.compact(document))
            text = _STARTUP.format(described=f"{library}/task.json")
            (self.library / f"{_MODULE}.py").write_text(text, encoding="utf-8")

    @property
    def changed(self) -> bool:
        """Whether the code is no longer what the task had."""
        return not package.is_unpacked(self._task.plan.code, self.code)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)
        with suppress(OSError):
            self.root.parent.rmdir()


def variables(task: PastTask, library: str, runtime_folder: str) -> dict[str, str]:
    """The variables that a process of the task needs besides those of its environment."""
    own = dict(task.step.environ)
    folders = [library, runtime_folder, *([own["PYTHONPATH"]] if own.get("PYTHONPATH") else [])]
    return {**own, "PYTHONPATH": os.pathsep.join(folders), "PYTHONSTARTUP": f"{library}/{_MODULE}.py"}


def runtime_folder() -> Path:
    """The folder that holds flowkiln as steps see it, made where it is missing."""
    return runtime.runtime_folder(paths.cache_root())
