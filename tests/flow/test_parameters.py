from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln import FlowSpec, JSONType, Parameter, step
from flowkiln.cli.flow_run import run
from flowkiln.flow import checks
from flowkiln.flow.errors import BadParameter, BadParameterValue, MissingParameter, UnknownParameter
from flowkiln.flow.parameters import RESERVED, ParameterContext, evaluate, parameters_of
from tests.flow.source import load


def seen(context: ParameterContext) -> str:
    return f"{context.flow_name}/{context.parameter_name}"


class Many(FlowSpec):
    text = Parameter("text", default="t")
    whole = Parameter("whole", default=3)
    real = Parameter("real", type=float, default=1)
    flag = Parameter("flag", type=bool, default=False)
    tree = Parameter("tree", type=JSONType, default='{"a": [1]}')
    plain = Parameter("plain", default={"b": 2})
    listed = Parameter("some-list", default="a,b", separator=",")
    unset = Parameter("unset", type=int)
    computed = Parameter("computed", default=seen)
    needed = Parameter("needed", required=True, help="It is needed.")
    not_needed = Parameter("not_needed", required=True, default="x")

    @step
    def start(self) -> None:
        pass


def test_defaults_of_every_type() -> None:
    assert evaluate(Many, {"needed": "n"}) == {
        "text": "t",
        "whole": 3,
        "real": 1.0,
        "flag": False,
        "tree": {"a": [1]},
        "plain": {"b": 2},
        "listed": ["a", "b"],
        "unset": None,
        "computed": "Many/computed",
        "needed": "n",
        "not_needed": "x",
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("text", "", ""),
        ("whole", "-7", -7),
        ("real", "1e3", 1000.0),
        ("flag", "True", True),
        ("flag", "no", False),
        ("flag", "1", True),
        ("tree", "[1, null]", [1, None]),
        ("plain", '{"x": true}', {"x": True}),
        ("some-list", "x,,y", ["x", "", "y"]),
        ("some_list", "one", ["one"]),
        ("Some-List", "", []),
        ("computed", "given", "given"),
        ("unset", "5", 5),
    ],
)
def test_texts_are_converted(name: str, text: str, expected: Any) -> None:
    values = evaluate(Many, {"needed": "n", name: text})
    attribute = "listed" if "list" in name.lower() else name
    assert values[attribute] == expected
    assert type(values[attribute]) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("whole", "1.5", "parameter 'whole': '1.5' is not a whole number"),
        ("real", "much", "parameter 'real': 'much' is not a number"),
        ("flag", "maybe", "parameter 'flag': 'maybe' is not true or false"),
        ("tree", "{", "parameter 'tree': '{' is not JSON"),
        ("tree", "x" * 500, "..."),
        ("tree", "[" * 100_000, "nested too deeply"),
        ("text", "\udcff", "parameter 'text': '\\udcff' is not text in UTF-8"),
    ],
)
def test_bad_values_name_parameter_and_type(name: str, text: str, said: str) -> None:
    with pytest.raises(BadParameterValue) as caught:
        evaluate(Many, {"needed": "n", name: text})
    assert said in caught.value.message
    assert len(caught.value.message) < 300


def test_a_missing_parameter_says_how_to_give_it() -> None:
    with pytest.raises(MissingParameter, match="'needed' is required") as caught:
        evaluate(Many, {})
    assert caught.value.hint == "Give it with --needed STR."


def test_an_unknown_parameter_lists_those_there_are() -> None:
    with pytest.raises(UnknownParameter, match="flow Many has no parameter 'txt'") as caught:
        evaluate(Many, {"needed": "n", "txt": "x"})
    assert "--text" in (caught.value.hint or "")


def test_several_complaints_come_together() -> None:
    with pytest.raises(BadParameterValue) as caught:
        evaluate(Many, {"whole": "x", "real": "y"})
    assert len(caught.value.message.splitlines()) == 3


def failing(context: ParameterContext) -> str:
    raise OSError("no network")


def number(context: ParameterContext) -> int:
    return 5


def test_a_callable_default_that_fails_or_returns_another_type() -> None:
    class Calling(FlowSpec):
        bad = Parameter("bad", default=failing)
        typed = Parameter("typed", type=str, default=number)

    with pytest.raises(BadParameterValue) as caught:
        evaluate(Calling, {})
    assert "parameter 'bad': its default raised OSError: no network" in caught.value.message
    assert "parameter 'typed': its default returned something else: 5 is int, not str" in caught.value.message
    assert evaluate(Calling, {"bad": "x", "typed": "y"}) == {"bad": "x", "typed": "y"}


BAD = {
    "Parameter('a b')": "a name begins with a letter",
    "Parameter('1a')": "a name begins with a letter",
    "Parameter('max-workers')": "taken by an option",
    "Parameter('max_workers')": "taken by an option",
    "Parameter('Tag')": "taken by an option",
    "Parameter('events')": "taken by an option",
    "Parameter('p', tpye=int)": "unknown argument 'tpye'; accepted: name, default, type",
    "Parameter('p', type=list)": "type is str, int, float, bool or JSONType, not list",
    "Parameter('p', type=int, default='x')": "default: 'x' is str, not int",
    "Parameter('p', type=bool, default=1)": "default: 1 is int, not bool",
    "Parameter('p', type=JSONType, default='{')": "default: parameter 'p': '{' is not JSON",
    "Parameter('p', type=int, separator=',')": "separator is for text",
    "Parameter('p', default='x', separator='')": "separator is empty",
    "Parameter('p', default=b'x')": "type is str, int, float, bool or JSONType, not bytes",
}
FLOW = "class F(FlowSpec):\n    {line}\n    @step\n    def start(self):\n        pass\n"


@pytest.mark.parametrize("text", BAD)
def test_a_bad_declaration_is_reported_with_its_place(tmp_path: Path, text: str) -> None:
    (problem,) = checks.problems(load(tmp_path, FLOW.format(line=f"p = {text}")))
    assert isinstance(problem, BadParameter)
    assert BAD[text] in problem.message
    assert problem.place.endswith(".py:3")


@pytest.mark.parametrize("attribute", ["next", "input", "index", "merge_artifacts", "_private"])
def test_an_attribute_that_cannot_hold_a_parameter(tmp_path: Path, attribute: str) -> None:
    (problem,) = checks.problems(load(tmp_path, FLOW.format(line=f"{attribute} = Parameter('p')")))
    assert isinstance(problem, BadParameter)
    assert f"the attribute {attribute!r} cannot hold one" in problem.message


@pytest.mark.parametrize("other", ["A", "a", "A-b", "a_B"])
def test_names_that_are_equal_on_the_command_line(tmp_path: Path, other: str) -> None:
    first = "a" if len(other) == 1 else "a-b"
    line = f"x = Parameter('{first}')\n    y = Parameter('{other}')"
    (problem,) = checks.problems(load(tmp_path, FLOW.format(line=line)))
    assert isinstance(problem, BadParameter)
    assert "is the same as" in problem.message


def test_parameters_are_inherited_and_overridden(tmp_path: Path) -> None:
    class Child(Many):
        whole = Parameter("whole", default=4)
        text = "no parameter any more"

    names = [parameter.attribute for parameter in parameters_of(Child)]
    assert names[-1] == "whole"
    assert "text" not in names
    assert evaluate(Child, {"needed": "n"})["whole"] == 4


def test_outside_of_a_run_the_attribute_is_the_parameter_itself() -> None:
    flow = Many(use_cli=False)
    assert isinstance(flow.whole, Parameter)
    assert flow.whole is Many.whole
    assert repr(Many.whole) == "<Parameter 'whole'>"
    with pytest.raises(AttributeError, match="not modifiable"):
        flow.whole = 5
    with pytest.raises(AttributeError, match="not modifiable"):
        del flow.whole


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_json_values_come_back(value: Any) -> None:
    assert Many.tree.convert(json.dumps(value)) == value


@given(st.integers(), st.floats(allow_nan=False))
def test_numbers_come_back(whole: int, real: float) -> None:
    assert Many.whole.convert(str(whole)) == whole
    assert Many.real.convert(repr(real)) == real


def test_kinds_have_names() -> None:
    assert [parameter.kind_name for parameter in parameters_of(Many)][:6] == [
        "str",
        "int",
        "float",
        "bool",
        "JSON",
        "JSON",
    ]
    assert repr(JSONType) == "JSON"


def test_every_option_of_run_is_a_name_that_parameters_cannot_have() -> None:
    names = {name.removeprefix("--") for option in run.params for name in option.opts if name.startswith("--")}
    assert names - RESERVED == set()
