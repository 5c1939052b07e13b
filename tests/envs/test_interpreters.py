from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import command
from flowkiln.envs import uvpython
from flowkiln.envs.installerrors import InterpreterMissing, InterpreterNotInstalled
from flowkiln.envs.interpreters import Found, Interpreters
from tests.envs.made import PYTHON, VERSION, interpreter, part

if TYPE_CHECKING:
    from tests.services.home import Home

MAJOR, MINOR = sys.version_info[:2]


def fake(folder: Path, name: str, **changes: object) -> Path:
    """A program that answers the question who it is; uv takes it for broken, as it answers nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    told = {
        "path": str(path),
        "version": "3.11.9",
        "implementation": "cpython",
        "release": True,
        "gil": True,
        "system": sys.platform,
        "machine": os.uname().machine,
        **changes,
    }
    path.write_text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pyenv(home: Home) -> Path:
    """A folder whose ``X/bin/python3`` are found; nothing else but this interpreter is."""
    return home.home / ".pyenv" / "versions"


@pytest.fixture
def finder(home: Home) -> Interpreters:
    environ = {"HOME": str(home.home), "PATH": str(home.root / "bin"), "FLOWKILN_UV": str(home.root / "no-uv")}
    return Interpreters(home.cache, downloads="never", environ=environ)


def versions(finder: Interpreters) -> list[str]:
    return [one.version for one in finder.all()]


def test_this_interpreter_is_found_by_its_base_executable(finder: Interpreters) -> None:
    assert finder.find(part([])) == interpreter()


def test_uv_finds_what_is_on_the_path_and_broken_shims_are_ignored(home: Home) -> None:
    folder = home.root / "bin"
    folder.mkdir()
    (folder / f"python{PYTHON}").symlink_to(interpreter().path)
    for name in ("python3.12", "python3.13"):
        shim = folder / name
        shim.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
        shim.chmod(0o755)
    environ = {"HOME": str(home.home), "PATH": str(folder)}
    assert any(Path(one).resolve() == Path(interpreter().path) for one in uvpython.listed(environ))
    assert versions(Interpreters(home.cache, downloads="never", environ=environ)) == [VERSION]


def test_the_newest_patch_within_the_bounds(finder: Interpreters, pyenv: Path) -> None:
    for version in ("3.14.1", "3.14.9", "3.14.10"):
        fake(pyenv / version / "bin", "python3", version=version)
    assert finder.find(part([], python="3.14")).version == "3.14.10"
    assert finder.find(part([], python="3.14", python_below="3.14.10")).version == "3.14.9"
    assert finder.find(part([], python="3.14", python_below="3.14.9")).version == "3.14.1"
    with pytest.raises(InterpreterMissing, match=r"no Python 3\.14 \(>= 3\.14\.11\)"):
        finder.find(part([], python="3.14", python_minimum="3.14.11"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"release": False}, "a pre-release"),
        ({"gil": False}, "free-threaded"),
        ({"implementation": "pypy"}, "pypy"),
        ({"machine": "32-bit"}, "built for 32-bit"),
        ({"machine": "ppc64le"}, "built for ppc64le"),
        ({"machine": "aarch64" if os.uname().machine == "x86_64" else "x86_64"}, "built for linux/"),
    ],
)
def test_what_environments_cannot_use_is_named_with_the_reason(
    changes: dict[str, object], why: str, finder: Interpreters, pyenv: Path
) -> None:
    fake(pyenv / "odd" / "bin", "python3")
    path = fake(pyenv / "3.14" / "bin", "python3", version="3.14.2", **changes)
    with pytest.raises(InterpreterMissing) as caught:
        finder.find(part([], python="3.14"))
    assert f"3.14.2  {path}  ({why}" in caught.value.message
    assert VERSION in caught.value.message
    assert "uv python install 3.14" in (caught.value.hint or "")
    assert "python.downloads = auto" in (caught.value.hint or "")
    assert "3.14.2" in caught.value.data["found"]


def test_old_pythons_are_never_chosen(finder: Interpreters, pyenv: Path) -> None:
    fake(pyenv / "3.10" / "bin", "python3", version="3.10.13")
    with pytest.raises(InterpreterMissing, match="too old"):
        finder.find(part([], python="3.10"))


def test_broken_programs_are_left_out(finder: Interpreters, pyenv: Path) -> None:
    for name, body in (("3.1", "exit 127"), ("3.2", "echo '[1, 2]'"), ("3.3", "echo '{}'"), ("3.4", "kill -9 $$")):
        path = pyenv / name / "bin" / "python3"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    assert versions(finder) == [VERSION]


def test_a_second_look_starts_no_process(
    finder: Interpreters, pyenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(pyenv / "3.14.1" / "bin", "python3", version="3.14.1")
    first = finder.all()

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(command, "run", never)
        assert finder.all() == first
    fake(pyenv / "3.14.2" / "bin", "python3", version="3.14.2")
    assert versions(finder)[0] == "3.14.2"


def test_a_changed_or_removed_interpreter_is_asked_again(finder: Interpreters, pyenv: Path) -> None:
    path = fake(pyenv / "3.14" / "bin", "python3", version="3.14.1")
    assert versions(finder)[0] == "3.14.1"
    fake(pyenv / "3.14" / "bin", "python3", version="3.14.11")
    assert versions(finder)[0] == "3.14.11"
    path.unlink()
    assert versions(finder) == [VERSION]


@pytest.mark.parametrize("damage", ["", "[]", '{"schema": 1}', '{"schema": 99, "found": []}'])
def test_a_damaged_memory_is_made_anew(damage: str, finder: Interpreters, home: Home) -> None:
    finder.all()
    (home.cache / "interpreters.json").write_text(damage)
    assert versions(finder) == [VERSION]


def test_a_cache_that_cannot_be_written_is_no_hindrance(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finder = Interpreters(tmp_path / "file" / "cache", downloads="never", environ={"HOME": str(home.home)})
    assert VERSION in versions(finder)


def test_a_download_that_cannot_reach_is_a_clear_error(home: Home) -> None:
    environ = {
        "HOME": str(home.home),
        "PATH": "/nowhere",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "UV_HTTP_RETRIES": "0",
    }
    finder = Interpreters(home.cache, downloads="auto", mirror="http://127.0.0.1:9/mirror", environ=environ)
    with pytest.raises(InterpreterNotInstalled, match=r"uv could not install Python 3\.14") as caught:
        finder.find(part([], python="3.14"))
    assert caught.value.exit_code == 5
    assert "python.mirror" in (caught.value.hint or "")


def test_an_interpreter_of_equal_version_is_chosen_by_path(finder: Interpreters, pyenv: Path) -> None:
    paths = [fake(pyenv / f"3.14-{letter}" / "bin", "python3", version="3.14.1") for letter in "ba"]
    assert finder.find(part([], python="3.14")).path == str(min(paths))


def test_found_is_read_back_as_it_was() -> None:
    one = Found("/x", "3.11.1", "cpython", True, True, "linux", "x86_64", 1, 2)
    assert Found(**json.loads(json.dumps(one._asdict()))) == one
    assert not one.holds()
    assert shutil.which("sh")
