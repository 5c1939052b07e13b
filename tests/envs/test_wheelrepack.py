"""Equal files give equal wheels, whatever wrote the zip."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from flowkiln.envs.builderrors import BadBuild
from flowkiln.envs.wheelrepack import is_pure, name_and_version, repack


def zipped(path: Path, names: list[str], *, method: int, year: int, system: int = 3) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            info = zipfile.ZipInfo(name, (year, 5, 6, 7, 8, 9))
            info.create_system = system
            info.external_attr = (0o100775 if name.endswith(".sh") else 0o100600) << 16
            archive.writestr(info, f"content of {name}" * 50, method)
    return path


def test_times_orders_modes_and_compression_do_not_matter(tmp_path: Path) -> None:
    one = zipped(tmp_path / "1.whl", ["a.py", "b.sh", "x/c.py"], method=zipfile.ZIP_DEFLATED, year=2024)
    two = zipped(tmp_path / "2.whl", ["x/c.py", "b.sh", "a.py"], method=zipfile.ZIP_STORED, year=1999)
    assert repack(one, tmp_path / "made1", "x") == repack(two, tmp_path / "made2", "x")
    assert (tmp_path / "made1").read_bytes() == (tmp_path / "made2").read_bytes()
    with zipfile.ZipFile(tmp_path / "made1") as archive:
        assert archive.namelist() == ["a.py", "b.sh", "x/c.py"]
        assert archive.getinfo("b.sh").external_attr >> 16 & 0o777 == 0o755
        assert archive.testzip() is None


def test_other_content_gives_another_hash(tmp_path: Path) -> None:
    one = zipped(tmp_path / "1.whl", ["a.py"], method=zipfile.ZIP_STORED, year=2024)
    two = zipped(tmp_path / "2.whl", ["b.py"], method=zipfile.ZIP_STORED, year=2024)
    assert repack(one, tmp_path / "made1", "x") != repack(two, tmp_path / "made2", "x")


def test_damaged_and_doubled_wheels_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "1.whl", ["a.py"], method=zipfile.ZIP_DEFLATED, year=2024).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:30])
    with pytest.raises(BadBuild, match="damaged"):
        repack(tmp_path / "cut", tmp_path / "made", "x")
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive:
        archive.writestr("a.py", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.py", "2")
    with pytest.raises(BadBuild, match="twice"):
        repack(tmp_path / "twice", tmp_path / "made", "x")


def test_names() -> None:
    assert name_and_version("Some_Name-1.0-py3-none-any.whl", "x")[0] == "some-name"
    assert is_pure("a-1-py2.py3-none-any.whl")
    assert not is_pure("a-1-cp311-cp311-linux_x86_64.whl")
    with pytest.raises(BadBuild, match="not the name"):
        name_and_version("evil.whl", "x")
