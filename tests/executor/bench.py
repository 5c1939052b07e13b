"""A small flow-less run for the process backend: a worker script of one test, its store, and its attempts."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from flowkiln.executor.backend import Assignment
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.plan import Prefix, RunPlan, StepPlan
from flowkiln.executor.process import ProcessBackend, ProcessSettings
from flowkiln.executor.vocabulary import Event, Sealed
from flowkiln.store import keys, logs
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogLine

RUN = "run1"
FLOW = "TestFlow"
HOST = Prefix(python=sys.executable, version=".".join(map(str, sys.version_info[:3])), platform="linux/amd64")

WORKER = """
import os, sys, time
from flowkiln.executor.outcome import Outcome, Transition
from flowkiln.executor.template import serve

HEAD

def step(assignment, store, info):
    BODY

def perform(assignment, store, info):
    found = step(assignment, store, info)
    return Outcome(status="ok", artifacts={"value": {"v": found}}, transition=Transition(targets=("end",)))

def preload():
    PRELOAD

serve(perform, preload)
"""


def worker(body: str, *, head: str = "", preload: str = "pass") -> str:
    """A worker script whose step runs ``body``; what it returns becomes the artifact ``value``."""
    text = WORKER.replace("HEAD", textwrap.dedent(head).strip())
    text = text.replace("BODY", textwrap.indent(textwrap.dedent(body).strip(), "    ").lstrip())
    return text.replace("PRELOAD", textwrap.indent(textwrap.dedent(preload).strip(), "    ").lstrip())


class Bench:
    """Runs attempts of one step and gives their outcomes."""

    def __init__(self, folder: Path, cache: Path, script: str, **options: Any) -> None:
        self.folder = folder
        code = folder / "code"
        code.mkdir()
        (code / "flow.py").write_text(script)
        (folder / "user").mkdir()
        self.lines: list[tuple[int, int, LogLine]] = []
        self.seen: list[tuple[float, LogLine]] = []
        self.events: list[Event] = []
        self.store = FolderStore(folder / "store")
        self.cache = cache
        self._next = 1
        step = {"prefix": options.pop("prefix", HOST)}
        for name in ("timeout", "environ", "targets"):
            if name in options:
                step[name] = options.pop(name)
        plan = {"max_workers": options.pop("max_workers", 2), "isolation": options.pop("isolation", "auto")}
        verify = options.pop("verify", None)
        self.plan = RunPlan(
            flow=FLOW,
            steps=(StepPlan(name="work", kind="linear", **step), *options.pop("more_steps", ())),
            script="flow.py",
            code="sha256:" + "0" * 64,
            user_folder=str(folder / "user"),
            max_splits=100_000,
            **plan,
        )
        settings = ProcessSettings(code_dir=code, cache=cache, **{"grace": 0.3, "drain": 0.3, **options})
        more = {} if verify is None else {"verify": verify}
        self.backend = ProcessBackend(self.plan, RUN, self.store, settings, on_line=self._line, **more)

    def _line(self, task: int, attempt: int, line: LogLine) -> None:
        self.lines.append((task, attempt, line))
        self.seen.append((time.time(), line))

    def submit(self, count: int = 1) -> list[int]:
        """Ids of ``count`` new tasks that were handed to the backend."""
        tasks = list(range(self._next, self._next + count))
        self._next += count
        self.backend.submit([self.assignment(task) for task in tasks])
        return tasks

    @staticmethod
    def assignment(task: int, attempt: int = 0) -> Assignment:
        place = {"parent": (0, 0), "indices": (task,)}
        return Assignment(run=RUN, flow=FLOW, step="work", task=task, attempt=attempt, **place)  # type: ignore[arg-type]

    def poll_until(self, kind: type[Event], count: int = 1, limit: float = 60.0) -> list[Any]:
        """The first ``count`` events of a kind from now on."""
        found: list[Any] = []
        end = time.monotonic() + limit
        while len(found) < count:
            assert time.monotonic() < end, f"waited too long for {kind.__name__}: {self.events}"
            events = self.backend.poll(0.5)
            self.events += events
            found += [event for event in events if isinstance(event, kind)]
        return found

    def poll_until_line(self, text: str, limit: float = 60.0) -> None:
        end = time.monotonic() + limit
        while not any(text in line.text for _, _, line in self.lines):
            assert time.monotonic() < end, f"waited too long for the line {text!r}"
            self.events += self.backend.poll(0.05)

    def run(self, count: int = 1) -> list[Outcome]:
        """The outcomes of ``count`` new tasks, as they stand in the store."""
        tasks = self.submit(count)
        self.poll_until(Sealed, count)
        return [self.outcome(task) for task in tasks]

    def run_one(self) -> Outcome:
        return self.run(1)[0]

    def outcome(self, task: int, attempt: int = 0) -> Outcome:
        stored = self.store.records.read(keys.outcome(RUN, task, attempt))
        assert stored is not None
        return Outcome.from_json(json.loads(stored))

    def log(self, outcome: Outcome, stream: str = "stdout") -> list[str]:
        return [line.text for line in logs.read(outcome.logs, self.store.blobs) if line.stream == stream]

    def close(self) -> None:
        self.backend.close()
