from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.envs import condaunpack, installer
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.condaunpack import unpack
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda, InstallError
from flowkiln.envs.lock import LockedConda
from tests.services import condacases
from tests.services.channel import Channel
from tests.services.condaarchive import Link, Member, info_file
from tests.services.condapackages import PLACEHOLDER, package


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    channel = Channel(tmp_path_factory.mktemp("cases"))
    for write in (
        condacases.links,
        condacases.prefixes,
        condacases.placement,
        condacases.scripts,
        condacases.hostile,
    ):
        write(channel.folder)
    return channel


def of(path: Path) -> LockedConda:
    name, version, build = path.name.removesuffix(".tar.bz2").removesuffix(".conda").rsplit("-", 2)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return LockedConda(
        name=name, version=version, build=build, filename=path.name, url=path.as_uri(), sha256=sha256
    )


def changed(path: Path, info: dict[str, bytes]) -> Path:
    """The package at ``path`` with other files of ``info/``, in its place."""
    with zipfile.ZipFile(path) as outer:
        parts = {name: outer.read(name) for name in outer.namelist()}
    name = next(name for name in parts if name.startswith("info-"))
    unpacked = io.BytesIO(zstandard.ZstdDecompressor().decompress(parts[name]))
    with tarfile.open(fileobj=unpacked) as known:
        members = {one.name: known.extractfile(one).read() for one in known.getmembers()}  # type: ignore[union-attr]
    members.update({f"info/{one}": data for one, data in info.items()})
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for one, data in members.items():
            entry = tarfile.TarInfo(one)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    parts[name] = zstandard.ZstdCompressor().compress(raw.getvalue())
    with zipfile.ZipFile(path, "w") as outer:
        for one, data in parts.items():
            outer.writestr(one, data)
    return path


def opened(path: Path, folder: Path) -> CondaPackage:
    folder.mkdir()
    return unpack(path, of(path), folder)


@pytest.mark.parametrize("form", ["conda", "tar.bz2"])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_package_is_described_by_what_it_says(tmp_path: Path, form: str, legacy: bool) -> None:
    text = f"#!{PLACEHOLDER}/bin/python\n".encode()
    path = package(
        tmp_path / "channel",
        "demo",
        subdir="linux-64",
        depends=["libc"],
        files={
            "bin/demo": text,
            "lib/libdemo.so": Link("libdemo.so.1"),
            "lib/libdemo.so.1": b"\x7fELF",
            "lib/python3.11/site-packages/demo/__pycache__/x.cpython-311.pyc": b"bytecode",
            "bin/.demo-post-link.sh": b"#!/bin/sh\n",
        },
        executable=["bin/demo"],
        prefix_files={"bin/demo": ("text", PLACEHOLDER)},
        format=form,  # type: ignore[arg-type]
        legacy=legacy,
    )
    found = opened(path, tmp_path / "out")
    by_path = {file.stored: file for file in found.files}
    sha = hashlib.sha256(text).hexdigest()
    assert by_path["bin/demo"] == CondaFile(
        "prefix", "bin/demo", "bin/demo", len(text), sha, True, "", PLACEHOLDER, "text"
    )
    assert by_path["lib/libdemo.so"].target == "libdemo.so.1"
    assert sorted(by_path) == ["bin/.demo-post-link.sh", "bin/demo", "lib/libdemo.so", "lib/libdemo.so.1"]
    assert (found.name, found.version, found.scripts) == ("demo", "1.0", ("post-link",))
    assert found.record["depends"] == ["libc"]
    assert CondaPackage.from_json(found.to_json()) == found
    assert not list((tmp_path / "out").rglob("*.pyc"))
    assert (tmp_path / "out" / "bin" / "demo").read_bytes() == text
    assert (tmp_path / "out" / "bin" / "demo").stat().st_mode & 0o777 == 0o555
    assert (tmp_path / "out" / "lib" / "libdemo.so.1").stat().st_mode & 0o777 == 0o444


def test_a_pure_python_package_goes_where_python_is(tmp_path: Path) -> None:
    path = package(
        tmp_path / "channel",
        "pure",
        noarch="python",
        files={"site-packages/pure/__init__.py": b"", "python-scripts/tool": b"#!x", "share/doc.txt": b"doc"},
        entry_points=["pure = pure.cli:main", "other= pure:run.it"],
    )
    found = opened(path, tmp_path / "out")
    assert [(file.place, file.path, file.executable) for file in found.files] == [
        ("scripts", "tool", True),
        ("prefix", "share/doc.txt", False),
        ("site", "pure/__init__.py", False),
    ]
    assert [tuple(point) for point in found.entry_points] == [
        ("other", "pure", "run.it", False),
        ("pure", "pure.cli", "main", False),
    ]


def test_hard_links_are_files(cases: Channel, tmp_path: Path) -> None:
    found = opened(cases.find("hard-links"), tmp_path / "out")
    assert {file.path: file.sha256 for file in found.files}["share/hard/two.txt"] == hashlib.sha256(
        b"one\n"
    ).hexdigest()
    assert (tmp_path / "out" / "share" / "hard" / "two.txt").read_bytes() == b"one\n"


HOSTILE = (
    "dotdot",
    "dotdot-unlisted",
    "absolute",
    "symlink",
    "through-symlink",
    "paths",
    "changed-file",
    "entry-point",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_package_is_refused_and_nothing_leaves(cases: Channel, tmp_path: Path, name: str) -> None:
    with pytest.raises((HostileConda, CondaUnreadable)) as caught:
        opened(cases.find(f"hostile-{name}"), tmp_path / "out")
    assert caught.value.message.startswith(f"hostile-{name}-1.0-0.conda")
    assert caught.value.hint
    assert not list(tmp_path.glob("hostile-*"))
    assert not Path("/tmp/hostile-escaped.txt").exists()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([Member("conda-meta/x.json", b"{}")], "belongs to the environment"),
        ([Member(".flowkiln/tree.json", b"{}")], "belongs to the environment"),
        ([Member("bin/python", b"")], "belongs to the environment"),
        ([Member("pyvenv.cfg", b"")], "belongs to the environment"),
        ([Member("lib/python3.11/EXTERNALLY-MANAGED", b"")], "belongs to the environment"),
        ([Member("a/b", b""), Member("a", b"")], "is a file and its folder"),
        ([Member("a", Link("/etc/passwd"))], "outside of the environment"),
        ([Member("a", Link("b", hard=True)), Member("b", b"")], "a hard link"),
        ([Member("a\x01b", b"")], "control character"),
        ([Member("a/b/c/l", Link("../../..")), Member("a/t", Link("b/c/l/../../etc/hostname"))], "outside of the"),
        ([Member("a", Link("x\udcff"))], "what can be no path"),
        ([Member("a", Link("x" * 5000))], "what can be no path"),
        ([Member("bin", Link("share"))], "belongs to the environment"),
        ([Member("lib", b"")], "belongs to the environment"),
        ([Member("lib/python3.11", Link("../share"))], "belongs to the environment"),
        ([Member("lib/python3.11/site-packages", Link("../../share"))], "belongs to the environment"),
        ([Member("a.pyc", b"1"), Member("b", Link("a.pyc", hard=True))], "which is bytecode"),
        ([Member("a", b"1"), Member("a", b"2")], "listed twice"),
        ([Member("a", b"1"), Member("a", b"2", listed=False)], "twice in the archive"),
    ],
)
def test_names_that_no_package_may_have(tmp_path: Path, members: list[Member], why: str) -> None:
    path = package(tmp_path / "channel", "bad", members=members)
    with pytest.raises(HostileConda, match=why):
        opened(path, tmp_path / "out")


def row(path: object = "share/a", **more: object) -> dict[str, object]:
    return {"_path": path, "path_type": "hardlink", **more}


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ({"paths": [row(1)]}, "names no path"),
        ({"paths": [row(None)]}, "names no path"),
        ({"paths": ["share/a"]}, "names no path"),
        ({"paths": {}}, "has no list of paths"),
        ({}, "has no list of paths"),
        ({"paths": [row(), row()]}, "listed twice"),
        ({"paths": [row(prefix_placeholder=["x"])]}, "its placeholder is"),
        ({"paths": [row(prefix_placeholder="\0")]}, "its placeholder is"),
        ({"paths": [row(prefix_placeholder="/x", file_mode="hex")]}, "in a way that is not known"),
        ({"paths": [row(prefix_placeholder="/x", file_mode=["text"])]}, "in a way that is not known"),
        ({"paths": [row(size_in_bytes="1")]}, "its size is '1'"),
        ({"paths": [row(size_in_bytes=2)]}, "has 1 bytes, and is listed with 2"),
        ({"paths": [row(sha256="0")]}, "its sha256 is '0'"),
        ({"paths": [row(path_type="directory")]}, "does not list this file"),
    ],
)
def test_a_list_of_files_that_cannot_be_right_is_told(tmp_path: Path, paths: dict[str, object], why: str) -> None:
    path = package(tmp_path / "channel", "bad", files={"share/a": b"1"}, paths=paths)
    with pytest.raises((HostileConda, CondaUnreadable), match=why):
        opened(path, tmp_path / "out")


def test_rows_without_size_and_hash_are_taken_and_hashed(tmp_path: Path) -> None:
    path = package(tmp_path / "channel", "bare", files={"share/a": b"1"}, paths={"paths": [row()]})
    (file,) = opened(path, tmp_path / "out").files
    assert (file.size, file.sha256) == (1, hashlib.sha256(b"1").hexdigest())


def test_what_does_not_say_its_size_may_not_grow_without_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condaunpack, "_ALLOWED", 1000)
    zeros = {"share/a": bytes(10 << 20)}
    for form, legacy in (("conda", False), ("tar.bz2", True)):
        paths = None if legacy else {"paths": [row()]}
        path = package(
            tmp_path / form,
            "bomb",
            files=zeros,
            paths=paths,
            legacy=legacy,
            format=form,  # type: ignore[arg-type]
        )
        with pytest.raises(HostileConda, match="'share/a': it unpacks to far more than its size"):
            opened(path, tmp_path / f"out-{form}")
        assert not list((tmp_path / f"out-{form}").rglob("a"))


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size_in_bytes": 2}])
def test_hard_links_are_held_against_the_list(tmp_path: Path, wrong: dict[str, object]) -> None:
    members = [Member("a", b"1"), Member("b", Link("a", hard=True))]
    path = package(tmp_path / "channel", "hard", members=members, paths={"paths": [row("a"), row("b", **wrong)]})
    with pytest.raises(HostileConda, match=r"'b': has (another sha256|1 bytes)"):
        opened(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"noarch": ["python"]}, "its noarch is no object"),
        ({"noarch": {"type": "python", "entry_points": 5}}, "its entry points are no list"),
        ({"noarch": {"type": "python", "entry_points": [5]}}, "5 is no entry point"),
        ([], "no JSON object"),
    ],
)
def test_a_link_json_that_cannot_be_read_is_told(tmp_path: Path, link: object, why: str) -> None:
    path = changed(package(tmp_path / "channel", "bad", noarch="python"), {"link.json": json.dumps(link).encode()})
    with pytest.raises(CondaUnreadable, match=why):
        opened(path, tmp_path / "out")


def test_the_short_form_of_noarch_is_read(tmp_path: Path) -> None:
    whole = package(tmp_path / "channel", "short", noarch="python", files={"site-packages/a.py": b""})
    found = opened(changed(whole, {"link.json": b'{"noarch": "python"}'}), tmp_path / "out")
    assert [file.place for file in found.files] == ["site"]


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("../x")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


def mutated(data: st.DataObject, document: Any) -> Any:
    """``document`` with one value, key or item of it changed, removed or doubled."""
    kind = data.draw(st.sampled_from(["here", "deeper", "deeper", "deeper"]))
    if kind == "here" or not document or not isinstance(document, (dict, list)):
        return data.draw(_JSON)
    document = copy.deepcopy(document)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = data.draw(st.sampled_from(keys))
    what = data.draw(st.sampled_from(["change", "change", "remove", "double"]))
    if what == "change":
        document[key] = mutated(data, document[key])
    elif what == "remove":
        del document[key]
    elif isinstance(document, list):
        document.append(document[key])
    else:
        document[data.draw(st.text(max_size=4))] = document[key]
    return document


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_whatever_the_metadata_say_it_is_our_error_or_a_right_tree(
    data: st.DataObject,
) -> None:
    with TemporaryDirectory() as name:
        text = f"#!{PLACEHOLDER}/bin/x\n".encode()
        members = [Member("share/one.txt", b"1"), Member("share/two.txt", Link("share/one.txt", hard=True))]
        whole = package(
            Path(name, "channel"),
            "odd",
            noarch="python",
            files={"site-packages/odd.py": b"", "bin/odd": text, "share/l": Link("one.txt")},
            members=members,
            prefix_files={"bin/odd": ("text", PLACEHOLDER)},
            entry_points=["a = odd:main"],
        )
        which = data.draw(st.sampled_from(["paths.json", "link.json", "index.json", "about.json"]))
        document = mutated(data, json.loads(info_file(whole, which)))
        path = changed(whole, {which: json.dumps(document).encode()})
        try:
            found = opened(path, Path(name, "out"))
            tree = installer.combine([installer.package(found, "3.11")])
        except InstallError:
            pass
        else:
            assert {entry.path for entry, _ in tree.owners} >= {"share/l", "share/one.txt", "share/two.txt"}
            for file in found.files:
                if not file.target:
                    stored = Path(name, "out", file.stored).read_bytes()
                    assert (len(stored), hashlib.sha256(stored).hexdigest()) == (file.size, file.sha256)
        assert {one.name for one in Path(name).iterdir()} <= {"channel", "out"}


def test_what_is_cut_short_or_no_package_is_told(tmp_path: Path) -> None:
    whole = package(tmp_path / "channel", "cut", files={"share/a": bytes(range(256)) * 200})
    data = whole.read_bytes()
    for number, part in enumerate([data[: len(data) // 2], b"", b"no archive at all", data[:4] + b"\0" * 400]):
        path = tmp_path / str(number) / whole.name
        path.parent.mkdir()
        path.write_bytes(part)
        with pytest.raises(CondaUnreadable, match=r"^cut-1\.0-0\.conda: "):
            opened(path, tmp_path / f"out{number}")


def test_another_package_under_the_locked_name_is_told(tmp_path: Path) -> None:
    path = package(tmp_path / "channel", "one")
    with pytest.raises(CondaMismatch, match=r"it says that it is one 1\.0 0, locked is one 2\.0 0"):
        unpack(path, replace(of(path), version="2.0"), tmp_path)


def test_a_file_that_it_lists_and_lacks_is_told(tmp_path: Path) -> None:
    listed = {"_path": "share/absent", "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": 1}
    path = package(tmp_path / "channel", "lacks", paths={"paths": [listed], "paths_version": 1})
    with pytest.raises(CondaUnreadable, match="share/absent"):
        opened(path, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
