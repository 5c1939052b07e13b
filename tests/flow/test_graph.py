from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowkiln import FlowSpec, step
from flowkiln.flow import graph, graphinfo
from flowkiln.flow.marks import steps_of
from tests.flow.source import load
from tests.flow.test_joins import Nested

NODES = '''
class F(FlowSpec):
    """A flow.

    More of it.
    """
    @retry(
        times=1,
    )
    @step(node_info={"k": 1})
    def start(
        self,
    ):
        """First."""
        if True:
            self.x = 1
        self.next(
            self.end
        )
    @step
    def end(self): pass
'''


def test_nodes_tell_where_they_stand(tmp_path: Path) -> None:
    found = graph.read(load(tmp_path, NODES))
    start = found.nodes["start"]
    assert found.doc == "A flow.\n\nMore of it."
    assert (start.doc, start.line, start.next_line, start.targets) == ("First.", 12, 18, ("end",))
    assert start.node_info == {"k": 1}
    assert [one.name for one in start.decorators] == ["retry"]
    assert found.nodes["end"].targets == ()


def shouting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


class Wrapped(FlowSpec):
    @step
    @shouting
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_wrappers_below_step_are_looked_through() -> None:
    found = graph.read(Wrapped)
    assert found.nodes["start"].targets == ("end",)
    assert found.nodes["start"].arguments == 1


def test_an_overridden_step_replaces_the_inherited_one(tmp_path: Path) -> None:
    text = (
        "class Base(FlowSpec):\n    @retry\n    @step\n    def start(self):\n        self.next(self.end)\n"
        "    @step\n    def end(self): pass\n    @step\n    def gone(self): pass\n"
        "class F(Base):\n    gone = None\n    @step\n    def start(self):\n        self.next(self.extra)\n"
        "    @step\n    def extra(self):\n        self.next(self.end)\n"
    )
    found = graph.read(load(tmp_path, text))
    assert list(found.nodes) == ["end", "start", "extra"]
    assert found.nodes["start"].decorators == ()
    assert found.order() == ("start", "extra", "end")


def two_steps(name: str, last: str, body: str = "pass") -> str:
    lines = [f"class {name}(FlowSpec):", "    @step", "    def start(self):", f"        self.next(self.{last})"]
    return "\n".join([*lines, "    @step", f"    def {last}(self):", f"        {body}", ""])


def test_reading_executes_no_step(tmp_path: Path) -> None:
    assert graph.read(load(tmp_path, two_steps("F", "end", "raise SystemExit"))).order() == ("start", "end")


def test_steps_of_the_same_name_in_several_flows_of_a_file(tmp_path: Path) -> None:
    found = graph.read(load(tmp_path, two_steps("G", "g") + two_steps("F", "f")))
    assert found.nodes["start"].targets == ("f",)


def test_the_graph_as_data() -> None:
    found = graph.read(Nested)
    info = graphinfo.describe(found, Nested)
    assert info["start_step"] == "start"
    assert info["end_step"] == "end"
    assert {name: one["type"] for name, one in info["steps"].items()} == {
        "start": "split-foreach",
        "level": "split-foreach",
        "work": "split-static",
        "fork_left": "linear",
        "fork_right": "linear",
        "unfork": "join",
        "collect": "join",
        "gather": "join",
        "end": "end",
    }
    assert info["steps"]["start"]["foreach_artifact"] == "outer"
    assert info["steps"]["work"]["matching_join"] == "unfork"
    assert info["graph_structure"] == [
        "start",
        [["level", [["work", [["fork_left"], ["fork_right"]], "unfork"]], "collect"]],
        "gather",
        "end",
    ]
    assert json.loads(json.dumps(info)) == info


def test_steps_know_their_names() -> None:
    assert {name: vars(function)["name"] for name, function in steps_of(Nested).items()} == {
        name: name for name in steps_of(Nested)
    }
