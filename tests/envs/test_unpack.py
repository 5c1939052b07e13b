from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs.installerrors import HostileWheel, RecordMismatch, WheelMismatch, WheelUnreadable
from flowkiln.envs.unpack import unpack
from flowkiln.envs.wheel import Wheel
from tests.envs.made import locked
from tests.services.wheels import Member, data_folder, link, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.wheels import Distribution


def unpacked(one: Distribution, tmp_path: Path, **changes: object) -> Wheel:
    folder = tmp_path / "files"
    folder.mkdir()
    return unpack(one.write(tmp_path), locked(one, "", **changes), folder)


def test_files_are_described_and_written_read_only_whatever_the_umask(tmp_path: Path) -> None:
    one = wheel("pkg", files={"pkg/a.py": "a", "pkg/run.sh": "#!/bin/sh\n"}, executable=["pkg/run.sh"])
    before = os.umask(0o077)
    try:
        found = unpacked(one, tmp_path)
    finally:
        os.umask(before)
    by_path = {file.path: file for file in found.files}
    assert by_path["pkg/a.py"].sha256 == hashlib.sha256(b"a").hexdigest()
    assert not by_path["pkg/a.py"].executable
    assert by_path["pkg/run.sh"].executable
    assert (tmp_path / "files/pkg/a.py").stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "files/pkg/run.sh").stat().st_mode & 0o777 == 0o555
    on_disk = {str(p.relative_to(tmp_path / "files")) for p in (tmp_path / "files").rglob("*") if p.is_file()}
    assert on_disk == set(by_path)
    assert [file.stored for file in found.files] == sorted(by_path)
    assert Wheel.from_json(found.to_json()) == found


def test_what_installing_replaces_and_bytecode_are_left_out(tmp_path: Path) -> None:
    info = "pkg-1.0.dist-info"
    extra = {
        f"{info}/INSTALLER": "pip",
        f"{info}/REQUESTED": "",
        f"{info}/direct_url.json": "{}",
        f"{info}/licenses/LICENSE": "free",
        "pkg/__pycache__/a.cpython-311.pyc": "code",
        "pkg/kept.pyc": "sourceless",
        "pkg/a.py": "",
    }
    found = {file.path for file in unpacked(wheel("pkg", files=extra), tmp_path).files}
    assert found == {
        "pkg/a.py",
        "pkg/kept.pyc",
        f"{info}/licenses/LICENSE",
        f"{info}/METADATA",
        f"{info}/WHEEL",
        f"{info}/INSTALLER",
        f"{info}/RECORD",
    }
    assert (tmp_path / "files" / info / "INSTALLER").read_text() == "flowkiln\n"
    assert "__pycache__" not in (tmp_path / "files" / info / "RECORD").read_text()


def test_data_folders_and_entry_points(tmp_path: Path) -> None:
    data = data_folder("pkg")
    one = wheel(
        "pkg",
        files={
            f"{data}/purelib/pure.py": "p",
            f"{data}/platlib/plat.py": "p",
            f"{data}/scripts/tool": "#!python\nprint()\n",
            f"{data}/scripts/native": "\x7fELF",
            f"{data}/data/share/x": "x",
            f"{data}/headers/pkg.h": "h",
        },
        console={"pkg-run": "pkg:main", "pkg-sub": "pkg.sub:Thing.go"},
        entry_points="[gui_scripts]\npkg-gui = pkg:gui\n[other.group]\nx = y\n",
    )
    found = unpacked(one, tmp_path)
    rows = {(f.scheme, f.path, f.executable, f.launcher) for f in found.files if ".dist-info" not in f.path}
    assert rows == {
        ("site", "pure.py", False, False),
        ("site", "plat.py", False, False),
        ("scripts", "tool", True, True),
        ("scripts", "native", True, False),
        ("data", "share/x", False, False),
        ("headers", "pkg.h", False, False),
    }
    assert [tuple(point) for point in found.entry_points] == [
        ("pkg-gui", "pkg", "gui", True),
        ("pkg-run", "pkg", "main", False),
        ("pkg-sub", "pkg.sub", "Thing.go", False),
    ]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("scripts/python", "belongs to the environment"),
        ("scripts/python3", "belongs to the environment"),
        ("scripts/Python3.11", "belongs to the environment"),
        ("data/bin/python3.12", "belongs to the environment"),
        ("data/pyvenv.cfg", "belongs to the environment"),
        ("data/PYVENV.cfg", "belongs to the environment"),
        ("data/.flowkiln/tree.json", "belongs to the environment"),
        ("data/lib/python3.11/EXTERNALLY-MANAGED", "belongs to the environment"),
        ("data/lib64", "belongs to the environment"),
        ("etc/passwd", "unknown data folder"),
    ],
)
def test_data_folders_may_not_claim_what_makes_the_prefix(path: str, reason: str, tmp_path: Path) -> None:
    one = wheel("evil", files={f"{data_folder('evil')}/{path}": "#!/bin/sh\n"})
    with pytest.raises(HostileWheel, match=reason):
        unpacked(one, tmp_path)


def test_the_data_folder_of_another_distribution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostileWheel, match="another distribution"):
        unpacked(wheel("evil", files={"other-1.0.data/scripts/x": ""}), tmp_path)


@pytest.mark.parametrize("name", ["python", "python3.11", "../../outside", "a/b", "..", "a\\b"])
def test_entry_points_may_not_leave_bin_or_replace_the_interpreter(name: str, tmp_path: Path) -> None:
    with pytest.raises(HostileWheel, match=r"entry_points\.txt"):
        unpacked(wheel("evil", console={name: "evil:main"}), tmp_path)


def test_names_that_begin_like_the_interpreter_are_fine(tmp_path: Path) -> None:
    one = wheel("argcomplete", console={"python-argcomplete-check": "argcomplete:main", "pythonic": "a:b"})
    assert [p.name for p in unpacked(one, tmp_path).entry_points] == ["python-argcomplete-check", "pythonic"]


@pytest.mark.parametrize("text", ["[console_scripts]\nbroken\n", "[console_scripts]\nx = no-callable\n", "x = y\n"])
def test_unreadable_entry_points(text: str, tmp_path: Path) -> None:
    with pytest.raises(WheelUnreadable, match=r"entry_points\.txt"):
        unpacked(wheel("odd", entry_points=text), tmp_path)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("wrong-hash", "another hash in RECORD"),
        ("wrong-size", "another size in RECORD"),
        ("omits", "not in RECORD"),
        ("ghost", "only in RECORD: ghost/__init__.py"),
        ("no-hash", "hash missing does not hold"),
        ("malformed", "RECORD cannot be read"),
    ],
)
def test_record_is_checked_both_ways(fault: str, told: str, tmp_path: Path) -> None:
    one = wheel("liar", record=fault)  # type: ignore[arg-type]
    with pytest.raises(RecordMismatch, match=told):
        unpacked(one, tmp_path)


def test_a_missing_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WheelUnreadable, match="RECORD"):
        unpacked(wheel("bare", record="missing"), tmp_path)


def test_many_problems_are_told_in_few_lines(tmp_path: Path) -> None:
    one = wheel("liar", members=[Member(f"liar/{number}.py", b"", recorded=False) for number in range(100)])
    with pytest.raises(RecordMismatch, match="and 92 more") as caught:
        unpacked(one, tmp_path)
    assert len(caught.value.message.splitlines()) < 12


def test_signatures_of_record_need_not_be_in_it(tmp_path: Path) -> None:
    one = wheel("signed", members=[Member("signed-1.0.dist-info/RECORD.jws", b"{}", recorded=False)])
    assert not any("RECORD.jws" in file.path for file in unpacked(one, tmp_path).files)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "other"}, "file name says pkg 1.0, locked is other 1.0"),
        ({"version": "2.0"}, "file name says pkg 1.0, locked is pkg 2.0"),
        ({"filename": "other-1.0-py3-none-any.whl"}, "file name says other 1.0"),
        ({"filename": "pkg-1.0-py3.whl"}, "not a wheel's file name"),
    ],
)
def test_a_wheel_that_is_not_the_locked_distribution(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(WheelMismatch, match=told):
        unpacked(wheel("pkg"), tmp_path, **changes)


@pytest.mark.parametrize("metadata", [b"Name: other\nVersion: 1.0\n", b"Name: pkg\nVersion: 9\n", b"Name: pkg\n"])
def test_metadata_that_names_another_distribution(metadata: bytes, tmp_path: Path) -> None:
    with pytest.raises(WheelMismatch, match="METADATA says"):
        unpacked(wheel("pkg", metadata=b"Metadata-Version: 2.1\n" + metadata), tmp_path)


def test_versions_are_compared_as_versions(tmp_path: Path) -> None:
    one = wheel("pkg", "1.0.0", metadata=b"Metadata-Version: 2.1\nName: Pkg\nVersion: 1.0\n")
    assert unpacked(one, tmp_path).version == "1.0.0"


def test_newer_wheel_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelUnreadable, match=r"wheel format '2\.0'"):
        unpacked(wheel("pkg", wheel_file=b"Wheel-Version: 2.0\n"), tmp_path)


def test_two_metadata_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelUnreadable, match=r"one \.dist-info folder"):
        unpacked(wheel("pkg", members=[Member("other-1.0.dist-info/METADATA", b"")]), tmp_path)


def test_nothing_is_written_outside_when_a_member_leaves(tmp_path: Path) -> None:
    for one in (wheel("evil", members=[Member("../out.txt", b"x")]), wheel("bad", members=[link("bad/l", "/etc")])):
        folder = tmp_path / one.name
        (folder / "files").mkdir(parents=True)
        with pytest.raises(HostileWheel):
            unpack(one.write(folder), locked(one), folder / "files")
        assert list((folder / "files").iterdir()) == []
    assert not list(tmp_path.rglob("out.txt"))


def test_many_threads_write_the_same_as_one(tmp_path: Path) -> None:
    one = wheel("big", files={f"big/{number}.bin": os.urandom(200_000) for number in range(16)})
    path = one.write(tmp_path)
    made = []
    for threads in (1, 4):
        folder = tmp_path / str(threads)
        folder.mkdir()
        made.append(unpack(path, locked(one), folder, threads=threads))
    assert made[0] == made[1]
