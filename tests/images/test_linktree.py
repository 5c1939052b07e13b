"""What link scripts changed: an environment as it was made against the archive of its prefix."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from flowkiln.images import archive, linktree
from flowkiln.images.linktree import Left

TOP = linktree.PREFIX.rpartition("/")[2]
BEFORE = {
    "bin/tool": archive.made("x", b"#!/bin/sh\n", 0o755),
    "share/a.txt": archive.made("x", b"a\n", 0o644),
    "share/b.txt": archive.made("x", b"b\n", 0o644),
    "lib/link": archive.link("x", "b.txt"),
}


def member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, to: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(f"{TOP}/{name}" if name else TOP)
    info.type, info.mode, info.linkname, info.size = kind, mode, to, len(data)
    return info, data


UNCHANGED = [
    member("", kind=tarfile.DIRTYPE, mode=0o755),
    member("bin/tool", b"#!/bin/sh\n", mode=0o755),
    member("share/a.txt", b"a\n"),
    member("share/b.txt", b"b\n"),
    member("lib/link", kind=tarfile.SYMTYPE, to="b.txt"),
]


def compared(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes], without: str = "") -> Left:
    """The comparison with an archive of the unchanged files, those ``members`` after or in place of them."""
    names = {info.name for info, _ in members}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as opened:
        for info, data in [*UNCHANGED, *members]:
            replaced = info.name in names and (info, data) in UNCHANGED
            if not replaced and info.name != f"{TOP}/{without}":
                opened.addfile(info, io.BytesIO(data))
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r|") as opened:
        return linktree.compared(BEFORE, ((opened, info) for info in opened), tmp_path)


def told(left: Left) -> dict[str, object]:
    return {one.path: one.file.read_bytes() if one.file else one.target for one in left.changes}


def test_nothing_changed(tmp_path: Path) -> None:
    assert compared(tmp_path) == Left(changes=(), deleted=(), odd=(), messages="")
    assert list(tmp_path.iterdir()) == []


def test_changed_new_and_relinked_files_are_found(tmp_path: Path) -> None:
    left = compared(
        tmp_path,
        member("share/a.txt", b"other\n"),
        member("share/new/c.txt", b"c\n"),
        member("lib/link", kind=tarfile.SYMTYPE, to="a.txt"),
    )
    assert told(left) == {"share/a.txt": b"other\n", "share/new/c.txt": b"c\n", "lib/link": "a.txt"}
    assert left.deleted == ()


def test_a_file_that_can_be_executed_now_changed(tmp_path: Path) -> None:
    (one,) = compared(tmp_path, member("share/a.txt", b"a\n", mode=0o755)).changes
    assert (one.path, one.executable) == ("share/a.txt", True)


def test_permissions_of_others_and_writability_do_not_count(tmp_path: Path) -> None:
    assert compared(tmp_path, member("share/a.txt", b"a\n", mode=0o600)).changes == ()


def test_bytecode_and_folders_do_not_count(tmp_path: Path) -> None:
    left = compared(
        tmp_path,
        member("lib/__pycache__/a.cpython-311.pyc", b"x"),
        member("share/empty", kind=tarfile.DIRTYPE, mode=0o755),
    )
    assert left.changes == ()


def test_deleted_files_and_odd_ones_are_named(tmp_path: Path) -> None:
    left = compared(tmp_path, member("share/pipe", kind=tarfile.FIFOTYPE), without="share/b.txt")
    assert (left.deleted, left.odd) == (("share/b.txt",), ("share/pipe",))


def test_a_link_in_the_place_of_a_file_changed_it(tmp_path: Path) -> None:
    assert told(compared(tmp_path, member("share/a.txt", kind=tarfile.SYMTYPE, to="b.txt"))) == {
        "share/a.txt": "b.txt"
    }


def test_second_names_of_changed_and_unchanged_files_have_their_content(tmp_path: Path) -> None:
    left = compared(
        tmp_path,
        member("share/new.txt", b"new\n"),
        member("share/one.txt", kind=tarfile.LNKTYPE, to=f"{TOP}/share/new.txt"),
        member("share/two.txt", kind=tarfile.LNKTYPE, to=f"{TOP}/share/a.txt"),
    )
    assert told(left) == {"share/new.txt": b"new\n", "share/one.txt": b"new\n", "share/two.txt": b"a\n"}


def test_messages_are_read_and_no_file(tmp_path: Path) -> None:
    left = compared(tmp_path, member(".messages.txt", b"read\nthis \xff\n"))
    assert left.messages == "read\nthis \ufffd"
    assert left.changes == ()


def test_the_prefix_is_long_and_fits_into_a_first_line() -> None:
    assert len(linktree.PREFIX) == 200
    assert len(f"#!{linktree.PREFIX}/bin/python3.11\n") < 255
