"""Whole runs by the driver: steps as processes and in containers, in one flow."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.engine import Engine
from flowkiln.executor import records
from flowkiln.executor.docker import DockerBackend, DockerSettings
from flowkiln.executor.driver import Driver
from flowkiln.executor.ending import RunEnd
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.plan import ContainerSettings, Prefix, RunPlan
from flowkiln.executor.process import ProcessBackend, ProcessSettings
from flowkiln.executor.routes import Routed
from flowkiln.flow import checks, package, planning
from flowkiln.store import keys
from flowkiln.store.folder import FolderStore

from . import images
from .bench import HOST

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, step, retry, catch


class Mixed(FlowSpec):
    @step
    def start(self):
        self.items = list(range(4))
        self.big = b"b" * 50_000
        self.next(self.work, foreach="items")

    @step
    def work(self):
        assert self.big == b"b" * 50_000
        print("item", self.input)
        self.square = self.input ** 2
        self.blob = bytes([self.input]) * 20_000
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.total = sum(one.square for one in inputs)
        self.sizes = [len(one.blob) for one in inputs]
        self.next(self.flaky)

    @retry(times=1, minutes_between_retries=0)
    @step
    def flaky(self):
        from flowkiln import current
        if current.retry_count == 0:
            import os
            os._exit(1)
        self.tries = current.retry_count
        self.next(self.lost)

    @catch(var="why")
    @step
    def lost(self):
        raise ValueError("on purpose")
        self.next(self.end)

    @step
    def end(self):
        assert self.why
        print("total", self.total)


if __name__ == "__main__":
    Mixed()
"""


class Run:
    """One run of a flow whose steps are placed as told."""

    def __init__(self, folder: Path, engine: Engine, contained: set[str], **options: Any) -> None:
        self.engine = engine
        self.store = FolderStore(folder / "store")
        file = folder / "flow.py"
        file.write_text(FLOW)
        spec = importlib.util.spec_from_file_location("mixed", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["mixed"] = module
        spec.loader.exec_module(module)
        graph = checks.require(module.Mixed, [])
        self.code = package.snapshot(file, self.store.blobs)
        plan = planning.plan(
            graph,
            dict.fromkeys(graph.nodes, HOST),
            script="flow.py",
            code=self.code,
            options=planning.Options(user_folder=str(folder), max_workers=4, max_splits=100),
        )
        inside: dict[str, Any] = {
            "image": options.pop("image", images.plain()),
            "container": ContainerSettings(),
            "prefix": Prefix(python="python3", version="3.11.0", platform="linux/amd64"),
        }
        steps = tuple(dataclasses.replace(one, **inside) if one.name in contained else one for one in plan.steps)
        self.plan = dataclasses.replace(plan, steps=steps)
        self.cache = folder / "cache"
        self.options = options
        self.lines: list[str] = []
        self.run = records.open_run(self.store.records, self.plan, {}, {})

    def backend(self, plan: RunPlan) -> Routed:
        code_dir = package.unpack(self.code, self.store.blobs, self.cache / "code")
        info = {"plan": plan.to_json()}
        docker = DockerSettings(code_dir=code_dir, cache=self.cache, info=info, grace=1.0, **self.options)
        process = ProcessSettings(code_dir=code_dir, cache=self.cache, info=info)
        return Routed(
            plan,
            ProcessBackend(plan, self.run, self.store, process, on_line=self._line),
            DockerBackend(plan, self.run, self.store, self.engine, docker, on_line=self._line),
        )

    def _line(self, task: int, attempt: int, line: Any) -> None:
        self.lines.append(line.text)

    def drive(self) -> RunEnd:
        return Driver(self.plan, self.run, self.store, self.backend(self.plan)).run()

    def outcomes(self, step: str) -> list[Outcome]:
        found = []
        for task in map(int, self.store.records.names(f"r/{self.run}/t")):
            for attempt in self.store.records.names(f"r/{self.run}/t/{task}"):
                data = self.store.records.read(keys.outcome(self.run, task, int(attempt)))
                outcome = Outcome.from_json(json.loads(data or b"{}"))
                if outcome.execution.get("kind") == step:
                    found.append(outcome)
        return found

    def left(self) -> list[str]:
        return [one["Id"] for one in self.engine.containers(labels={"io.flowkiln.run": self.run})]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def one(contained: set[str], engine: Engine | None = None, **more: Any) -> Run:
        made.append(Run(tmp_path, engine or images.engine("overlay2"), contained, **more))
        return made[-1]

    yield one
    for run in made:
        for container in run.left():
            run.engine.remove(container)


ALL = {"start", "work", "gather", "flaky", "lost", "end"}


@pytest.mark.parametrize("contained", [ALL, {"work", "flaky"}, {"start", "gather", "end"}], ids=len)
def test_a_flow_ends_the_same_wherever_its_steps_run(make: Callable[..., Run], contained: set[str]) -> None:
    run = make(contained)
    end = run.drive()
    assert end.status == "ok", end
    assert "total 14" in run.lines
    assert sorted(line for line in run.lines if line.startswith("item")) == [f"item {n}" for n in range(4)]
    assert run.left() == []
    assert run.outcomes("docker")


def test_a_flow_runs_on_an_engine_elsewhere(make: Callable[..., Run]) -> None:
    run = make({"work", "gather", "end"}, images.remote())
    assert run.drive().status == "ok"
    assert "total 14" in run.lines
    assert run.left() == []


def test_a_run_is_attached_to_while_its_containers_run(make: Callable[..., Run]) -> None:
    run = make(ALL)
    first = run.backend(run.plan)
    driver = Driver(run.plan, run.run, run.store, first)
    driver._take()
    while not any("item" in line for line in run.lines):
        driver._turn()
    first.close()  # as the end of the process would leave it: containers go on
    second = Driver(run.plan, run.run, run.store, run.backend(run.plan))
    assert second.run().status == "ok"
    assert run.left() == []


def test_a_run_without_launcher_is_cancelled_with_its_containers(make: Callable[..., Run]) -> None:
    run = make(ALL)
    first = run.backend(run.plan)
    driver = Driver(run.plan, run.run, run.store, first)
    driver._take()
    deadline = time.monotonic() + 60
    while not run.left() and time.monotonic() < deadline:
        driver._turn()
    first.close()
    second = Driver(run.plan, run.run, run.store, run.backend(run.plan))
    second.cancel()
    assert second.run().status == "cancelled"
    assert run.left() == []
