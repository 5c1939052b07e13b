"""Source archives are checked whole before a byte of them is written."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln.envs import sourcetree
from flowkiln.envs.builderrors import HostileSource, NotAProject
from flowkiln.envs.sourcetree import build_system, unpack


def tar(path: Path, *members: tuple[str, str | None, bytes]) -> Path:
    """A tar at ``path``: members are (name, type and link target as ``sym:x`` or ``hard:x``, content)."""
    with tarfile.open(path, "w") as archive:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            if kind is None:
                info.size = len(data)
            elif kind == "fifo":
                info.type = tarfile.FIFOTYPE
            else:
                info.type = tarfile.SYMTYPE if kind.startswith("sym:") else tarfile.LNKTYPE
                info.linkname = kind.partition(":")[2]
            archive.addfile(info, io.BytesIO(data) if kind is None else None)
    return path


def test_the_only_folder_is_the_project(tmp_path: Path) -> None:
    archive = tar(
        tmp_path / "a.tar",
        ("x-1.0/pyproject.toml", None, b""),
        ("x-1.0/py/setup.py", None, b"1"),
        ("x-1.0/link", "sym:py/setup.py", b""),
        ("x-1.0/hard", "hard:x-1.0/py/setup.py", b""),
    )
    root = unpack(archive, tmp_path / "one", label="x")
    assert root == tmp_path / "one" / "x-1.0"
    assert (root / "link").read_bytes() == (root / "hard").read_bytes() == b"1"
    assert unpack(archive, tmp_path / "two", subdirectory="py", label="x").name == "py"
    with pytest.raises(NotAProject, match="no folder 'other'"):
        unpack(archive, tmp_path / "three", subdirectory="other", label="x")


def test_a_zip_is_a_source_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x-1.0/setup.py", "pass")
    assert (unpack(tmp_path / "a.zip", tmp_path / "one", label="x") / "setup.py").read_text() == "pass"


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", None, b""),
        ("/evil", None, b""),
        ("x/../../evil", None, b""),
        ("x/link", "sym:../../evil", b""),
        ("x/link", "sym:/etc/passwd", b""),
        ("x/link", "hard:/etc/passwd", b""),
        ("x/link", "hard:absent", b""),
        ("x/pipe", "fifo", b""),
        ("x/a\\b", None, b""),
    ],
    ids=[
        "parent",
        "absolute",
        "winding",
        "link-out",
        "link-absolute",
        "hard-absolute",
        "hard-absent",
        "fifo",
        "bs",
    ],
)
def test_what_leaves_the_archive_is_refused(tmp_path: Path, member: tuple[str, str | None, bytes]) -> None:
    archive = tar(tmp_path / "a.tar", ("x/setup.py", None, b""), member)
    with pytest.raises(HostileSource):
        unpack(archive, tmp_path / "one", label="x")
    assert not (tmp_path / "evil").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", ("x/dir", "sym:real", b""), ("x/dir/file", None, b""))
    with pytest.raises(HostileSource, match="below a link"):
        unpack(archive, tmp_path / "one", label="x")
    chained = tar(tmp_path / "b.tar", ("x/a", "sym:b", b""), ("x/b", "sym:c/..", b""), ("x/c/file", None, b""))
    with pytest.raises(HostileSource, match="through another link"):
        unpack(chained, tmp_path / "two", label="x")


def test_a_path_twice_is_refused(tmp_path: Path) -> None:
    archive = tar(tmp_path / "a.tar", ("x/a", None, b"1"), ("x/./a", None, b"2"))
    with pytest.raises(HostileSource, match="twice"):
        unpack(archive, tmp_path / "one", label="x")


@pytest.mark.parametrize("names", [("x/a", "x/a/b"), ("x/a/b", "x/a")])
def test_a_path_that_is_file_and_folder_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    archive = tar(tmp_path / "a.tar", *((name, None, b"1") for name in names))
    with pytest.raises(HostileSource, match="'x/a/b' lies below a file"):
        unpack(archive, tmp_path / "one", label="x")


def test_more_than_any_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sourcetree, "MOST_BYTES", 10)
    archive = tar(tmp_path / "a.tar", ("x/a", None, b"12345678901"))
    with pytest.raises(HostileSource, match="larger"):
        unpack(archive, tmp_path / "one", label="x")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04cut"])
def test_what_is_no_archive_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(HostileSource, match="cannot be read"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "one", label="x")


NAMES = st.sampled_from(["a", "b", "a/b", "a/c", "..", "../a", "a/..", "/a", "a/../b", "./a", "b/../../c"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), NAMES.map("sym:{}".format), NAMES.map("hard:{}".format)))))
def test_no_archive_reaches_outside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, str | None]]
) -> None:
    place = tmp_path_factory.mktemp("any")
    archive = tar(place / "a.tar", *((name, kind, b"x") for name, kind in members))
    target = place / "inner" / "target"
    target.parent.mkdir()
    with contextlib.suppress(HostileSource):
        unpack(archive, target, label="x")
    assert sorted(path.name for path in place.iterdir()) == ["a.tar", "inner"]
    assert [path.name for path in target.parent.iterdir()] in ([], ["target"])
    for folder, folders, names in os.walk(target):
        for name in (*folders, *names):
            assert (Path(folder) / name).resolve().is_relative_to(target.resolve())


def test_what_builds_a_project(tmp_path: Path) -> None:
    with pytest.raises(NotAProject, match="neither"):
        build_system(tmp_path, "x")
    (tmp_path / "setup.py").touch()
    assert build_system(tmp_path, "x").backend == "setuptools.build_meta:__legacy__"
    (tmp_path / "pyproject.toml").write_text("[tool.x]\n")
    assert build_system(tmp_path, "x").requires == ("setuptools>=40.8.0",)
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "own"\nbackend-path = ["./backend"]\n'
    )
    found = build_system(tmp_path, "x")
    assert (found.requires, found.backend, found.backend_path) == (("hatchling",), "own", ("backend",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[build-system", "cannot be read"),
        ("[build-system]\nrequires = 3\n", "PEP 518"),
        ("build-system = 3\n", "PEP 518"),
        ('[build-system]\nrequires = ["a b c"]\n', "not valid"),
        ('[build-system]\nrequires = ["a @ https://x.test/a.zip"]\n', "URL"),
        ('[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["../x"]\n', "not in the source"),
        ("[build-system]\nrequires = []\nbuild-backend = 3\n", "not in the source"),
    ],
)
def test_a_bad_build_system_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(NotAProject, match=told):
        build_system(tmp_path, "x")
