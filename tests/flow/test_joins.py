from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from flowkiln import FlowSpec, Parameter, step
from flowkiln.flow.errors import JoinMisuse, MissingInMergeArtifactsException, UnhandledInMergeArtifactsException
from tests.flow.harness import Drive, drive


class Split(FlowSpec):
    """Both branches set what a join may find; each test overrides ``join``."""

    alpha = Parameter("alpha", default=3)
    factor = 2

    @step
    def start(self) -> None:
        self.common = list(range(3000))
        self.next(self.a, self.b)

    @step
    def a(self) -> None:
        self.x = 1
        self.only_a = "a"
        self.differs = "from a"
        self._private = 5
        self.next(self.join)

    @step
    def b(self) -> None:
        self.x = 1
        self.differs = "from b"
        self._private = 5
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class Looking(Split):
    @step
    def join(self, inputs: Any) -> None:
        self.named = (inputs.a.only_a, inputs.b.differs, len(inputs))
        self.listed = [one.differs for one in inputs]
        self.indexed = (inputs[0].x, inputs[-1].differs, [one.x for one in inputs[:2]])
        self.parameters = (self.alpha, inputs.a.alpha, self.factor, inputs.a.factor)
        self.same = inputs[0] is inputs.a
        self.missing = [hasattr(inputs.b, "only_a"), hasattr(self, "x")]
        self.inside = (inputs.a.index, inputs.a.input, str(inputs.a))
        self.next(self.end)


def test_inputs_are_reached_by_name_position_and_iteration(tmp_path: Path) -> None:
    run = drive(Looking, tmp_path)
    assert run.value("join", "named") == ("a", "from b", 2)
    assert run.value("join", "listed") == ["from a", "from b"]
    assert run.value("join", "indexed") == (1, "from b", [1, 1])
    assert run.value("join", "parameters") == (3, 3, 2, 2)
    assert run.value("join", "same") is True
    assert run.value("join", "missing") == [False, False]
    assert run.value("join", "inside") == (None, None, "<flow Looking step a>")


def test_a_join_inherits_parameters_and_constants_only(tmp_path: Path) -> None:
    table = drive(Looking, tmp_path).task("join").outcome.artifacts
    assert {"alpha", "factor"} <= set(table)
    assert not {"x", "common", "only_a"} & set(table)


class Wrong(Split):
    @step
    def join(self, inputs: Any) -> None:
        self.errors = []
        for attempt in (
            lambda: inputs[2],
            lambda: inputs.c,
            lambda: setattr(inputs.a, "x", 5),
            lambda: inputs.a.nothing,
            lambda: pickle.dumps(inputs),
            lambda: pickle.dumps(inputs.a),
        ):
            try:
                attempt()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
        self.next(self.end)


def test_wrong_use_of_inputs_is_explained(tmp_path: Path) -> None:
    errors = drive(Wrong, tmp_path).value("join", "errors")
    assert errors[0] == "IndexError: this join has 2 inputs; there is no inputs[2]"
    assert errors[1] == "AttributeError: this join has no input from a step 'c'; its inputs come from a, b"
    assert "inputs of a join are read-only: set `self.x` instead" in errors[2]
    assert "no attribute 'nothing' (input 0 of the join, from step 'a')" in errors[3]
    assert "cannot be stored" in errors[4]
    assert "cannot be stored" in errors[5]


def merging(*arguments: str, before: str = "") -> type[FlowSpec]:
    """The flow ``Split`` whose join runs ``before`` and merges with ``arguments``."""

    class Merging(Split):
        @step
        def join(self, inputs: Any) -> None:
            exec(before)
            options: dict[str, Any] = eval(f"dict({', '.join(arguments)})")
            self.merge_artifacts(inputs, **options)
            self.next(self.end)

    return Merging


def test_merging_takes_what_inputs_agree_on_by_reference(tmp_path: Path) -> None:
    run = drive(merging("exclude=['differs']"), tmp_path)
    table = run.task("join").outcome.artifacts
    assert {"x", "only_a", "common", "_private"} <= set(table)
    assert "differs" not in table
    assert table["common"] == run.task("start").outcome.artifacts["common"]
    assert run.value("end", "x") == 1


def test_what_is_set_already_is_left_alone(tmp_path: Path) -> None:
    run = drive(merging(before="self.differs = 'mine'"), tmp_path)
    assert run.value("join", "differs") == "mine"


def test_merging_can_be_limited(tmp_path: Path) -> None:
    run = drive(merging("include=['x', 'only_a']"), tmp_path)
    assert {"x", "only_a"} <= set(run.task("join").outcome.artifacts)
    assert not {"common", "differs", "_private"} & set(run.task("join").outcome.artifacts)


def failed(run: Drive, kind: type[Exception]) -> str:
    failure = run.last.outcome.failure
    assert failure is not None
    assert failure.kind == f"{kind.__module__}.{kind.__qualname__}"
    return failure.trace or ""


def test_a_conflict_names_both_producers_and_merges_nothing(tmp_path: Path) -> None:
    run = Drive(merging(), tmp_path).run()
    text = failed(run, UnhandledInMergeArtifactsException)
    assert "step 'join': inputs of this join differ in differs" in text
    assert "differs: from step a (str, Python 3." in text
    assert "and from step b (str, Python 3." in text
    assert "x" not in run.last.outcome.artifacts


def test_names_that_no_input_has(tmp_path: Path) -> None:
    text = failed(Drive(merging("include=['x', 'y', 'z']"), tmp_path).run(), MissingInMergeArtifactsException)
    assert "no input has y, z, named in include" in text


def test_the_errors_carry_the_names(tmp_path: Path) -> None:
    error = UnhandledInMergeArtifactsException("m", ("a", "b"))
    assert error.artifact_names == ["a", "b"]
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.artifact_names) == ("m", ["a", "b"])


def test_include_and_exclude_exclude_each_other(tmp_path: Path) -> None:
    failed(Drive(merging("include=['x']", "exclude=['y']"), tmp_path).run(), JoinMisuse)


class MergingEarly(Split):
    @step
    def a(self) -> None:
        self.merge_artifacts([])
        self.next(self.join)


def test_merging_outside_of_a_join(tmp_path: Path) -> None:
    text = failed(Drive(MergingEarly, tmp_path).run(), JoinMisuse)
    assert "merge_artifacts is for joins" in text


class MergingOthers(Split):
    @step
    def join(self, inputs: Any) -> None:
        self.merge_artifacts([self])
        self.next(self.end)


def test_merging_something_else_than_inputs(tmp_path: Path) -> None:
    failed(Drive(MergingOthers, tmp_path).run(), JoinMisuse)


class Nested(FlowSpec):
    @step
    def start(self) -> None:
        self.outer = ["a", "b"]
        self.next(self.level, foreach="outer")

    @step
    def level(self) -> None:
        self.inner = [1, 2, 3]
        self.next(self.work, foreach="inner")

    @step
    def work(self) -> None:
        self.out = [value for _, _, value in self.foreach_stack()]
        self.vars = [frame.var for frame in self._foreach_stack]
        self.next(self.fork_left, self.fork_right)

    @step
    def fork_left(self) -> None:
        self.side = "left"
        self.next(self.unfork)

    @step
    def fork_right(self) -> None:
        self.side = "right"
        self.next(self.unfork)

    @step
    def unfork(self, inputs: Any) -> None:
        self.merge_artifacts(inputs, exclude=["side"])
        self.sides = (inputs.fork_left.side, inputs.fork_right.side, inputs.fork_left.input, self.input)
        self.next(self.collect)

    @step
    def collect(self, inputs: Any) -> None:
        self.outs = [one.out for one in inputs]
        self.here = (self.index, self.input, [one.index for one in inputs], [one.input for one in inputs])
        self.last_sides = inputs[2].sides
        self.merge_artifacts(inputs, include=["vars"])
        self.next(self.gather)

    @step
    def gather(self, inputs: Any) -> None:
        self.all = [one.outs for one in inputs]
        self.heres = [one.here for one in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_nested_foreaches_with_a_split_inside(tmp_path: Path) -> None:
    run = drive(Nested, tmp_path)
    assert run.value("end", "all") == [[["a", n] for n in (1, 2, 3)], [["b", n] for n in (1, 2, 3)]]
    assert run.value("end", "heres")[1] == (1, "b", [0, 1, 2], [1, 2, 3])
    assert run.value("collect", "last_sides", 1) == ("left", "right", 3, 3)
    assert run.value("collect", "vars", 0) == ["outer", "inner"]


class Subset(Nested):
    @step
    def gather(self, inputs: Any) -> None:
        self.merge_artifacts([inputs[1]], include=["outs"])
        self.named = [one.index for one in inputs]
        try:
            _ = inputs.collect
        except AttributeError as error:
            self.message = str(error)
        self.next(self.end)


def test_any_subset_of_the_inputs_can_be_merged(tmp_path: Path) -> None:
    run = drive(Subset, tmp_path)
    assert run.value("end", "outs") == [["b", n] for n in (1, 2, 3)]
    assert run.value("end", "message").startswith("2 inputs come from step 'collect'")


class Foreign(FlowSpec):
    """K03: a join whose environment lacks what its inputs are made of."""

    @step
    def start(self) -> None:
        self.next(self.a, self.b)

    @step
    def a(self) -> None:
        self.array = __import__("numpy").arange(5000)
        self.next(self.join)

    @step
    def b(self) -> None:
        self.array = __import__("numpy").arange(5000)
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flowkiln.store.artifacts.load", None)
            patch.setattr("flowkiln.store.artifacts.decode", None)
            self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_k03_merging_never_unpickles(tmp_path: Path) -> None:
    run = drive(Foreign, tmp_path)
    assert run.task("end").outcome.artifacts["array"] == run.task("a").outcome.artifacts["array"]


class Wide(FlowSpec):
    @step
    def start(self) -> None:
        self.items = range(1500)
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        self.x = self.input
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.total = sum(one.x for one in inputs)
        self.fresh = inputs[1] is not inputs[1]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@pytest.mark.slow
def test_inputs_of_a_wide_foreach_are_not_kept_in_memory(tmp_path: Path) -> None:
    run = drive(Wide, tmp_path, max_splits=2000)
    assert run.value("end", "total") == sum(range(1500))
    assert run.value("end", "fresh") is True
