from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.envs import condatold, installer
from flowkiln.envs.condaunpack import unpack
from flowkiln.envs.installerrors import CondaUnreadable, InstallError
from flowkiln.envs.lock import LockedConda
from tests.services.condaarchive import Link, Member, packed

ROW = {"_path": "bin/a", "path_type": "hardlink", "sha256": hashlib.sha256(b"one").hexdigest(), "size_in_bytes": 3}
INDEX = {"name": "demo", "version": "1.0", "build": "0", "build_number": 0, "depends": ["x"], "subdir": "noarch"}
LINK = {"noarch": {"type": "python", "entry_points": ["run = demo:main"]}, "package_metadata_version": 1}
SOFT = {"_path": "lib/l", "path_type": "softlink", "sha256": "0" * 64, "size_in_bytes": 0}
GOOD: dict[str, Any] = {
    "index.json": INDEX,
    "paths.json": {"paths": [{**ROW, "prefix_placeholder": "/opt/placeholder", "file_mode": "text"}, SOFT]},
    "link.json": LINK,
    "about.json": {"license": "MIT"},
}


def info(**changed: object) -> dict[str, bytes]:
    documents = {**GOOD, **{f"{name}.json": document for name, document in changed.items()}}
    return {name: json.dumps(document).encode() for name, document in documents.items()}


def test_what_is_said_is_read() -> None:
    told = condatold.read(info(), "demo-1.0-0.conda")
    assert told.identity == ("demo", "1.0", "0")
    assert told.files["bin/a"] == ("hardlink", ROW["sha256"], 3, "/opt/placeholder", "text")
    assert told.pure
    assert [point.name for point in told.entry_points] == ["run"]
    assert told.record == {"build_number": 0, "depends": ["x"], "subdir": "noarch"}


def paths(**changed: object) -> dict[str, object]:
    return {"paths": {"paths": [{**ROW, **changed}]}}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (paths(_path=5), "info/paths.json: _path is '5'"),
        (paths(_path=None), "info/paths.json: _path is 'None'"),
        (paths(path_type="pipe"), "of a type that is not known: 'pipe'"),
        (paths(sha256="xyz"), "'xyz' is no sha256"),
        (paths(sha256=5), "sha256 is '5'"),
        (paths(size_in_bytes="3"), "size_in_bytes is '3'"),
        (paths(size_in_bytes=True), "size_in_bytes is 'True'"),
        (paths(size_in_bytes=-1), "size_in_bytes is -1"),
        (paths(prefix_placeholder=["/opt/x"]), "prefix_placeholder is"),
        (paths(prefix_placeholder="a"), "'a' stands for no prefix"),
        (paths(prefix_placeholder="/opt/long", file_mode="gzip"), "in a way that is not known: 'gzip'"),
        ({"paths": {"paths": [ROW, ROW]}}, "lists 'bin/a' twice"),
        ({"paths": {"paths": {"a": 1}}}, "paths.json: paths is"),
        ({"paths": {"paths": ["a"]}}, "a row is 'a'"),
        ({"paths": {"paths": [], "paths_version": 2}}, "a version that is not known: 2"),
        ({"paths": []}, "info/paths.json is"),
        ({"link": {"noarch": "python"}}, "noarch is 'python'"),
        ({"link": {"noarch": {"type": "perl"}}}, "noarch in a way that is not known: 'perl'"),
        ({"link": {"noarch": {"type": "python", "entry_points": 5}}}, "entry_points is '5'"),
        ({"link": {"noarch": {"type": "python", "entry_points": [5]}}}, "an entry point is '5'"),
        ({"link": {"noarch": {"type": "python", "entry_points": ["x"]}}}, "'x' is no entry point"),
        ({"index": {**INDEX, "name": None}}, "name is 'None'"),
        ({"index": {**INDEX, "depends": "x"}}, "depends is 'x'"),
        ({"index": {**INDEX, "build_number": 1.5}}, "build_number is '1.5'"),
        ({"index": {**INDEX, "license": "\ud800"}}, "info/index.json is no JSON"),
    ],
)
def test_what_cannot_be_is_told(changed: dict[str, object], why: str) -> None:
    with pytest.raises(CondaUnreadable, match=r"^demo-1\.0-0\.conda: ") as caught:
        condatold.read(info(**changed), "demo-1.0-0.conda")
    assert why in caught.value.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"a": "' + b"\xed\xa0\x80" + b'"}', b"[" * 100_000])
def test_no_json_is_told(data: bytes) -> None:
    with pytest.raises(CondaUnreadable, match=r"info/index.json"):
        condatold.read({**info(), "index.json": data}, "demo-1.0-0.conda")


def test_old_lists_that_are_no_text_are_told() -> None:
    old = {key: value for key, value in info().items() if key != "paths.json"}
    with pytest.raises(CondaUnreadable, match="info/files is no UTF-8"):
        condatold.read({**old, "files": b"\xff\n"}, "demo-1.0-0.conda")
    with pytest.raises(CondaUnreadable, match="stands for no prefix"):
        condatold.read({**old, "files": b"a\n", "has_prefix": b'"x" text "a"\n'}, "demo-1.0-0.conda")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/x", "bin/a", "lib", "bin/python", "conda-meta/x", "a\0b", "\ud800", "python"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The files of ``info/`` with up to three values somewhere in them replaced, added or removed."""
    documents: dict[str, Any] = {"": json.loads(json.dumps(GOOD))}
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = documents
        key: Any = ""
        while isinstance(holder[key], (dict, list)) and holder[key] and draw(st.integers(0, 5)):
            holder = holder[key]
            key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if holder is documents:
            continue
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        else:
            del holder[key]
    found: dict[str, Any] = documents[""]
    return found


@settings(max_examples=150)
@given(changed(), st.sampled_from(["conda", "tar.bz2"]))
def test_whatever_it_says_ends_in_an_error_of_ours_or_in_a_right_tree(documents: dict[str, Any], form: Any) -> None:
    told = {name: json.dumps(document).encode() for name, document in documents.items()}
    members = [Member("bin/a", b"one"), Member("lib/l", Link("../bin/a"))]
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / f"demo-1.0-0.{form}"
        path.write_bytes(packed("demo-1.0-0", members, told, form))
        locked = LockedConda(
            name="demo", version="1.0", build="0", filename=path.name, url=path.as_uri(), sha256="0" * 64
        )
        (folder / "out").mkdir()
        try:
            found = unpack(path, locked, folder / "out")
        except InstallError:
            pass
        else:
            json.dumps(found.to_json(), ensure_ascii=False).encode()
            tree = installer.combine([installer.package(found, "3.11")])
            assert {"bin/a", "lib/l"} <= {entry.path for entry, _ in tree.owners}
            assert (folder / "out" / "bin" / "a").read_bytes() == b"one"
        assert {one.name for one in folder.iterdir()} == {"out", path.name}
        assert {str(one.relative_to(folder / "out")) for one in folder.glob("out/**/*")} <= {"bin", "bin/a"}
    finally:
        shutil.rmtree(folder)
