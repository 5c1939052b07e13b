from __future__ import annotations

import pytest

from flowkiln.flow.decospecs import from_spec
from flowkiln.flow.errors import BadDecorator


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("retry", "retry", {"times": 3}),
        ("retry:", "retry", {"times": 3}),
        ("retry:times=1,minutes_between_retries=0.5", "retry", {"times": 1, "minutes_between_retries": 0.5}),
        ("catch:var=problem,print_exception=false", "catch", {"var": "problem", "print_exception": False}),
        ("docker:read_only=True,user=12345,cpu=None", "docker", {"read_only": True, "user": "12345", "cpu": None}),
        ("timeout: seconds = 5", "timeout", {"seconds": 5}),
        ('environment:vars={"A": "1,2", "B": "}"}', "environment", {"vars": {"A": "1,2", "B": "}"}}),
        ('pypi:packages={"a": ">=1,<2"},python=3.10', "pypi", {"packages": {"a": ">=1,<2"}, "python": "3.10"}),
        ('pypi:packages=["a[x,y]>1"],disabled=true', "pypi", {"packages": ["a[x,y]>1"], "disabled": True}),
        (r'environment:vars={"A": "say \"x,y\""}', "environment", {"vars": {"A": 'say "x,y"'}}),
    ],
)
def test_values_are_read_as_json_or_text(text: str, name: str, expected: dict[str, object]) -> None:
    found = from_spec(text)
    assert found.name == name
    assert {key: found.arguments[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rety", "there is no step decorator 'rety'"),
        ("pypi_base", "there is no step decorator 'pypi_base'"),
        ("retry:3", "'3' is not of the form key=value"),
        ("retry:times=2,times=3", "'times' is given twice"),
        ("retry:tmies=3", "@retry: unknown argument 'tmies'; accepted: times, minutes_between_retries"),
        ("retry:times=many", "@retry: times is a whole number from 0, not 'many'"),
        ("timeout", "@timeout: needs a time above 0"),
    ],
)
def test_a_bad_specification_is_explained(text: str, said: str) -> None:
    with pytest.raises(BadDecorator) as caught:
        from_spec(text)
    assert said in caught.value.message
    assert repr(text) in caught.value.message
