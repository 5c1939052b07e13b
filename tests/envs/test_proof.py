from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import proof, treefile
from flowkiln.envs.installerrors import EnvironmentMismatch
from flowkiln.envs.proof import verify
from flowkiln.envs.tree import Tree, Trees
from tests.envs.made import PYTHON, interpreter, locked, part
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.proof import Level
    from tests.services.home import Home

SITE = f"lib/python{PYTHON}/site-packages"
ONE = wheel("pkg", files={"pkg/__init__.py": "value = 1\n", "pkg/data.txt": "data"}, console={"pkg": "pkg:main"})
OTHER = wheel("other", files={"other.py": "value = 2\n"})
LEVELS: tuple[Level, ...] = ("stat", "full")


@pytest.fixture
def lock(tmp_path: Path) -> PlatformLock:
    return part([locked(ONE, str(tmp_path / "index"))])


@pytest.fixture
def tree(home: Home, lock: PlatformLock) -> Tree:
    return Trees(home.cache).materialise(lock, interpreter())


def check(tree: Tree, level: Level = "stat") -> None:
    verify(tree.root, tree.env_id, tree.tree_digest, level)


def replace(path: Path, content: str) -> None:
    """As an editor does: a new file under the old name."""
    path.unlink()
    path.write_text(content)
    path.chmod(0o444)


@pytest.mark.parametrize("level", LEVELS)
def test_an_untouched_tree_passes(tree: Tree, level: Level) -> None:
    check(tree, level)


@pytest.mark.parametrize("level", LEVELS)
def test_changed_missing_and_extra_files_are_named_with_what_to_do(tree: Tree, level: Level) -> None:
    replace(tree.root / SITE / "pkg/__init__.py", "value = 3\n")
    (tree.root / SITE / "pkg/data.txt").unlink()
    (tree.root / SITE / "stray.pth").write_text("import os")
    with pytest.raises(EnvironmentMismatch) as caught:
        check(tree, level)
    assert caught.value.exit_code == 17
    assert caught.value.data["changed"] == [f"{SITE}/pkg/__init__.py"]
    assert caught.value.data["missing"] == [f"{SITE}/pkg/data.txt"]
    assert caught.value.data["extra"] == [f"{SITE}/stray.pth"]
    assert "1 changed, 1 missing, 1 extra" in caught.value.message
    assert "flowkiln env verify --repair" in (caught.value.hint or "")


def test_a_change_in_place_is_found_by_its_time(tree: Tree) -> None:
    path = tree.root / SITE / "pkg/__init__.py"
    path.chmod(0o644)
    path.write_text("value = 7\n")
    path.chmod(0o444)
    with pytest.raises(EnvironmentMismatch, match=r"changed: .*pkg/__init__\.py"):
        check(tree)


def test_a_change_with_size_and_time_put_back_is_found_by_full_alone(tree: Tree) -> None:
    path = tree.root / SITE / "pkg/__init__.py"
    before = path.stat()
    path.chmod(0o644)
    path.write_text("value = 7\n")
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    check(tree, "stat")
    with pytest.raises(EnvironmentMismatch):
        check(tree, "full")


@pytest.mark.parametrize("level", LEVELS)
def test_another_mode_is_a_change(tree: Tree, level: Level) -> None:
    (tree.root / SITE / "pkg/data.txt").chmod(0o555)
    with pytest.raises(EnvironmentMismatch, match=r"changed: .*data\.txt"):
        check(tree, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("path", ["bin/pkg", "pyvenv.cfg", f"lib/python{PYTHON}/EXTERNALLY-MANAGED"])
def test_glue_is_verified_too(tree: Tree, path: str, level: Level) -> None:
    replace(tree.root / path, "changed")
    with pytest.raises(EnvironmentMismatch, match="changed: "):
        check(tree, level)


@pytest.mark.parametrize("level", LEVELS)
def test_links_are_verified_by_their_target(tree: Tree, level: Level) -> None:
    link = tree.root / "bin/python3"
    link.unlink()
    link.symlink_to("/bin/sh")
    with pytest.raises(EnvironmentMismatch, match="changed: bin/python3"):
        check(tree, level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_link_in_place_of_a_file_is_a_change(tree: Tree, level: Level) -> None:
    path = tree.root / SITE / "pkg/data.txt"
    path.rename(tree.root.parent / "moved")
    path.symlink_to(tree.root.parent / "moved")
    with pytest.raises(EnvironmentMismatch, match=r"changed: .*data\.txt"):
        check(tree, level)


def test_a_missing_interpreter_is_told(tree: Tree) -> None:
    link = tree.root / "bin/python"
    link.unlink()
    link.symlink_to("/nowhere/python3")
    with pytest.raises(EnvironmentMismatch, match="interpreter of the environment"):
        check(tree)


@pytest.mark.parametrize("level", LEVELS)
def test_bytecode_is_passed_over_but_sourceless_modules_are_not(tree: Tree, level: Level) -> None:
    cache = tree.root / SITE / "pkg/__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"")
    check(tree, level)
    (tree.root / SITE / "stray.pyc").write_bytes(b"")
    with pytest.raises(EnvironmentMismatch, match=r"stray\.pyc"):
        check(tree, level)


def test_linking_a_sibling_changes_nothing(tree: Tree, home: Home, lock: PlatformLock, tmp_path: Path) -> None:
    """The change time of every shared file moves when another tree is made of the same store."""
    wider = part([*lock.wheels, locked(OTHER, str(tmp_path / "index"))])
    before = (tree.root / SITE / "pkg/data.txt").stat().st_ctime_ns
    sibling = Trees(home.cache).materialise(wider, interpreter())
    if (sibling.root / SITE / "pkg/data.txt").stat().st_ino == (tree.root / SITE / "pkg/data.txt").stat().st_ino:
        assert (tree.root / SITE / "pkg/data.txt").stat().st_ctime_ns != before
    check(tree)
    check(sibling)


def test_a_copied_cache_passes_after_one_reading(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache restored elsewhere has other inodes and times: the contents decide, once."""
    moved = tree.root.with_name("aside")
    shutil.copytree(tree.root, moved, symlinks=True, copy_function=shutil.copy)
    shutil.rmtree(tree.root)
    moved.rename(tree.root)
    check(tree)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(proof, "_digest", never)
    check(tree)


@pytest.mark.parametrize("damage", ["", "nonsense", "0" * 64 + "\n{}"])
def test_lost_stamps_mean_reading_everything(tree: Tree, damage: str) -> None:
    stamps = tree.root / treefile.FOLDER / "stamps.json"
    stamps.write_text(damage)
    check(tree)
    replace(tree.root / SITE / "pkg/data.txt", "DATA")
    stamps.write_text(damage)
    with pytest.raises(EnvironmentMismatch, match=r"data\.txt"):
        check(tree)


@pytest.mark.parametrize("name", ["tree.json", "files.json"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_description_is_guarded(tree: Tree, name: str, level: Level) -> None:
    path = tree.root / treefile.FOLDER / name
    path.write_bytes(path.read_bytes().replace(b"pkg", b"pgk", 1).replace(b"env_id", b"env_di"))
    with pytest.raises(EnvironmentMismatch) as caught:
        check(tree, level)
    assert caught.value.exit_code == 17
    path.unlink()
    with pytest.raises(EnvironmentMismatch, match="is gone"):
        check(tree, level)


def test_a_changed_list_that_fits_its_own_digest_is_not_the_expected_one(tree: Tree) -> None:
    """Whoever rewrites the description cannot rewrite what the task expects."""
    inside = tree.root / treefile.FOLDER
    document = json.loads((inside / "files.json").read_bytes())
    document["files"].pop()
    (inside / "files.json").write_text(json.dumps(document))
    with pytest.raises(EnvironmentMismatch, match="was changed"):
        check(tree)


def test_another_environment_at_the_place_is_told(tree: Tree) -> None:
    with pytest.raises(EnvironmentMismatch, match="another environment"):
        verify(tree.root, "sha256:" + "0" * 64, tree.tree_digest)
    with pytest.raises(EnvironmentMismatch, match="another tree"):
        verify(tree.root, tree.env_id, "sha256:" + "0" * 64)
    moved = tree.root.rename(tree.root.with_name("moved"))
    with pytest.raises(EnvironmentMismatch, match="another prefix"):
        verify(moved, tree.env_id, tree.tree_digest)
    with pytest.raises(EnvironmentMismatch, match="is gone"):
        check(tree)


def test_many_differences_are_told_in_few_lines(tree: Tree) -> None:
    for number in range(50):
        (tree.root / SITE / f"stray{number}.py").write_text("")
    with pytest.raises(EnvironmentMismatch, match="and 44 more extra") as caught:
        check(tree)
    assert len(caught.value.message.splitlines()) < 12


def test_a_broken_tree_is_repaired_with_its_store(tree: Tree, home: Home, lock: PlatformLock) -> None:
    """The damage went through a hard link into the store as well: both are made anew."""
    path = tree.root / SITE / "pkg/__init__.py"
    path.chmod(0o644)
    path.write_text("value = 7\n")
    with pytest.raises(EnvironmentMismatch):
        check(tree)
    repaired = Trees(home.cache).repair(lock, interpreter())
    assert repaired == tree
    assert (repaired.root / SITE / "pkg/__init__.py").read_text() == "value = 1\n"
    check(repaired, "full")


def test_damage_in_the_store_does_not_spread_to_new_trees(
    tree: Tree, home: Home, lock: PlatformLock, tmp_path: Path
) -> None:
    path = tree.root / SITE / "pkg/__init__.py"
    path.chmod(0o644)
    path.write_text("value = 7\n")
    path.chmod(0o444)
    wider = part([*lock.wheels, locked(OTHER, str(tmp_path / "index"))])
    sibling = Trees(home.cache).materialise(wider, interpreter())
    assert (sibling.root / SITE / "pkg/__init__.py").read_text() == "value = 1\n"
    check(sibling, "full")
