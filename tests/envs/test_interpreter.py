from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base import platforms
from flowkiln.envs.interpreter import Interpreter, bounds, numbers, within
from tests.envs.made import part


@pytest.mark.parametrize(
    ("version", "minimum", "below", "holds"),
    [
        ("3.11.2", None, None, True),
        ("3.12.2", None, None, False),
        ("3.1.12", None, None, False),
        ("3.11.2", "3.11.3", None, False),
        ("3.11.3", "3.11.3", None, True),
        ("3.11.10", "3.11.3", None, True),
        ("3.11.10", None, "3.11.9", False),
        ("3.11.9", None, "3.11.9", False),
        ("3.11.8", "3.11.3", "3.11.9", True),
    ],
)
def test_bounds_are_compared_as_numbers(version: str, minimum: str | None, below: str | None, holds: bool) -> None:
    assert within(version, part([], python="3.11", python_minimum=minimum, python_below=below)) is holds


def test_bounds_in_words() -> None:
    assert bounds(part([], python="3.11")) == "3.11"
    lock = part([], python="3.11", python_minimum="3.11.3", python_below="3.11.9")
    assert bounds(lock) == "3.11 (>= 3.11.3, < 3.11.9)"


@given(st.lists(st.integers(0, 99), min_size=3, max_size=3), st.lists(st.integers(0, 99), min_size=3, max_size=3))
def test_versions_order_as_their_numbers(one: list[int], other: list[int]) -> None:
    first, second = (".".join(map(str, version)) for version in (one, other))
    assert (numbers(first) < numbers(second)) == (one < other)


def test_keys_tell_interpreters_of_one_version_apart() -> None:
    one = Interpreter(path="/a/python", version="3.11.2", platform=platforms.host())
    other = Interpreter(path="/b/python", version="3.11.2", platform=platforms.host())
    assert one.key != other.key
    assert one.key.startswith("3.11.2-")
    assert one.python == "3.11"
