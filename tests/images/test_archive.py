"""Archives: what other tools read back, and that the bytes depend on the members alone."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkiln.images import archive
from flowkiln.images.archive import Measure, Member
from flowkiln.images.errors import ContentDamaged

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
PATHS = (
    st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=7)
    .map("/".join)
    .filter(lambda path: len(path.encode()) < 3000)
)


def packed(members: list[Member]) -> bytes:
    stream = io.BytesIO()
    archive.write(members, stream.write)
    return stream.getvalue()


def stored(path: Path, data: bytes, name: str = "a") -> Member:
    path.write_bytes(data)
    return Member(name, "file", 0o444, len(data), str(path), hashlib.sha256(data).hexdigest())


@given(files=st.dictionaries(PATHS, st.binary(max_size=2000), max_size=12))
@settings(max_examples=60, deadline=None)
def test_tarfile_reads_back_every_member(files: dict[str, bytes]) -> None:
    above = {path[:at] for path in files for at in range(len(path)) if path[at] == "/"}
    members = archive.complete(archive.made(path, data) for path, data in files.items() if path not in above)
    data = packed(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        names = found.getnames()
        assert names == [member.path for member in members]
        for member in members:
            info = found.getmember(member.path)
            assert (info.uid, info.gid, info.mtime) == (0, 0, archive.TIME)
            assert info.mode == member.mode
            if member.kind == "file":
                content = found.extractfile(info)
                assert content is not None
                assert content.read() == member.source


def test_gnu_tar_reads_long_paths_and_links(tmp_path: Path) -> None:
    deep = "/".join(["d" * 60] * 5) + "/file"
    members = archive.complete(
        [archive.made(deep, b"x" * 513), archive.link("l", "t" * 150), archive.made("größe/ä", b"y", 0o555)]
    )
    place = tmp_path / "a.tar"
    place.write_bytes(packed(members))
    subprocess.run(["tar", "-xf", str(place), "-C", str(tmp_path)], check=True)
    assert (tmp_path / deep).read_bytes() == b"x" * 513
    assert str((tmp_path / "l").readlink()) == "t" * 150
    assert (tmp_path / "größe" / "ä").stat().st_mode & 0o777 == 0o555


def test_every_folder_above_a_member_has_an_entry_before_it() -> None:
    members = archive.complete([archive.made("opt/env/lib/a.py", b""), archive.made("opt/b", b"")])
    assert [member.path for member in members] == ["opt", "opt/b", "opt/env", "opt/env/lib", "opt/env/lib/a.py"]
    assert {member.mode for member in members if member.kind == "folder"} == {0o755}


def test_bytes_are_those_of_the_first_release() -> None:
    members = archive.complete([archive.made("a/b", b"hello"), archive.link("a/c", "b"), archive.made("ü", b"")])
    tar = Measure()
    archive.write(members, tar)
    assert tar.digest == "sha256:" + FROZEN


FROZEN = "19298966838bbb627845667ae9d863604766e9abee5b669a10b5ef89a72f1636"


@pytest.mark.parametrize("change", ["other", "shorter", "longer", "gone"])
def test_a_file_that_was_changed_is_noticed(tmp_path: Path, change: str) -> None:
    place = tmp_path / "file"
    member = stored(place, b"content" * 1000)
    if change == "gone":
        place.unlink()
    else:
        place.write_bytes({"other": b"CONTENT" * 1000, "shorter": b"content", "longer": b"content" * 1001}[change])
    with pytest.raises(ContentDamaged):
        packed([member])


def test_pieces_of_any_size_make_one_archive(tmp_path: Path) -> None:
    big = stored(tmp_path / "big", b"z" * 3_000_000, "big")
    members = [archive.made("a", b"1" * 300_000), big]
    pieces: list[bytes] = []
    archive.write(members, pieces.append)
    data = b"".join(pieces)
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        assert found.getnames() == ["a", "big"]
