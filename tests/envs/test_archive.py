from __future__ import annotations

import io
import stat
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import archive
from flowkiln.envs.installerrors import HostileWheel, InstallError, WheelUnreadable
from tests.services.wheels import Member, link, understated, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.wheels import Distribution


def read(one: Distribution, folder: Path) -> dict[str, bytes]:
    with archive.opened(one.write(folder), one.filename) as opened:
        return {member.path: opened.read(member) for member in opened.members}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.py", "leaves the environment"),
        ("pkg/../../outside.py", "leaves the environment"),
        ("/etc/passwd", "absolute path"),
        ("C:/windows/system.ini", "absolute path"),
        ("pkg\\..\\outside.py", "backslash"),
        ("pkg//twice.py", "empty part"),
        ("./pkg.py", "empty part"),
        ("pkg/line\nbreak.py", "control character"),
        ("pkg/" + "x" * 256, "too long"),
    ],
)
def test_hostile_names_are_refused(name: str, reason: str, tmp_path: Path) -> None:
    one = wheel("evil", members=[Member(name, b"x")])
    with pytest.raises(HostileWheel, match=reason) as caught:
        read(one, tmp_path)
    assert one.filename in caught.value.message


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([link("evil/out", "../../../etc/passwd")], "a link"),
        ([link("evil/in", "__init__.py")], "a link"),
        ([Member("evil/pipe", b"", stat.S_IFIFO | 0o644)], "neither a file nor a folder"),
        ([Member("evil/a.py", b"1"), Member("evil/a.py", b"2")], "twice in the archive"),
        ([Member("evil/a.py", b"1"), Member("evil/A.py", b"2")], "differs only in case from 'evil/a.py'"),
        ([Member("evil/é.py", b"1"), Member("evil/e\u0301.py", b"2")], "differs only in case"),
        ([Member("evil/a", b"1"), Member("evil/a/b.py", b"2")], "is a file and the folder of"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_members_are_refused(members: list[Member], reason: str, tmp_path: Path) -> None:
    with pytest.raises(HostileWheel, match=reason):
        read(wheel("evil", members=members), tmp_path)


def test_more_bytes_than_declared_are_refused_without_unpacking_them(tmp_path: Path) -> None:
    bomb = understated(wheel("bomb", files={"bomb/data": bytes(50 << 20)}), "bomb/data", 10)
    with archive.opened(bomb.write(tmp_path), bomb.filename) as opened:
        member = next(one for one in opened.members if one.path == "bomb/data")
        with pytest.raises(HostileWheel, match="does not unpack to the 10 bytes"):
            opened.write(member, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= 11


def test_fewer_bytes_than_declared_are_refused(tmp_path: Path) -> None:
    one = understated(wheel("short", files={"short/data": b"abc" * 100}), "short/data", 10_000)
    with pytest.raises(HostileWheel, match="does not unpack"):
        read(one, tmp_path)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as made:
        made.writestr("a", b"x" * 100)
        made.writestr("b", b"x" * 100)
        made.infolist()[1].header_offset = made.infolist()[0].header_offset
    path = tmp_path / "folded.whl"
    path.write_bytes(raw.getvalue())
    with pytest.raises(HostileWheel, match="overlaps"), archive.opened(path, "folded.whl"):
        pass


def test_two_names_for_one_member_are_refused(tmp_path: Path) -> None:
    one = wheel("sly", files={"sly/real.py": "x"})
    data = bytearray(one.data)
    at = data.find(b"sly/real.py")
    data[at : at + 11] = b"sly/fake.py"
    path = tmp_path / one.filename
    path.write_bytes(data)
    with archive.opened(path, one.filename) as opened:
        member = next(member for member in opened.members if member.path == "sly/real.py")
        with pytest.raises(HostileWheel, match="two names"):
            opened.read(member)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    one = wheel("secret")
    data = bytearray(one.data)
    central = data.find(b"PK\x01\x02")
    data[central + 8] |= 1
    path = tmp_path / one.filename
    path.write_bytes(data)
    with pytest.raises(WheelUnreadable, match="encrypted"), archive.opened(path, one.filename):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int, tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr("a", b"x")
    with pytest.raises(WheelUnreadable, match="compressed in a way"), archive.opened(path, "x.whl"):
        pass


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_zip_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    path.write_bytes(data)
    with pytest.raises(WheelUnreadable, match="not a readable zip"), archive.opened(path, "x.whl"):
        pass


def test_damaged_content_is_an_error(tmp_path: Path) -> None:
    one = wheel("dented", files={"dented/data": bytes(range(256)) * 400})
    data = bytearray(one.data)
    start = data.find(b"dented/data") + 20
    data[start : start + 40] = bytes(b ^ 0x5A for b in data[start : start + 40])
    path = tmp_path / one.filename
    path.write_bytes(data)
    with archive.opened(path, one.filename) as opened:
        member = next(member for member in opened.members if member.path == "dented/data")
        with pytest.raises(InstallError):
            opened.write(member, tmp_path / "out")


def test_large_members_come_out_whole_in_blocks(tmp_path: Path) -> None:
    content = b"".join(zlib.crc32(number.to_bytes(4, "big")).to_bytes(4, "big") for number in range(1 << 20))
    one = wheel("large", files={"large/data": content})
    with archive.opened(one.write(tmp_path), one.filename) as opened:
        member = next(member for member in opened.members if member.path == "large/data")
        blocks = list(opened.blocks(member))
    assert b"".join(blocks) == content
    assert max(map(len, blocks)) <= 1 << 20
