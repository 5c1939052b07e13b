from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import glue, installer, treefile
from flowkiln.envs.installerrors import EnvironmentMismatch

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = treefile.Description(
    env_id="sha256:" + "1" * 64,
    tree_digest="sha256:" + "2" * 64,
    platform="linux/amd64",
    version="3.11.2",
    interpreter="/usr/bin/python3.11",
    prefix="/cache/trees/x",
    wheels=("3" * 64,),
    glue=treefile.glue_rows((glue.Glue("bin/python", 0o777, b"", "/usr/bin/python3.11"), glue.marker("3.11"))),
)


def stored(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / ".flowkiln").mkdir()
    (tmp_path / ".flowkiln" / "tree.json").write_bytes(data)
    return tmp_path


def test_a_description_is_read_back(tmp_path: Path) -> None:
    found = treefile.read(stored(tmp_path, DESCRIPTION.to_bytes()))
    assert found == DESCRIPTION
    assert found.glue["bin/python"] == (0o777, "-> /usr/bin/python3.11")


def test_no_tree_is_none(tmp_path: Path) -> None:
    assert treefile.read(tmp_path) is None
    (tmp_path / "file").write_text("")
    assert treefile.read(tmp_path / "file") is None


@pytest.mark.parametrize("position", [0, 70, 200, -3])
def test_one_changed_byte_is_damage(position: int, tmp_path: Path) -> None:
    data = bytearray(DESCRIPTION.to_bytes())
    data[position] ^= 1
    with pytest.raises(EnvironmentMismatch, match="damaged"):
        treefile.read(stored(tmp_path, bytes(data)))


def test_a_cut_description_is_damage(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMismatch, match="damaged"):
        treefile.read(stored(tmp_path, DESCRIPTION.to_bytes()[:100]))


def test_rows_are_those_of_the_digest(tmp_path: Path) -> None:
    document = installer.document([("b", 0o555, "4" * 64), ("a", 0o444, "5" * 64)])
    stored(tmp_path, b"")
    (tmp_path / ".flowkiln" / "files.json").write_bytes(document)
    digest = "sha256:" + hashlib.sha256(document).hexdigest()
    assert treefile.rows(tmp_path, digest) == {"a": (0o444, "5" * 64), "b": (0o555, "4" * 64)}
    with pytest.raises(EnvironmentMismatch, match="was changed"):
        treefile.rows(tmp_path, "sha256:" + "0" * 64)
