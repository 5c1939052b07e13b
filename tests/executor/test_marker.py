"""Proof of an environment from the marker in its image, at each level."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor import marker

from . import images

TREE = images.tree()
DIGEST = images.tree_digest()
THING = f"{images.SITE}/thing.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An environment as images hold it."""
    made = tmp_path / "env"
    for path, data in TREE.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(data)
        (made / path).chmod(images.mode_of(path))
    (made / "bin" / "python").symlink_to(images.PYTHON)
    return made


def verify(root: Path, level: str, env_id: str = images.ENV_ID, digest: str = DIGEST) -> None:
    marker.verify(str(root), env_id, digest, level)


@pytest.mark.parametrize("level", marker.LEVELS)
def test_what_is_as_it_was_passes(root: Path, level: str) -> None:
    verify(root, level)
    (root / images.SITE / "__pycache__").mkdir()
    (root / "share").mkdir()
    (root / "share" / "anything").write_text("nobody imports or runs this")
    verify(root, level)


@pytest.mark.parametrize("level", marker.LEVELS)
def test_another_environment_is_refused_at_every_level(root: Path, level: str) -> None:
    with pytest.raises(marker.Mismatch, match="another environment"):
        verify(root, level, env_id="sha256:" + "0" * 64)
    with pytest.raises(marker.Mismatch, match="another tree"):
        verify(root, level, digest="sha256:" + "0" * 64)


def edited(root: Path) -> None:
    (root / THING).write_bytes(b"VALUE = 2\n")


def longer(root: Path) -> None:
    (root / THING).write_bytes(b"VALUE = 10\n")


def other_mode(root: Path) -> None:
    (root / THING).chmod(0o755)


def deleted(root: Path) -> None:
    (root / THING).unlink()


def linked(root: Path) -> None:
    (root / "elsewhere").write_bytes(TREE[THING])
    (root / THING).unlink()
    (root / THING).symlink_to(root / "elsewhere")


def module_added(root: Path) -> None:
    (root / images.SITE / "sitecustomize.py").touch()


def folder_linked(root: Path) -> None:
    (root / images.SITE / "package").symlink_to("/tmp")


def program_added(root: Path) -> None:
    (root / "bin" / "pip").touch()


def glue_edited(root: Path) -> None:
    (root / "pyvenv.cfg").write_text("include-system-site-packages = true\n")


def interpreter_moved(root: Path) -> None:
    (root / "bin" / "python").unlink()
    (root / "bin" / "python").symlink_to("/usr/bin/python3")


def list_edited(root: Path) -> None:
    part = root / ".flowkiln/parts/two.json"
    document = json.loads(part.read_bytes())
    document["files"][0][2] = "0" * 64
    part.write_text(json.dumps(document))


def list_shortened(root: Path) -> None:
    (root / ".flowkiln/parts/two.json").unlink()


def list_of_something_else(root: Path) -> None:
    (root / ".flowkiln/parts/two.json").write_text('{"files":[["bin/tool",493]],"schema":1}')


def list_deleted(root: Path) -> None:
    for part in (root / ".flowkiln/parts").iterdir():
        part.unlink()
    (root / ".flowkiln/parts").rmdir()


Damage = Callable[[Path], None]

FOUND: list[tuple[Damage, str, tuple[str, ...]]] = [
    (edited, "1 changed\n  changed: lib", ("full",)),
    (longer, "1 changed\n  changed: lib", ("stat", "full")),
    (other_mode, "1 changed", ("stat", "full")),
    (deleted, "1 missing\n  missing: lib", ("stat", "full")),
    (linked, "1 changed", ("stat", "full")),
    (module_added, "1 extra\n  extra: lib", ("stat", "full")),
    (folder_linked, "1 extra", ("stat", "full")),
    (program_added, "1 extra\n  extra: bin/pip", ("stat", "full")),
    (glue_edited, "changed: pyvenv.cfg", ("full",)),
    (interpreter_moved, "changed: bin/python", ("stat", "full")),
    (list_edited, "list of files of the environment was changed", ("stat", "full")),
    (list_shortened, "list of files of the environment was changed", ("stat", "full")),
    (list_of_something_else, "cannot be read", ("stat", "full")),
    (list_deleted, "cannot be read", ("stat", "full")),
]


@pytest.mark.parametrize(("damage", "told", "levels"), FOUND, ids=[each[0].__name__ for each in FOUND])
@pytest.mark.parametrize("level", marker.LEVELS)
def test_damage_is_found_at_the_levels_that_look(
    root: Path, damage: Damage, told: str, levels: tuple[str, ...], level: str
) -> None:
    damage(root)
    if level not in levels:
        verify(root, level)
        return
    with pytest.raises(marker.Mismatch) as caught:
        verify(root, level)
    assert told in str(caught.value)


@pytest.mark.parametrize("level", marker.LEVELS)
def test_a_marker_that_is_damaged_or_gone_is_refused(root: Path, level: str) -> None:
    path = root / ".flowkiln/tree.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(marker.Mismatch, match="marker of the environment was changed"):
        verify(root, level)
    path.unlink()
    with pytest.raises(marker.Mismatch, match="no marker"):
        verify(root, level)


def test_a_marker_with_its_sum_made_anew_still_has_to_name_the_environment(root: Path) -> None:
    body = json.dumps({"env_id": "sha256:" + "f" * 64, "tree_digest": DIGEST}).encode()
    (root / ".flowkiln/tree.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(marker.Mismatch, match="another environment"):
        verify(root, "digest")


def test_long_lists_are_cut_short(root: Path) -> None:
    for number in range(20):
        (root / "bin" / f"extra{number:02}").touch()
    with pytest.raises(marker.Mismatch, match="20 extra") as caught:
        verify(root, "stat")
    assert "and 14 more extra" in str(caught.value)


@pytest.mark.parametrize("level", marker.LEVELS)
def test_an_environment_without_packages_has_no_list_and_is_proved_too(tmp_path: Path, level: str) -> None:
    document = json.dumps({"files": [], "schema": 1}, separators=(",", ":")).encode()
    digest = "sha256:" + hashlib.sha256(document).hexdigest()
    body = json.dumps({"env_id": images.ENV_ID, "tree_digest": digest, "glue": {}}).encode()
    (tmp_path / marker.FOLDER).mkdir()
    (tmp_path / marker.FOLDER / "tree.json").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    verify(tmp_path, level, digest=digest)
    if level != "digest":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "stray").write_text("")
        with pytest.raises(marker.Mismatch, match="bin/stray"):
            verify(tmp_path, level, digest=digest)
