from __future__ import annotations

from pathlib import Path
from typing import Any

from flowkiln import FlowSpec, Parameter, current, step
from tests.flow.harness import drive


class Linear(FlowSpec):
    alpha = Parameter("alpha", default=0.5)
    labels = ("a", "b")

    @step
    def start(self) -> None:
        self.x = 1
        self.kept = {"big": list(range(2000))}
        self._private = "p"
        self.__dict__["__dunder"] = 1
        self.next(self.middle)

    @step
    def middle(self) -> None:
        self.x += 1
        self.seen = current.parameter_names
        self.next(self.end)

    @step
    def end(self) -> None:
        self.total = self.x + self.alpha


def test_a_linear_flow_hands_its_attributes_on(tmp_path: Path) -> None:
    run = drive(Linear, tmp_path, given={"alpha": "2.5"})
    assert [one.step for one in run.done] == ["start", "middle", "end"]
    assert run.value("end", "total") == 4.5
    assert run.value("end", "seen") == ["alpha"]
    assert run.value("end", "labels") == ("a", "b")


def test_private_attributes_are_stored_and_dunder_ones_are_not(tmp_path: Path) -> None:
    run = drive(Linear, tmp_path)
    assert run.value("end", "_private") == "p"
    assert not [name for name in run.last.outcome.artifacts if name.startswith("__")]
    assert "_flowkiln" not in run.last.outcome.artifacts


def test_an_untouched_artifact_passes_by_reference(tmp_path: Path) -> None:
    run = drive(Linear, tmp_path)
    tables = [run.task(name).outcome.artifacts for name in ("start", "middle", "end")]
    assert tables[0]["kept"] == tables[1]["kept"] == tables[2]["kept"]
    assert "sha256" in tables[0]["kept"]


class Foreach(FlowSpec):
    @step
    def start(self) -> None:
        self.items = ["x", "y", "z"]
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        self.out = f"{self.input}{self.index}"
        self.stack = self.foreach_stack()
        self.text = str(self)
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.outs = [one.out for one in inputs]
        self.picked = (inputs[1].out, inputs[-1].input, inputs[0].index, len(inputs))
        self.next(self.end)

    @step
    def end(self) -> None:
        self.here = (self.index, self.input, self.foreach_stack())


def test_a_foreach_runs_once_per_item_and_joins_in_order(tmp_path: Path) -> None:
    run = drive(Foreach, tmp_path)
    assert run.value("join", "outs") == ["x0", "y1", "z2"]
    assert run.value("join", "picked") == ("y1", "z", 0, 3)
    assert run.value("work", "stack", 1) == [(1, 3, "y")]
    assert run.value("work", "text", 1) == "<flow Foreach step work[1] (input: y)>"
    assert run.value("end", "here") == (None, None, [])
    assert "items" not in run.task("join").outcome.artifacts
    assert "_foreach_stack" not in run.task("join").outcome.artifacts
