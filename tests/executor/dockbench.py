"""A small flow-less run for the Docker backend: a worker script of one test, its store, and its attempts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from flowkiln._base.endpoints import find
from flowkiln._base.engine import Engine
from flowkiln.executor.backend import Assignment
from flowkiln.executor.docker import DockerBackend, DockerSettings
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.plan import ContainerSettings, ImageRef, Prefix, RunPlan, StepPlan
from flowkiln.executor.vocabulary import Event, Sealed
from flowkiln.store import keys, logs
from flowkiln.store.folder import FolderStore
from flowkiln.store.logs import LogLine

FLOW = "TestFlow"
PLAIN = Prefix(python="python3", version="3.11.0", platform="linux/amd64")


class DockBench:
    """Runs attempts of one step in containers and gives their outcomes."""

    def __init__(
        self, folder: Path, engine: Engine, script: str, image: ImageRef, run: str, **options: Any
    ) -> None:
        self.engine = engine
        self.run_id = run
        self.folder = folder
        self.store = FolderStore(folder / "store")
        code = folder / "code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "flow.py").write_text(script)
        self.lines: list[LogLine] = []
        self.events: list[Event] = []
        self._next = 1
        step = {"prefix": options.pop("prefix", PLAIN), "image": image}
        step |= {name: options.pop(name) for name in ("timeout", "environ") if name in options}
        step["container"] = options.pop("container", ContainerSettings())
        self.plan = RunPlan(
            flow=FLOW,
            steps=(StepPlan(name="work", kind="linear", **step),),
            script="flow.py",
            code="sha256:" + "0" * 64,
            user_folder="/",
            max_workers=options.pop("max_workers", 2),
            max_splits=1000,
            verify=options.pop("verify", "auto"),
        )
        self.settings = DockerSettings(
            code_dir=code,
            cache=options.pop("cache", folder / "cache"),
            **{"grace": 1.0, "drain": 0.5, "host": {}, "runtime_inside": False, **options},
        )
        self.store.records.create("r/x/flow", b"{}")
        self.backend = self.launcher()

    @classmethod
    def again(cls, folder: Path, host: str, image: str, run: str, cache: Path) -> DockBench:
        """The same run as another process sees it."""
        script = (folder / "code" / "flow.py").read_text()
        engine = Engine(find({"DOCKER_HOST": host}))
        return cls(folder, engine, script, ImageRef(reference=image, baked=False), run, cache=cache)

    def launcher(self) -> DockerBackend:
        """A backend as a new launcher makes it."""
        return DockerBackend(self.plan, self.run_id, self.store, self.engine, self.settings, on_line=self._line)

    def _line(self, task: int, attempt: int, line: LogLine) -> None:
        self.lines.append(line)

    def assignment(self, task: int, attempt: int = 0) -> Assignment:
        return Assignment(run=self.run_id, flow=FLOW, step="work", task=task, attempt=attempt, parent=(0, 0))

    def submit(self, count: int = 1) -> list[int]:
        tasks = list(range(self._next, self._next + count))
        self._next += count
        self.backend.submit([self.assignment(task) for task in tasks])
        return tasks

    def poll_until(self, kind: type[Event], count: int = 1, limit: float = 90.0) -> list[Any]:
        found: list[Any] = []
        end = time.monotonic() + limit
        while len(found) < count:
            assert time.monotonic() < end, f"waited too long for {kind.__name__}: {self.events}"
            events = self.backend.poll(0.5)
            self.events += events
            found += [event for event in events if isinstance(event, kind)]
        return found

    def poll_until_line(self, text: str, limit: float = 90.0) -> None:
        end = time.monotonic() + limit
        while not any(text in line.text for line in self.lines):
            assert time.monotonic() < end, f"waited too long for the line {text!r}: {self.events}"
            self.events += self.backend.poll(0.05)

    def run(self, count: int = 1) -> list[Outcome]:
        tasks = self.submit(count)
        self.poll_until(Sealed, count)
        return [self.outcome(task) for task in tasks]

    def run_one(self) -> Outcome:
        return self.run(1)[0]

    def outcome(self, task: int, attempt: int = 0) -> Outcome:
        stored = self.store.records.read(keys.outcome(self.run_id, task, attempt))
        assert stored is not None
        return Outcome.from_json(json.loads(stored))

    def log(self, outcome: Outcome, stream: str = "stdout") -> list[str]:
        return [line.text for line in logs.read(outcome.logs, self.store.blobs) if line.stream == stream]

    def shown(self, stream: str = "stdout") -> list[str]:
        return [line.text for line in self.lines if line.stream == stream]

    def container(self, task: int = 1, attempt: int = 0) -> str:
        return f"flowkiln-{self.run_id}-{task}-{attempt}"

    def left(self) -> list[str]:
        """The containers of the run that the engine still has."""
        return [one["Names"][0] for one in self.engine.containers(labels={"io.flowkiln.run": self.run_id})]
