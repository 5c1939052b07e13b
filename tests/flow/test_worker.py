from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flowkiln import FlowSpec, IncludeFile, JSONType, Parameter, catch, current, environment, step
from flowkiln._base.json import compact
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.flow.errors import CaughtException, FlowNotFound, TimeoutException
from flowkiln.store import artifacts, keys
from flowkiln.store.artifacts import Artifact
from tests.flow.harness import RUN, Drive, drive
from tests.flow.source import load


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


class Mutating(FlowSpec):
    config = Parameter("config", type=JSONType, default='{"a": 1}')
    shared = ({"n": 0},)

    @step
    def start(self) -> None:
        self.listed = [1]
        self.mapping = {"k": list(range(1000))}
        self.next(self.middle)

    @step
    def middle(self) -> None:
        self.listed.append(2)
        self.first = self.mapping["k"][0]
        self.config["a"] = 2
        self.shared[0]["n"] = 5
        self.next(self.end)

    @step
    def end(self) -> None:
        self.result = (self.listed, self.config["a"], self.shared[0]["n"])


def test_a_loaded_artifact_is_stored_again_only_when_it_changed(tmp_path: Path) -> None:
    run = drive(Mutating, tmp_path)
    start, middle = (run.task(name).outcome.artifacts for name in ("start", "middle"))
    assert run.value("middle", "listed") == [1, 2]
    assert start["listed"] != middle["listed"]
    assert start["mapping"] == middle["mapping"]
    assert run.value("end", "result") == ([1, 2], 1, 0)


class Constants(FlowSpec):
    alpha = Parameter("alpha", default=1)
    factor = 10

    @step
    def start(self) -> None:
        errors = []
        for name in ("alpha", "factor"):
            try:
                setattr(self, name, 2)
            except AttributeError as error:
                errors.append(str(error))
        self.errors = errors
        self.both = (self.alpha, self.factor, type(self).factor)
        self.next(self.end)

    @step
    def end(self) -> None:
        del self.both
        try:
            del self.nothing
        except AttributeError:
            self.deleted = True


def test_parameters_and_constants_are_read_only(tmp_path: Path) -> None:
    run = drive(Constants, tmp_path)
    assert run.value("start", "errors") == ["Flow level attributes and Parameters are not modifiable"] * 2
    assert run.value("start", "both") == (1, 10, 10)


def test_deleting_an_inherited_attribute_removes_the_local_copy_only(tmp_path: Path) -> None:
    run = drive(Constants, tmp_path)
    assert run.value("end", "both") == (1, 10, 10)
    assert run.value("end", "deleted") is True


class Stuck(FlowSpec):
    lines: Any

    @step
    def start(self) -> None:
        self.before = 1
        self.deep = {"layers": [1, {"lock": threading.Lock()}]}
        self.after = 2
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_an_unpicklable_artifact_is_named_with_the_path_inside_it(tmp_path: Path, capfd: Any) -> None:
    run = Drive(Stuck, tmp_path).run()
    failure = run.last.outcome.failure
    assert failure is not None
    assert (failure.failure_class, failure.cause, failure.code) == ("user", "artifact", "STO005")
    assert "step 'start'" in failure.text
    assert "deep['layers'][1]['lock']" in failure.text
    assert run.value("start", "before") == 1
    assert run.value("start", "after") == 2
    assert failure.text in capfd.readouterr().err


class Raising(FlowSpec):
    @step
    def start(self) -> None:
        self.before = [1, 2]
        self.helper()
        self.next(self.end)

    def helper(self) -> None:
        raise ValueError("no good\nsecond line")

    @step
    def end(self) -> None:
        pass


def test_a_failed_step_keeps_what_it_had_set_and_shows_only_the_users_frames(tmp_path: Path, capfd: Any) -> None:
    run = Drive(Raising, tmp_path).run()
    outcome = run.last.outcome
    assert outcome.failure is not None
    assert (outcome.status, outcome.transition, outcome.caught) == ("failed", None, False)
    assert (outcome.failure.kind, outcome.failure.text) == ("ValueError", "no good")
    assert run.value("start", "before") == [1, 2]
    shown = capfd.readouterr().err
    assert shown == outcome.failure.trace
    assert "in helper" in shown
    assert "flow/worker.py" not in shown


def test_the_full_traceback_is_shown_on_request(tmp_path: Path, capfd: Any) -> None:
    Drive(Raising, tmp_path, info={"full_trace": True}).run()
    assert "flow/worker.py" in capfd.readouterr().err


class Leaving(FlowSpec):
    how = Parameter("how", default="exit")

    @step
    def start(self) -> None:
        self.x = 1
        if self.how == "exit":
            sys.exit(3)
        if self.how == "memory":
            raise MemoryError
        if self.how == "interrupt":
            raise KeyboardInterrupt
        if self.how == "timeout":
            raise TimeoutException("too long")
        if self.how == "base":
            raise GeneratorExit
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


@pytest.mark.parametrize(
    ("how", "failure_class", "cause"),
    [
        ("exit", "user", "exit"),
        ("memory", "user", "out-of-memory"),
        ("interrupt", "cancelled", "interrupted"),
        ("timeout", "timeout", "timeout"),
        ("base", "user", "exception"),
    ],
)
def test_each_way_to_fail_has_its_class(tmp_path: Path, how: str, failure_class: str, cause: str) -> None:
    outcome = Drive(Leaving, tmp_path, given={"how": how}).run().last.outcome
    assert outcome.failure is not None
    assert (outcome.failure.failure_class, outcome.failure.cause) == (failure_class, cause)
    assert outcome.failure.exit_code == (3 if how == "exit" else None)
    assert "x" in outcome.artifacts


class Caught(FlowSpec):
    bad = Parameter("bad", default=True)

    @catch(var="problem")
    @step
    def start(self) -> None:
        self.partial = 7
        if self.bad:
            raise RuntimeError("boom")
        self.next(self.end)

    @step
    def end(self) -> None:
        self.seen = None if self.problem is None else (self.problem.exception, self.problem.type)


def test_catch_turns_the_last_failure_into_a_success(tmp_path: Path, capfd: Any) -> None:
    run = drive_caught(tmp_path)
    outcome = run.task("start").outcome
    assert (outcome.status, outcome.caught) == ("ok", True)
    assert outcome.transition is not None
    assert outcome.transition.targets == ("end",)
    caught = run.value("start", "problem")
    assert isinstance(caught, CaughtException)
    assert "RuntimeError: boom" in caught.stacktrace
    assert run.value("end", "seen") == ("boom", "RuntimeError")
    assert run.value("end", "partial") == 7
    assert "RuntimeError: boom" in capfd.readouterr().err
    assert run.value("start", "_catch_exception") == caught
    assert "_catch_exception" not in run.task("end").outcome.artifacts


def drive_caught(tmp_path: Path, **given: str) -> Drive:
    run = Drive(Caught, tmp_path, given=given).run()
    assert run.last.step == "end"
    return run


def test_catch_stores_none_after_a_success(tmp_path: Path) -> None:
    run = drive_caught(tmp_path, bad="false")
    assert run.value("start", "problem") is None
    assert run.value("end", "seen") is None
    assert not run.task("start").outcome.caught


def test_catch_waits_for_the_last_attempt(tmp_path: Path) -> None:
    run = drive_caught(tmp_path)
    outcome = run.attempt("start", last=False)
    assert (outcome.status, outcome.caught) == ("failed", False)
    assert "problem" in outcome.artifacts


def test_catch_can_keep_quiet(tmp_path: Path, capfd: Any) -> None:
    Drive(Raising, tmp_path, withs=("catch:var=p,print_exception=false",)).run()
    assert capfd.readouterr().err == ""


def test_catch_handles_an_unpicklable_artifact(tmp_path: Path) -> None:
    run = Drive(Stuck, tmp_path, withs=("catch:var=problem",)).run()
    assert run.last.step == "end"
    assert run.task("start").outcome.caught
    assert "deep" not in run.task("end").outcome.artifacts
    assert "cannot be stored" in run.value("start", "problem").exception


def test_the_fallback_assignment_records_the_death_of_the_process(tmp_path: Path) -> None:
    run = drive_caught(tmp_path)
    key = keys.outcome(RUN, run.task("start").task, 1)
    died = Failure(failure_class="user", cause="signal", text="killed by SIGSEGV", signal=11)
    run.store.records.create(key, compact(Outcome(status="failed", failure=died).to_json()))
    outcome = run.attempt("start", attempt=2, fallback=True)
    assert (outcome.status, outcome.caught) == ("ok", True)
    assert outcome.failure is not None
    assert outcome.failure.kind == "flowkiln.flow.errors.FailureHandledByCatch"
    assert outcome.failure.text == "killed by SIGSEGV"
    document = outcome.artifacts["problem"]
    value = artifacts.load(Artifact.from_json(document), run.store.blobs)
    assert value.exception == "killed by SIGSEGV"
    assert "partial" not in outcome.artifacts


class Environ(FlowSpec):
    @environment(vars={"FLOW_TEST_VARIABLE": "here"})
    @step
    def start(self) -> None:
        self.found = os.environ["FLOW_TEST_VARIABLE"]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_environment_variables_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_TEST_VARIABLE", "before")
    assert drive(Environ, tmp_path).value("start", "found") == "here"


class Reading(FlowSpec):
    table = IncludeFile("table", default="data.txt")

    @step
    def start(self) -> None:
        try:
            self.table = "other"
        except AttributeError:
            self.refused = True
        self.next(self.end)

    @step
    def end(self) -> None:
        self.size = len(self.table)


def test_an_included_file_is_stored_once_and_loaded_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("x" * 9000)
    run = drive(Reading, tmp_path)
    assert run.value("end", "size") == 9000
    assert run.value("start", "refused") is True
    tables = [run.task(name).outcome.artifacts["table"] for name in ("start", "end")]
    assert tables[0] == tables[1]


class Facts(FlowSpec):
    alpha = Parameter("alpha", default=1)

    @step
    def start(self) -> None:
        self.facts = {
            name: current.get(name)
            for name in ("flow_name", "run_id", "step_name", "task_id", "retry_count", "pathspec", "origin_run_id")
        }
        self.more = (
            current.is_running_flow,
            sorted(current.tags),
            current.parameter_names,
            current.username,
            current.namespace,
            "step_name" in current,
            "card" in current,
            current.get("card", 5),
            Path(current.tempdir).is_dir(),
        )
        self.structure = current.graph["graph_structure"]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_current_tells_about_the_task(tmp_path: Path) -> None:
    run = drive(Facts, tmp_path, info={"tags": ["b", "a"], "user": "ann"})
    assert run.value("start", "facts") == {
        "flow_name": "Facts",
        "run_id": RUN,
        "step_name": "start",
        "task_id": "1",
        "retry_count": 0,
        "pathspec": f"Facts/{RUN}/start/1",
        "origin_run_id": None,
    }
    assert run.value("start", "more") == (True, ["a", "b"], ["alpha"], "ann", "user:ann", True, False, 5, True)
    assert run.value("start", "structure") == ["start", "end"]
    assert not current.is_running_flow


class Missing(FlowSpec):
    @step
    def start(self) -> None:
        self.next(self.a, self.b)

    @step
    def a(self) -> None:
        self.x = 1
        self.next(self.join)

    @step
    def b(self) -> None:
        self.x = 2
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        self.y = self.x


def test_an_attribute_that_is_not_there_names_flow_and_step(tmp_path: Path) -> None:
    outcome = Drive(Missing, tmp_path).run().last.outcome
    assert outcome.failure is not None
    assert outcome.failure.text.startswith("Flow Missing has no attribute 'x' (step 'end')")


class Silent(FlowSpec):
    @step
    def start(self) -> None:
        return
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_a_step_that_returns_before_self_next_says_so(tmp_path: Path, capfd: Any) -> None:
    outcome = Drive(Silent, tmp_path).run().last.outcome
    assert outcome.failure is not None
    assert (outcome.failure.cause, outcome.failure.code) == ("transition", "FLW040")
    assert "hint: Make self.next its last statement." in capfd.readouterr().err
    assert "File" not in (outcome.failure.trace or "")


class Alone(FlowSpec):
    @step
    def work(self) -> None:
        self.x = 1


def test_a_single_step_flow(tmp_path: Path) -> None:
    assert drive(Alone, tmp_path).value("work", "x") == 1


class Child(Linear):
    beta = Parameter("beta", default=1)

    @step
    def middle(self) -> None:
        self.x = 100
        self.next(self.end)


def test_a_flow_inherits_steps_and_parameters(tmp_path: Path) -> None:
    run = drive(Child, tmp_path)
    assert run.value("end", "total") == 100.5
    assert run.value("end", "beta") == 1


def test_another_flow_of_the_file_is_found_by_name(tmp_path: Path) -> None:
    run = drive(Alone, tmp_path)
    run.flow = Linear
    assert run.attempt("work").ok
    document = {**run.info["plan"], "flow": "Nowhere"}
    run.info = {"plan": document}
    with pytest.raises(FlowNotFound, match="Nowhere"):
        run.attempt("work")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("self.next = 5", "self.next means something for flows"),
        ("self.input = 5", "self.input means something for flows"),
        ("self.name = 'a'", "self.name means something for flows"),
        ("setattr(self, 'a b', 1)", "'a b' cannot be the name"),
        ("setattr(self, '', 1)", "'' cannot be the name"),
        ("del self.p", "not modifiable"),
    ],
)
def test_an_attribute_that_cannot_be_set_is_named_where_it_is_set(
    tmp_path: Path, statement: str, said: str
) -> None:
    text = f"""
        class F(FlowSpec):
            p = Parameter("p", default=1)
            @step
            def start(self):
                {statement}
    """
    failure = Drive(load(tmp_path, text), tmp_path).run().last.outcome.failure
    assert failure is not None
    assert said in failure.text
