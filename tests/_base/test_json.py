from __future__ import annotations

import json as stdlib_json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base import json

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_values)
def test_canonical_bytes_read_back_as_the_same_value(value: object) -> None:
    assert stdlib_json.loads(json.canonical(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_key_order_does_not_change_the_digest(document: dict[str, int]) -> None:
    backwards = dict(reversed(list(document.items())))
    assert json.digest(document) == json.digest(backwards)


def test_neighbouring_strings_are_never_joined() -> None:
    assert json.digest(["numpy==1.2", "3pandas"]) != json.digest(["numpy==1.23", "pandas"])


def test_bytes_of_a_path_that_is_not_utf_8_are_kept() -> None:
    document = {"folder \udcff": ["a\\udcff", "\ud800"]}
    for written in (json.compact(document), json.canonical(document)):
        assert stdlib_json.loads(written) == document


def test_digest_is_frozen() -> None:
    assert json.digest({"schema": 1, "name": "é"}) == (
        "sha256:39b67abc43f4a564a277c7c9e1e086e3ceba2e1c7a70be373e27cc645563b4d2"
    )


@pytest.mark.parametrize(("value", "path"), [({"a": [1.5]}, "$.a[0]"), ({"a": {1: 2}}, "$.a"), ({"b": b""}, "$.b")])
def test_values_without_a_canonical_form_are_refused_with_their_path(value: object, path: str) -> None:
    with pytest.raises(TypeError, match=path.replace("$", r"\$").replace("[", r"\[")):
        json.canonical(value)
