from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln.envs import condaarchive
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.condaunpack import unpack
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda
from flowkiln.envs.lock import LockedConda
from tests.services import condacases
from tests.services.channel import Channel
from tests.services.condaarchive import Link, Member
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


def test_links_through_links_that_stay_inside_are_fine(tmp_path: Path) -> None:
    members = [
        Member("a/b/c/up", Link("../../..")),
        Member("a/t", Link("b/c/up/lib/x")),
        Member("circle", Link("circle")),
        Member("lib/x", b"x"),
    ]
    found = opened(package(tmp_path / "channel", "good", members=members), tmp_path / "out")
    assert {file.path: file.target for file in found.files if file.target}["a/t"] == "b/c/up/lib/x"


def test_a_link_counts_from_where_its_file_goes(tmp_path: Path) -> None:
    for number, (target, fine) in enumerate([("../../../../share/x", True), ("../../../../../x", False)]):
        link = {"site-packages/pure/data": Link(target)}
        path = package(tmp_path / str(number), "pure", noarch="python", files=link)
        if fine:
            assert opened(path, tmp_path / "fine").files[0].target == target
        else:
            with pytest.raises(HostileConda, match="outside of the environment"):
                opened(path, tmp_path / "refused")


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
        ([Member("bin", Link("share"))], "belongs to the environment"),
        ([Member("lib/python3.11", Link("python3.9"))], "belongs to the environment"),
        ([Member("a.pyc", b"x"), Member("b", Link("a.pyc", hard=True))], "no file that is kept"),
        ([Member("a/b", b""), Member("a", b"")], "is a file and its folder"),
        ([Member("a", Link("/etc/passwd"))], "outside of the environment"),
        ([Member("a/b/c/l", Link("../../..")), Member("a/t", Link("b/c/l/../../x"))], "'a/t': a link .* outside"),
        ([Member("a/b/l", Link("../..")), Member("a/t", Link("b/l/..")), Member("u", Link("a/t"))], "outside"),
        ([Member("a", Link(""))], "a link to ''"),
        ([Member("a", Link("\udcff"))], "which is no UTF-8"),
        ([Member("a", Link("b", hard=True)), Member("b", b"")], "a hard link"),
        ([Member("a\x01b", b"")], "control character"),
    ],
)
def test_names_that_no_package_may_have(tmp_path: Path, members: list[Member], why: str) -> None:
    path = package(tmp_path / "channel", "bad", members=members)
    with pytest.raises(HostileConda, match=why):
        opened(path, tmp_path / "out")


def test_a_program_of_a_pure_package_is_no_interpreter(tmp_path: Path) -> None:
    path = package(tmp_path / "channel", "pure", noarch="python", files={"python-scripts/python3": b""})
    with pytest.raises(HostileConda, match="belongs to the environment"):
        opened(path, tmp_path / "out")


def row(path: str, data: bytes, **other: object) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    return {"_path": path, "path_type": "hardlink", "sha256": digest, "size_in_bytes": len(data), **other}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (row("b", b"two"), "another sha256"),
        (row("b", b"long"), "is listed with 4"),
        (row("b", b"one", path_type="softlink"), "a file, and is listed as softlink"),
        (row("b", b"one", path_type="directory"), "a file, and is listed as directory"),
    ],
)
def test_a_hard_link_is_held_against_what_is_listed(tmp_path: Path, told: dict[str, object], why: str) -> None:
    members = [Member("a", b"one"), Member("b", Link("a", hard=True))]
    path = package(tmp_path / "channel", "hard", members=members, paths={"paths": [row("a", b"one"), told]})
    with pytest.raises(HostileConda, match=why):
        opened(path, tmp_path / "out")


def test_a_link_is_not_taken_for_the_file_that_is_listed(tmp_path: Path) -> None:
    members = [Member("a", Link("b"))]
    path = package(tmp_path / "channel", "soft", members=members, paths={"paths": [row("a", b"one")]})
    with pytest.raises(HostileConda, match="a link, and is listed as hardlink"):
        opened(path, tmp_path / "out")


def test_rows_without_hash_and_size_are_hashed_here(tmp_path: Path) -> None:
    listed = {"paths": [{"_path": "a", "sha256": None}]}
    path = package(tmp_path / "channel", "bare", files={"a": b"one"}, paths=listed)
    assert opened(path, tmp_path / "out").files[0].sha256 == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("form", ["conda", "tar.bz2"])
@pytest.mark.parametrize("hard", [False, True])
def test_a_package_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, hard: bool
) -> None:
    monkeypatch.setattr(condaarchive, "_ALLOWED", 1 << 20)
    zeros = bytes(900_000 if hard else 5_000_000)
    members = [Member("a", zeros), *(Member(f"b{n}", Link("a", hard=True)) for n in range(9 if hard else 0))]
    listed = {"paths": [{"_path": one.name} for one in members]}
    path = package(tmp_path / "channel", "bomb", members=members, paths=listed, format=form)  # type: ignore[arg-type]
    with pytest.raises(HostileConda, match=r"bomb-1\.0-0\..*: it unpacks to more than 1 MiB"):
        opened(path, tmp_path / "out")
    assert sum(one.stat().st_size for one in (tmp_path / "out").iterdir()) < 3_000_000


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
