"""The package of linked files: its bytes follow from the files, and it installs at any prefix."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base import relocate
from flowkiln.envs import condaunpack, linkedfiles
from flowkiln.envs.builderrors import BadLinking
from flowkiln.envs.lock import LinkedFiles
from flowkiln.images import linkpackage
from flowkiln.images.linktree import PREFIX, Change

DIGEST = "sha256:" + "1" * 64


def change(folder: Path, path: str, data: bytes, *, executable: bool = False) -> Change:
    file = folder / str(len(list(folder.iterdir())))
    file.write_bytes(data)
    return Change(path=path, executable=executable, file=file)


def locked(sha256: str, size: int) -> LinkedFiles:
    return linkedfiles.linked(
        subdir="linux-64", sha256=sha256, size=size, key=DIGEST, where="base", scripts=("one",), replaces=()
    )


def test_files_links_and_prefixes_come_back(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    changes = (
        change(tmp_path / "in", "bin/made", b"#!" + PREFIX.encode() + b"/bin/python\n", executable=True),
        change(tmp_path / "in", "lib/made.bin", b"\0" + PREFIX.encode() + b"/lib\0"),
        Change(path="share/deep/link", target=f"{PREFIX}/bin/made"),
        Change(path="share/near", target="deep/link"),
        change(tmp_path / "in", "share/ä b.txt", b"plain"),
    )
    made = tmp_path / linkedfiles.FILENAME
    sha256, size = linkpackage.write(made, changes, "linux-64", "label")
    assert size == made.stat().st_size
    package = condaunpack.unpack(made, locked(sha256, size), tmp_path / "out")
    assert {one.path: (one.executable, one.target, one.kind) for one in package.files} == {
        "bin/made": (True, "", "text"),
        "lib/made.bin": (False, "", "binary"),
        "share/deep/link": (False, "../../bin/made", ""),
        "share/near": (False, "deep/link", ""),
        "share/ä b.txt": (False, "", ""),
    }
    again, _ = linkpackage.write(tmp_path / "again", changes, "linux-64", "label")
    assert again == sha256


@given(
    before=st.binary(max_size=40),
    after=st.binary(max_size=40),
    encoding=st.sampled_from(relocate.ENCODINGS),
    prefix=st.sampled_from(["/opt/env", "/home/someone/.cache/flowkiln/trees/0123456789abcdef"]),
)
def test_what_holds_the_prefix_is_written_for_another_and_back(
    before: bytes, after: bytes, encoding: str, prefix: str
) -> None:
    data = before + PREFIX.encode(encoding) + after
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        sha256, size = linkpackage.write(
            folder / "x", (change(folder / "in", "lib/one", data),), "linux-64", "label"
        )
        (one,) = condaunpack.unpack(folder / "x", locked(sha256, size), folder / "out").files
    kind: relocate.Kind = "binary" if one.kind == "binary" else "text"
    assert one.placeholder == PREFIX
    written, offsets = relocate.written(data, PREFIX, prefix, kind)
    assert relocate.restored(written, offsets, PREFIX, prefix, kind) == data


@pytest.mark.parametrize("target", ["/etc/passwd", "../../out", f"{PREFIX}-other/file", f"{PREFIX}/../up"])
def test_links_that_leave_are_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(BadLinking, match="share/out -> "):
        linkpackage.write(tmp_path / "x", (Change(path="share/out", target=target),), "linux-64", "label")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLinking, match="no UTF-8"):
        linkpackage.write(tmp_path / "x", (Change(path="share/\udcff", target="x"),), "linux-64", "label")


@pytest.mark.parametrize("path", ["bin/python3.12", "conda-meta/other.json", ".flowkiln/tree.json", "pyvenv.cfg"])
def test_what_belongs_to_the_environment_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "in").mkdir()
    sha256, size = linkpackage.write(tmp_path / "x", (change(tmp_path / "in", path, b"x"),), "linux-64", "label")
    with pytest.raises(BadLinking, match="belongs to the environment"):
        linkpackage.check(tmp_path / "x", locked(sha256, size), tmp_path / "out", "label")


def test_nothing_left_is_a_package_too(tmp_path: Path) -> None:
    sha256, size = linkpackage.write(tmp_path / "x", (), "linux-64", "label")
    assert condaunpack.unpack(tmp_path / "x", locked(sha256, size), tmp_path / "out").files == ()
