from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowkiln.envs import condacontents


@pytest.mark.parametrize(
    ("path", "provided"),
    [
        ("site-packages/demo-1.0.dist-info/METADATA", (("demo", "1.0"),)),
        ("lib/python3.11/site-packages/Demo_X.Y-1.0.post1.dist-info/RECORD", (("demo-x-y", "1.0.post1"),)),
        ("lib/python3.11/site-packages/demo-1.0-py3.11.egg-info", (("demo", "1.0"),)),
        ("lib/python3.11/site-packages/demo-1.0-py3.11.egg-info/PKG-INFO", (("demo", "1.0"),)),
        ("lib/python3.11/site-packages/demo.egg-info/PKG-INFO", (("demo", "9.9"),)),
        ("site-packages/torch-2.5.1+cu124.dist-info/METADATA", (("torch", "2.5.1+cu124"),)),
        ("site-packages/demo-01.0.dist-info/METADATA", (("demo", "1.0"),)),
        ("site-packages/setuptools/_vendor/inside-1.0.dist-info/METADATA", ()),
        ("share/demo-1.0.dist-info/METADATA", ()),
        ("site-packages/demo/__init__.py", ()),
    ],
)
def test_distributions_are_read_from_the_names_of_their_metadata(path: str, provided: object) -> None:
    assert condacontents.distributions(["bin/x", path], "9.9") == provided


def test_paths_are_read_from_either_list() -> None:
    document = json.dumps({"paths": [{"_path": "a"}, {"_path": "b"}], "paths_version": 1}).encode()
    assert condacontents.listed({"info/paths.json": document, "info/files": None}) == ["a", "b"]
    assert condacontents.listed({"info/paths.json": None, "info/files": b"a\nb\n"}) == ["a", "b"]


@pytest.mark.parametrize("document", [b"", b"{}", b'{"paths": [1]}', b"[]", b'{"paths": [{"path": "a"}]}'])
def test_a_list_that_is_none_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError):
        condacontents.listed({"info/paths.json": document, "info/files": b"a"})


def test_a_package_without_any_list_is_an_error() -> None:
    with pytest.raises(ValueError):
        condacontents.listed({"info/paths.json": None, "info/files": None})


def test_what_is_known_is_remembered_by_hash(tmp_path: Path) -> None:
    assert condacontents.recall(tmp_path, "ab" * 32) is None
    condacontents.remember(tmp_path, "ab" * 32, (("demo", "1.0"),))
    assert condacontents.recall(tmp_path, "ab" * 32) == (("demo", "1.0"),)
    assert condacontents.recall(tmp_path, "cd" * 32) is None
    next(tmp_path.rglob("*.json")).write_text("[1")
    assert condacontents.recall(tmp_path, "ab" * 32) is None
