"""Drives a flow inside the test's own process: each task is one call of ``worker.perform`` on a real store."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkiln._base.json import JSONObject, compact
from flowkiln.executor.backend import Assignment
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.plan import Prefix, RunPlan
from flowkiln.flow import checks, worker
from flowkiln.flow import graph as graphs
from flowkiln.flow.attributes import opening
from flowkiln.flow.decospecs import from_spec
from flowkiln.flow.parameters import evaluate
from flowkiln.flow.planning import Options, plan
from flowkiln.flow.spec import FlowSpec
from flowkiln.store import artifacts, keys, packs
from flowkiln.store.artifacts import Artifact
from flowkiln.store.folder import FolderStore

RUN = "1700000000000000"


@dataclass
class Done:
    """A performed task."""

    task: int
    attempt: int
    step: str
    outcome: Outcome
    indices: tuple[int, ...]
    way: tuple[int, ...]


@dataclass
class Ready:
    step: str
    parent: tuple[int, int] | None
    indices: tuple[int, ...] = ()
    frames: tuple[tuple[int, int, int], ...] = ()
    way: tuple[int, ...] = ()
    inputs: list[Done] = field(default_factory=list)


class Drive:
    """One run of ``flow``. Stops at the first failed task; ``done`` holds all tasks in order."""

    def __init__(
        self,
        flow: type[FlowSpec],
        root: Path,
        *,
        given: dict[str, str] | None = None,
        withs: tuple[str, ...] = (),
        max_splits: int = 1000,
        info: JSONObject | None = None,
        checked: bool = True,
    ) -> None:
        self.flow = flow
        self.store = FolderStore(root / "store")
        decorators = [from_spec(text) for text in withs]
        graph = checks.require(flow, decorators) if checked else graphs.read(flow, decorators)
        here = Prefix(python=sys.executable, version="3.11.0", platform="linux/amd64")
        options = Options(user_folder=str(root), max_workers=1, max_splits=max_splits)
        self.plan: RunPlan = plan(
            graph, dict.fromkeys(graph.nodes, here), script="flow.py", code="sha256:0", options=options
        )
        self.info: JSONObject = {"plan": self.plan.to_json(), **(info or {})}
        self.done: list[Done] = []
        self._assignments: dict[str, Any] = {}
        self._frames: dict[int, tuple[tuple[int, int, int], ...]] = {}
        self._next = 1
        table = opening(flow, evaluate(flow, given or {}), self.store.blobs)
        self._record(0, 0, Outcome(status="ok", artifacts=table))

    def run(self, steps: int | None = None) -> Drive:
        """Performs tasks until the last one, a failed one, or ``steps`` of them."""
        waiting: dict[tuple[str, tuple[int, ...]], list[Done]] = {}
        ready = deque([Ready(self.plan.steps[0].name, (0, 0))])
        while ready:
            done = self._perform(ready.popleft())
            if not done.outcome.ok or len(self.done) == steps:
                break
            for one in self._following(done):
                if self.plan.step(one.step).kind != "join":
                    ready.append(one)
                    continue
                here = waiting.setdefault((one.step, one.way[:-1]), [])
                here.append(done)
                if len(here) == self._expected(one.step, here):
                    ready.append(self._joined(one, here))
        return self

    def task(self, step: str, *indices: int) -> Done:
        found = [one for one in self.done if one.step == step and one.indices == indices]
        return found[-1]

    def value(self, step: str, name: str, *indices: int) -> Any:
        document = self.task(step, *indices).outcome.artifacts[name]
        return artifacts.load(Artifact.from_json(document), self.store.blobs, name=name)

    @property
    def last(self) -> Done:
        return self.done[-1]

    def attempt(self, step: str, **changes: Any) -> Outcome:
        """One more attempt of the task of ``step`` that was performed last, with another assignment."""
        assignment = Assignment(**{**self._assignments[step], **changes})
        return worker.perform(self.flow, assignment, self.store, self.info)

    def _perform(self, one: Ready) -> Done:
        number = self._next
        self._next += 1
        inputs = None
        if one.inputs:
            inputs = keys.inputs(RUN, number)
            self._write_inputs(inputs, one.inputs)
        values: dict[str, Any] = {
            "run": RUN,
            "flow": self.flow.__name__,
            "step": one.step,
            "task": number,
            "attempt": 0,
            "indices": one.indices,
            "frames": one.frames,
            "parent": one.parent,
            "inputs": inputs,
        }
        self._assignments[one.step] = values
        outcome = worker.perform(self.flow, Assignment(**values), self.store, self.info)
        outcome = Outcome.from_json(outcome.to_json())
        self._record(number, 0, outcome)
        self.done.append(Done(number, 0, one.step, outcome, one.indices, one.way))
        self._frames[number] = one.frames
        return self.done[-1]

    def _following(self, done: Done) -> list[Ready]:
        step, transition = self.plan.step(done.step), done.outcome.transition
        if transition is None:
            return []
        frames = self._frames[done.task]
        parent = (done.task, done.attempt)
        if step.kind == "foreach":
            width = transition.width or 0
            frame = (*frames, (done.task, done.attempt, width))
            target = transition.targets[0]
            return [Ready(target, parent, (*done.indices, i), frame, (*done.way, i)) for i in range(width)]
        many = step.kind == "split"
        return [
            Ready(target, parent, done.indices, frames, (*done.way, position) if many else done.way)
            for position, target in enumerate(transition.targets)
        ]

    def _expected(self, join: str, inputs: list[Done]) -> int:
        opener = self.plan.step(self.plan.step(join).closes or "")
        return self._frames[inputs[0].task][-1][2] if opener.kind == "foreach" else len(opener.targets)

    def _joined(self, one: Ready, inputs: list[Done]) -> Ready:
        inputs = sorted(inputs, key=lambda done: done.way)
        foreach = self.plan.step(self.plan.step(one.step).closes or "").kind == "foreach"
        cut = slice(None, -1) if foreach else slice(None)
        return Ready(one.step, None, one.indices[cut], one.frames[cut], one.way[:-1], inputs)

    def _write_inputs(self, key: str, inputs: list[Done]) -> None:
        pack = packs.write((compact(one.outcome.to_json()) for one in inputs), self.store.blobs)
        steps: list[list[Any]] = []
        for position, one in enumerate(inputs):
            if steps and steps[-1][0] == one.step:
                steps[-1][2] += 1
            else:
                steps.append([one.step, position, 1])
        document = {"pack": pack.to_json(), "steps": steps, "tasks": [one.task for one in inputs]}
        self.store.records.create(key, compact(document))

    def _record(self, task: int, attempt: int, outcome: Outcome) -> None:
        assert self.store.records.create(keys.outcome(RUN, task, attempt), compact(outcome.to_json()))


def drive(flow: type[FlowSpec], root: Path, **options: Any) -> Drive:
    """A run of ``flow`` that has ended well."""
    run = Drive(flow, root, **options).run()
    assert run.last.outcome.failure is None, run.last.outcome.failure
    return run
