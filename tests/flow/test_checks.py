from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.flow import checks
from flowkiln.flow.errors import (
    BadEnds,
    BadStepName,
    BadStepSignature,
    BadTransition,
    Cycle,
    FlowError,
    InvalidFlow,
    SourceUnreadable,
    UnbalancedJoin,
    UnknownTarget,
    Unreachable,
)
from tests.flow.source import load


def only(tmp_path: Path, text: str) -> FlowError:
    found = checks.problems(load(tmp_path, text))
    assert len(found) == 1, [problem.message for problem in found]
    return found[0]


def flow(*steps: str) -> str:
    """A class of steps given as ``name: argument list: last statement``."""
    lines = ["class F(FlowSpec):"]
    for one in steps:
        name, arguments, last = one.split(":", 2)
        lines += ["    @step", f"    def {name}({arguments}):", f"        {last}"]
    return "\n".join(lines) + "\n"


START = "start:self:self.next(self.end)"
END = "end:self:pass"
A, B = "a:self:self.next(self.j)", "b:self:self.next(self.j)"
JOIN = "j:self, inputs:self.next(self.end)"
TO_B = "start:self:self.next(self.b)"


def test_a_sound_flow_has_no_problems(tmp_path: Path) -> None:
    kind = load(tmp_path, flow(START, END))
    assert checks.problems(kind) == []
    assert checks.require(kind).order() == ("start", "end")


CASES = {
    "taken name": (flow("start:self:self.next(self.cmd)", "cmd:self:self.next(self.end)", END), BadStepName, 6),
    "upper case": (flow("start:self:self.next(self.B)", "B:self:self.next(self.end)", END), BadStepName, 6),
    "underscore in front": (
        flow("start:self:self.next(self._b)", "_b:self:self.next(self.end)", END), BadStepName, 6,
    ),
    "no first step": (flow("begin:self:self.next(self.end)", END), BadEnds, None),
    "no last step": (flow("start:self:self.next(self.stop)", "stop:self:pass"), BadEnds, None),
    "leads to the first step": (flow(TO_B, "b:self:self.next(self.start)", END), BadEnds, 7),
    "last step goes on": (flow(START, "end:self:self.next(self.start)"), BadEnds, 7),
    "last step joins": (
        flow("start:self:self.next(self.a, self.b)", "a:self:self.next(self.end)", "b:self:self.next(self.end)",
             "end:self, inputs:pass"),
        BadEnds,
        12,
    ),
    "another name for self": (flow("start:this:this.next(this.end)", END), BadStepSignature, 3),
    "async def": (flow(START, END).replace("def start", "async def start"), BadStepSignature, 2),
    "no self": (flow(START, "end::pass"), BadStepSignature, 6),
    "three arguments": (flow(START, "end:self, inputs, more:pass"), BadStepSignature, 6),
    "star arguments": (flow(START, "end:self, *more:pass"), BadStepSignature, 6),
    "generator": (flow(START, "end:self:yield 1"), BadStepSignature, 6),
    "join that splits": (
        flow("start:self:self.next(self.a, self.b)", A, B,
             "j:self, inputs:self.next(self.c, self.d)", "c:self:self.next(self.end)", "d:self:self.next(self.end)",
             END),
        BadStepSignature,
        12,
    ),
    "join that opens a foreach": (
        flow("start:self:self.next(self.a, self.b)", A, B,
             "j:self, inputs:self.next(self.end, foreach='x')", END),
        BadStepSignature,
        12,
    ),
    "no self.next": (flow("start:self:pass", END), BadTransition, 3),
    "self.next is not last": (flow("start:self:self.next(self.end); x = 1", END), BadTransition, 4),
    "target is no step of self": (flow("start:self:self.next(end)", END), BadTransition, 4),
    "unknown keyword": (flow("start:self:self.next(self.end, wide=3)", END), BadTransition, 4),
    "foreach is no text": (flow("start:self:self.next(self.end, foreach=x)", END), BadTransition, 4),
    "foreach over two steps": (flow("start:self:self.next(self.a, self.end, foreach='x')", END), BadTransition, 4),
    "no target": (flow("start:self:self.next()", END), BadTransition, 4),
    "same target twice": (flow("start:self:self.next(self.end, self.end)", END), BadTransition, 4),
    "unknown target": (flow("start:self:self.next(self.edn)", END), UnknownTarget, 4),
    "cycle": (
        flow("start:self:self.next(self.a)", "a:self:self.next(self.b)", "b:self:self.next(self.a)", END),
        Cycle, 10,
    ),
    "orphan": (flow(START, "lost:self:self.next(self.end)", END), Unreachable, 6),
    "split left open": (
        flow("start:self:self.next(self.a, self.b)", "a:self:self.next(self.c)", "b:self:self.next(self.end)",
             "c:self:self.next(self.end)", END),
        UnbalancedJoin,
        None,
    ),
    "foreach left open": (
        flow("start:self:self.next(self.a, foreach='x')", "a:self:self.next(self.end)", END), UnbalancedJoin, 4,
    ),
    "join without split": (
        flow("start:self:self.next(self.j)", JOIN, END), UnbalancedJoin, 7,
    ),
    "join of some branches": (
        flow("start:self:self.next(self.a, self.b, self.c)", A, B,
             "c:self:self.next(self.k)", "j:self, inputs:self.next(self.k)", "k:self, inputs:self.next(self.end)",
             END),
        UnbalancedJoin,
        16,
    ),
    "foreach directly into a join": (
        flow("start:self:self.next(self.j, foreach='x')", JOIN, END),
        UnbalancedJoin,
        4,
    ),
    "split directly into a join": (
        flow("start:self:self.next(self.a, self.j)", A, JOIN,
             END),
        UnbalancedJoin,
        4,
    ),
    "two joins mixed": (
        flow("start:self:self.next(self.a, self.b)", "a:self:self.next(self.c, self.d)", B,
             "c:self:self.next(self.j)", "d:self:self.next(self.j)", JOIN, END),
        UnbalancedJoin,
        19,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_mistake_is_reported_once_with_its_line(tmp_path: Path, case: str) -> None:
    text, kind, line = CASES[case]
    problem = only(tmp_path, text)
    assert isinstance(problem, kind)
    assert problem.file is not None
    assert problem.file.startswith(str(tmp_path))
    if line is not None:
        assert problem.line == line + 1  # the line of the import comes first
    assert problem.hint


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    kind = load(tmp_path, flow("start:self:self.next(self.edn)", "Other:self:pass", END))
    with pytest.raises(InvalidFlow) as caught:
        checks.require(kind)
    assert [type(problem) for problem in caught.value.problems] == [BadStepName, BadTransition, UnknownTarget]
    assert "FLW002" in caught.value.message
    assert "Did you mean 'end'?" in caught.value.message
    assert all(f"{tmp_path}" in line for line in caught.value.message.splitlines() if "[FLW" in line)


def test_one_problem_is_raised_as_itself_with_its_place(tmp_path: Path) -> None:
    kind = load(tmp_path, flow("start:self:self.next(self.edn)", END))
    with pytest.raises(UnknownTarget, match=r"^step 'start' leads to 'edn', .* \(\S+\.py:5\)$"):
        checks.require(kind)


def test_a_flow_without_steps(tmp_path: Path) -> None:
    assert isinstance(only(tmp_path, "class F(FlowSpec):\n    pass\n"), BadEnds)


@pytest.mark.parametrize("which", ["start", "end"])
def test_two_marked_ends(tmp_path: Path, which: str) -> None:
    text = (
        flow("a:self:self.next(self.b)", "b:self:self.next(self.c)", "c:self:pass")
        .replace("    @step\n    def c", "    @step(end=True)\n    def c")
        .replace("    @step\n    def a", "    @step(start=True)\n    def a")
    )
    text = text.replace("    @step\n    def b", f"    @step({which}=True)\n    def b")
    found = checks.problems(load(tmp_path, text))
    assert any(isinstance(one, BadEnds) and f"several steps are marked with @step({which}=True)" in one.message
               for one in found)  # fmt: skip


def test_a_marked_start_beside_a_step_called_start(tmp_path: Path) -> None:
    text = flow("a:self:self.next(self.start)", "start:self:self.next(self.end)", END)
    text = text.replace("    @step\n    def a", "    @step(start=True)\n    def a")
    problem = only(tmp_path, text)
    assert isinstance(problem, BadEnds)
    assert "there is a step called 'start' too" in problem.message


def test_custom_ends_and_single_step_flows_are_sound(tmp_path: Path) -> None:
    text = flow("first:self:self.next(self.last)", "last:self:pass")
    text = text.replace("@step\n    def first", "@step(start=True)\n    def first")
    text = text.replace("@step\n    def last", "@step(end=True)\n    def last")
    assert checks.require(load(tmp_path, text)).order() == ("first", "last")
    alone = checks.require(load(tmp_path, flow("work:self:pass")))
    assert (alone.start, alone.end, alone.kind("work")) == ("work", "work", "end")


def test_a_step_without_source(tmp_path: Path) -> None:
    space: dict[str, type] = {}
    exec("from flowkiln import *\n" + flow(START, END), space)
    found = checks.problems(space["F"])
    assert {type(one) for one in found} == {SourceUnreadable}


def test_async_steps_are_refused(tmp_path: Path) -> None:
    text = flow(START, END).replace("def end", "async def end")
    found = checks.problems(load(tmp_path, text))
    assert any(isinstance(one, BadStepSignature) and "async def" in one.message for one in found)


def test_nested_splits_and_foreaches_are_sound(tmp_path: Path) -> None:
    text = flow(
        "start:self:self.next(self.a, self.b)",
        "a:self:self.next(self.each, foreach='x')",
        "each:self:self.next(self.c, self.d)",
        "c:self:self.next(self.inner)",
        "d:self:self.next(self.inner)",
        "inner:self, inputs:self.next(self.outer)",
        "outer:self, inputs:self.next(self.both)",
        "b:self:self.next(self.both)",
        "both:self, inputs:self.next(self.end)",
        END,
    )
    graph = checks.require(load(tmp_path, text))
    assert graph.closes("inner") == "each"
    assert graph.closes("outer") == "a"
    assert graph.closes("both") == "start"
    order = graph.order()
    assert all(order.index(parent) < order.index(name) for name in order for parent in graph.parents(name))
