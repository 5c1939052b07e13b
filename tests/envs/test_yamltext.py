from __future__ import annotations

import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs import condalock, yamltext

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
DOCUMENTS = st.recursive(
    TEXTS | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


@given(DOCUMENTS)
def test_what_the_library_writes_is_read(document: Any) -> None:
    text = yaml.dump({"x": document}, Dumper=yaml.CSafeDumper, allow_unicode=True, default_flow_style=False)
    assert yamltext.load(text) == {"x": document}


@given(TEXTS)
def test_a_quoted_text_is_read_as_it_was(text: str) -> None:
    assert yamltext.load(f"{condalock.quoted(text)}: {condalock.quoted(text)}\n") == {text: text}
    assert yaml.safe_load(condalock.quoted(text)) == text


def test_scalars_stay_as_they_are_written() -> None:
    text = "a: 1.10\nb: no\nc: 1e3\nd: 0o17\ne: 2024-01-02\nf: 'null'\ng: null\nh:\n"
    read = {"a": "1.10", "b": "no", "c": "1e3", "d": "0o17", "e": "2024-01-02", "f": "null", "g": None, "h": None}
    assert yamltext.load(text) == read


def test_a_name_stands_for_what_it_names() -> None:
    assert yamltext.load("a: &x [1]\nb: *x\n") == {"a": ["1"], "b": ["1"]}
    assert yamltext.load("") is None


BAD = {
    "a key twice": ("a: 1\nb:\n  c: 1\n  c: 2\n", "'c' stands there twice", 4),
    "a tag": ("a: !!python/object:os.system x\n", "the tag 'tag:yaml.org,2002:python/object:os.system'", 1),
    "a second document": ("a: 1\n---\nb: 1\n", "a second document", 2),
    "a key that is a list": ("a: 1\n? [x]\n: 1\n", "a key is not a text", 2),
    "an unknown name": ("a: 1\nb: *x\n", "nothing is named 'x'", 2),
    "an open list": ("a: [1\nb: 2\n", "", 2),
    "a control character": ("a: 1\nb: \x07\n", "control characters", 2),
    "a tab": ("a:\n\t- 1\n", "", 2),
    "nesting": ("[" * 500 + "]" * 500, "nested too deep", 1),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_read_is_named_with_its_line(case: str) -> None:
    text, what, line = BAD[case]
    with pytest.raises(yamltext.NotYaml) as caught:
        yamltext.load(text)
    assert what in caught.value.what
    assert caught.value.line == line, json.dumps(caught.value.what)
