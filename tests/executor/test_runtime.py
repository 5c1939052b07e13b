from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import flowkiln
from flowkiln._base.errors import ReadOnly
from flowkiln.executor.runtime import runtime_folder

PACKAGE = Path(flowkiln.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def package(folder: Path, **files: str) -> Path:
    made = folder / "flowkiln"
    for name, text in {"__init__": "", **files}.items():
        target = made / (name.replace("__in__", "/") + ".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return made


def test_it_holds_our_package_and_nothing_else(tmp_path: Path) -> None:
    folder = runtime_folder(tmp_path)
    assert folder.parent == tmp_path / "runtime"
    assert names(folder) == ["flowkiln", "supervise.py"]
    assert not {"cli", "envs", "wiring"} & set(names(folder / "flowkiln"))
    assert (folder / "flowkiln/executor/child.py").read_bytes() == (PACKAGE / "executor/child.py").read_bytes()
    assert runtime_folder(tmp_path) == folder


@pytest.mark.parametrize("module", ["executor.template", "flow.worker", "flow.spec", "store.artifacts"])
def test_a_step_can_serve_from_it_alone(tmp_path: Path, module: str) -> None:
    folder = runtime_folder(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(folder)!r})"
    code += f"; import flowkiln.{module} as module; print(module.__file__)"
    printed = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.startswith(str(folder))


def test_identity_follows_bytes_and_names_only(tmp_path: Path) -> None:
    one = package(tmp_path / "one", child="x = 1")
    two = package(tmp_path / "two", child="x = 1", cli__in__main="not in steps")
    first = runtime_folder(tmp_path, one)
    assert runtime_folder(tmp_path, two) == first
    (two / "child.py").write_text("x = 2")
    assert runtime_folder(tmp_path, two) != first
    moved = package(tmp_path / "three", other="x = 1")
    assert runtime_folder(tmp_path, moved) != first


@pytest.mark.parametrize("damage", ["edited", "emptied", "deleted", "added"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, damage: str) -> None:
    source = package(tmp_path / "one", child="x = 1")
    folder = runtime_folder(tmp_path, source)
    child = folder / "flowkiln" / "child.py"
    if damage == "deleted":
        child.unlink()
    elif damage == "added":
        (folder / "random.py").write_text("raise SystemExit")
    else:
        child.write_text("x = 2" if damage == "edited" else "")
    assert runtime_folder(tmp_path, source) == folder
    assert child.read_text() == "x = 1"
    assert names(folder) == ["flowkiln", "supervise.py"]
    assert names(tmp_path / "runtime") == [folder.name]


def test_many_makers_at_once_make_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as makers:
        found = set(makers.map(lambda _: runtime_folder(tmp_path), range(16)))
    assert len(found) == 1
    assert names(tmp_path / "runtime") == [found.pop().name]


def test_what_a_killed_maker_left_behind_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "runtime" / ".scratch-1-dead" / "flowkiln").mkdir(parents=True)
    assert (runtime_folder(tmp_path) / "flowkiln" / "__init__.py").exists()


def test_a_read_only_cache_is_named() -> None:
    nobodys = Path("/sys" if sys.platform == "linux" else "/System")  # where root cannot write either
    with pytest.raises(ReadOnly, match=str(nobodys)):
        runtime_folder(nobodys / "flowkiln-test")
