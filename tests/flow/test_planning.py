from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flowkiln.executor.plan import Prefix, RunPlan
from flowkiln.flow import checks
from flowkiln.flow.decospecs import from_spec
from flowkiln.flow.planning import Options, plan
from flowkiln.flow.task import foreaches_around
from tests.flow.source import load

FLOW = """
class F(FlowSpec):
    @retry(times=2, minutes_between_retries=0.5)
    @timeout(seconds=1, minutes=2, hours=1)
    @environment(vars={"B": "2", "A": "1"})
    @resources(cpu=2, memory=100)
    @step
    def start(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.work, foreach="items")

    @catch(var="problem", print_exception=False)
    @step
    def work(self):
        self.next(self.collect)

    @step
    def collect(self, inputs):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def made(tmp_path: Path, *withs: str, local: bool = True) -> RunPlan:
    graph = checks.require(load(tmp_path, FLOW), [from_spec(text) for text in withs])
    prefixes = {
        name: Prefix(python=sys.executable, version="3.11.0", platform="linux/amd64", name=name)
        for name in graph.nodes
    }
    options = Options(user_folder="/u", max_workers=4, max_splits=100, tags=("t",), local=local)
    return plan(graph, prefixes, script="flow.py", code="c", options=options)


def test_the_plan_says_what_the_flow_says(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert [step.name for step in found.steps] == ["start", "left", "right", "work", "collect", "join", "end"]
    assert [step.kind for step in found.steps] == ["split", "foreach", "linear", "linear", "join", "join", "end"]
    start, work = found.step("start"), found.step("work")
    assert (start.retries, start.retry_delay, start.timeout) == (2, 0.0, 3721.0)
    assert start.environ == (("A", "1"), ("B", "2"))
    assert start.resources == (("cpu", 2.0), ("memory", 100.0))
    assert (work.catch, work.catch_var, work.catch_print) == (True, "problem", False)
    assert (start.catch, work.retries, work.timeout) == (False, 0, None)
    assert found.step("collect").closes == "left"
    assert found.step("join").closes == "start"
    assert found.step("join").parents == ("collect", "right")
    assert found.step("left").foreach == "items"
    assert found.step("work").prefix.name == "work"
    assert RunPlan.from_json(found.to_json()) == found


def test_retries_wait_on_remote_backends_only(tmp_path: Path) -> None:
    assert made(tmp_path, local=False).step("start").retry_delay == 30.0


def test_decorators_of_the_command_line_join_where_there_are_none(tmp_path: Path) -> None:
    found = made(tmp_path, "retry:times=5", 'environment:vars={"C": "3"}')
    assert found.step("start").retries == 2
    assert found.step("work").retries == 5
    assert found.step("start").environ == (("A", "1"), ("B", "2"))
    assert found.step("end").environ == (("C", "3"),)


def test_the_foreaches_around_each_step(tmp_path: Path) -> None:
    found = made(tmp_path)
    around = {step.name: foreaches_around(found, step.name) for step in found.steps}
    assert around == {**dict.fromkeys(around, ()), "work": ("left",)}


@given(st.lists(st.sampled_from(["linear", "foreach", "split"]), max_size=4), st.integers(0, 3))
def test_nested_levels_close_in_order(tmp_path_factory: object, levels: list[str], padding: int) -> None:
    """Opens ``levels`` one inside the other and closes them again: each join closes its own opener."""
    lines = ["class F(FlowSpec):"]

    def add(name: str, body: str, arguments: str = "self") -> None:
        lines.extend(["    @step", f"    def {name}({arguments}):", f"        {body}"])

    names = [f"open{n}" for n in range(len(levels))]
    follow = [*names, "middle"]
    add("start", f"self.next(self.{follow[0]})")
    for position, level in enumerate(levels):
        after = follow[position + 1]
        if level == "linear":
            add(names[position], f"self.next(self.{after})")
        elif level == "foreach":
            add(names[position], f"self.next(self.{after}, foreach='x')")
        else:
            add(names[position], f"self.next(self.{after}, self.side{position})")
            add(f"side{position}", f"self.next(self.join{position})")
    closing = [f"join{n}" for n in reversed(range(len(levels))) if levels[n] != "linear"]
    ends = [*closing, "end"]
    add("middle", f"self.next(self.{'pad0' if padding else ends[0]})")
    for number in range(padding):
        add(f"pad{number}", f"self.next(self.{f'pad{number + 1}' if number + 1 < padding else ends[0]})")
    for position, name in enumerate(closing):
        add(name, f"self.next(self.{ends[position + 1]})", "self, inputs")
    add("end", "pass")
    folder: Path = tmp_path_factory.mktemp("nested")  # type: ignore[attr-defined]
    graph = checks.require(load(folder, "\n".join(lines) + "\n"))
    assert set(graph.order()) == set(graph.nodes)
    assert {name: graph.closes(name) for name in closing} == {name: f"open{name[4:]}" for name in closing}
    foreaches = tuple(name for name, level in zip(names, levels, strict=True) if level == "foreach")
    prefixes = dict.fromkeys(graph.nodes, Prefix(python="p", version="3.11.0", platform="linux/amd64"))
    options = Options(user_folder="/u", max_workers=1, max_splits=1)
    found = plan(graph, prefixes, script="f", code="c", options=options)
    assert foreaches_around(found, "middle") == foreaches
    assert foreaches_around(found, "end") == ()
