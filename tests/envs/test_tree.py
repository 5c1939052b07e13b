from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import platforms
from flowkiln._base.errors import NoSpace
from flowkiln._base.report import Silent
from flowkiln.envs import archive, glue, placing
from flowkiln.envs.installerrors import (
    EnvironmentMismatch,
    HostileWheel,
    InterpreterOutOfBounds,
    PathOwnedTwice,
    PlatformTooOld,
    WrongTags,
)
from flowkiln.envs.interpreter import Interpreter
from flowkiln.envs.proof import verify
from flowkiln.envs.tree import Trees
from flowkiln.envs.wheelstore import WheelStore
from tests.envs.made import PYTHON, VERSION, interpreter, locked, part
from tests.services.wheels import Member, data_folder, wheel

if TYPE_CHECKING:
    from tests.services.home import Home
    from tests.services.index import PackageIndex

SITE = f"lib/python{PYTHON}/site-packages"
DATA = data_folder("Alpha.Pkg")
ALPHA = wheel(
    "Alpha.Pkg",
    files={
        "alpha/__init__.py": "def main():\n    print('alpha runs')\n",
        f"{DATA}/scripts/alpha-script": "#!python\nimport alpha; alpha.main()\n",
        f"{DATA}/scripts/alpha-native": "#!/bin/sh\necho native\n",
        f"{DATA}/data/share/alpha/notes.txt": "notes",
        f"{DATA}/headers/alpha.h": "#define ALPHA",
    },
    console={"alpha": "alpha:main"},
)
BETA = wheel("beta", "2.0")


def test_stored_wheels_can_be_carried_to_another_cache(
    package_index: PackageIndex, home: Home, tmp_path: Path
) -> None:
    package_index.add(BETA)
    lock = part([locked(BETA, package_index.base)])
    first = Trees(home.cache).materialise(lock, interpreter())
    shutil.copytree(home.cache / "wheels", tmp_path / "carried" / "wheels")
    package_index.remove("beta")
    package_index.forget_requests()
    second = Trees(tmp_path / "carried").materialise(lock, interpreter())
    assert package_index.total == 0
    assert second.tree_digest == first.tree_digest
    verify(second.root, second.env_id, second.tree_digest, "full")


def test_a_tree_is_a_complete_prefix(package_index: PackageIndex, home: Home) -> None:
    package_index.add(ALPHA, BETA)
    locks = [locked(ALPHA, package_index.base), locked(BETA, package_index.base)]
    tree = Trees(home.cache).materialise(part(locks), interpreter())
    for name, told in (("alpha", "alpha runs"), ("alpha-script", "alpha runs"), ("alpha-native", "native")):
        done = subprocess.run([tree.root / "bin" / name], capture_output=True, text=True, check=True)
        assert done.stdout == f"{told}\n"
    script = "import sys, beta; print(sys.prefix, sys.version.split()[0], beta.__version__, beta.__file__)"
    done = subprocess.run([tree.python, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tree.root), VERSION, "2.0", f"{tree.root}/{SITE}/beta/__init__.py"]
    assert tree.version == VERSION
    assert tree.platform == str(platforms.host())
    assert (tree.root / "share/alpha/notes.txt").read_text() == "notes"
    assert (tree.root / f"include/site/python{PYTHON}/alpha-pkg/alpha.h").exists()


def test_its_distributions_are_exactly_those_of_the_lock(home: Home, tmp_path: Path) -> None:
    tree = Trees(home.cache).materialise(
        part([locked(ALPHA, str(tmp_path)), locked(BETA, str(tmp_path))]), interpreter()
    )
    script = (
        "from importlib.metadata import distributions\n"
        "for one in distributions():\n"
        "    missing = [p for p in one.files if not p.locate().exists()]\n"
        "    print(one.name, one.version, one.read_text('INSTALLER').strip(), missing)\n"
    )
    done = subprocess.run([tree.python, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["Alpha.Pkg 1.0 flowkiln []", "beta 2.0 flowkiln []"]


def test_an_environment_of_the_interpreter_alone(home: Home) -> None:
    tree = Trees(home.cache).materialise(part([]), interpreter())
    assert tree.files() == {}
    done = subprocess.run([tree.python, "-c", "import sys; print(sys.path[-1])"], capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"{tree.root}/{SITE}"
    verify(tree.root, tree.env_id, tree.tree_digest, "full")


def test_a_second_call_finds_it_without_a_request(package_index: PackageIndex, home: Home) -> None:
    package_index.add(BETA)
    lock = part([locked(BETA, package_index.base)])
    first = Trees(home.cache).materialise(lock, interpreter())
    package_index.forget_requests()
    assert Trees(home.cache).materialise(lock, interpreter()) == first
    assert Trees(home.cache).find(lock.env_id, interpreter()) == first
    assert Trees(home.cache).all() == [first]
    assert package_index.total == 0


def test_files_are_read_only_and_never_linked_to_where_they_came_from(home: Home, tmp_path: Path) -> None:
    tree = Trees(home.cache).materialise(part([locked(BETA, str(tmp_path))]), interpreter())
    module = tree.root / SITE / "beta/__init__.py"
    stored = WheelStore(home.cache).content(BETA.sha256) / "beta/__init__.py"
    assert module.stat().st_mode & 0o777 == 0o444
    assert module.stat().st_nlink == (2 if module.samefile(stored) else 1)


def test_tree_digest_is_equal_over_caches_and_umasks(tmp_path: Path, hostile_environment: dict[str, str]) -> None:
    lock = part([locked(ALPHA, str(tmp_path)), locked(BETA, str(tmp_path))])
    os.umask(0o077)
    one = Trees(tmp_path / "one").materialise(lock, interpreter())
    os.umask(0o000)
    other = Trees(tmp_path / "another cache").materialise(lock, interpreter())
    assert one.tree_digest == other.tree_digest
    assert one.files() == other.files()
    verify(one.root, lock.env_id, other.tree_digest, "full")


def test_launchers_run_from_a_prefix_with_spaces_and_great_length(tmp_path: Path) -> None:
    for cache in (tmp_path / "with space", tmp_path / ("long" * 30)):
        tree = Trees(cache).materialise(part([locked(ALPHA, str(tmp_path / "index"))]), interpreter())
        done = subprocess.run([tree.root / "bin/alpha"], capture_output=True, text=True, check=True)
        assert done.stdout == "alpha runs\n"


def test_one_environment_with_two_interpreters_has_two_trees(home: Home, tmp_path: Path) -> None:
    lock = part([locked(BETA, str(tmp_path))])
    link = tmp_path / "python-elsewhere"
    link.symlink_to(interpreter().path)
    other = Interpreter(path=str(link), version=VERSION, platform=platforms.host())
    trees = Trees(home.cache)
    one, two = trees.materialise(lock, interpreter()), trees.materialise(lock, other)
    assert one.root != two.root
    assert one.tree_digest == two.tree_digest
    assert trees.find(lock.env_id, interpreter()) == one


def test_a_tree_whose_interpreter_is_gone_is_made_anew(home: Home, tmp_path: Path) -> None:
    lock = part([locked(BETA, str(tmp_path))])
    trees = Trees(home.cache)
    tree = trees.materialise(lock, interpreter())
    (tree.root / "bin/python").unlink()
    assert trees.find(lock.env_id, interpreter()) is None
    assert trees.materialise(lock, interpreter()) == tree
    verify(tree.root, tree.env_id, tree.tree_digest, "full")


def test_a_cache_that_moved_makes_its_trees_anew_without_a_download(home: Home, tmp_path: Path) -> None:
    lock = part([locked(ALPHA, str(tmp_path / "index"))])
    Trees(home.cache).materialise(lock, interpreter())
    shutil.rmtree(tmp_path / "index")
    moved = tmp_path / "moved"
    shutil.copytree(home.cache, moved, symlinks=True)
    tree = Trees(moved).materialise(lock, interpreter())
    assert tree.root.is_relative_to(moved)
    assert subprocess.run([tree.root / "bin/alpha"], check=True, capture_output=True).stdout == b"alpha runs\n"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"python_minimum": f"{PYTHON}.99"}, f">= {PYTHON}.99"),
        ({"python_below": f"{PYTHON}.0"}, f"< {PYTHON}.0"),
        ({"python": "3.99"}, "the lock holds for 3.99"),
    ],
)
def test_an_interpreter_outside_the_bounds_is_refused(changes: dict[str, object], told: str, home: Home) -> None:
    with pytest.raises(InterpreterOutOfBounds, match=told):
        Trees(home.cache).materialise(part([], **changes), interpreter())


def test_a_machine_that_cannot_run_it_is_refused(home: Home) -> None:
    here = platforms.host_glibc()
    shown = f"glibc {here[0]}.{here[1]}" if here else "musl|no glibc"
    with pytest.raises(PlatformTooOld, match=rf"needs glibc 2\.99; this machine has {shown}"):
        Trees(home.cache).materialise(part([], glibc=(2, 99)), interpreter())
    elsewhere = next(one for one in platforms.KNOWN if one != platforms.host())
    with pytest.raises(PlatformTooOld, match=f"the lock is for {elsewhere}"):
        Trees(home.cache).materialise(part([], platform=elsewhere), interpreter())


def test_a_machine_with_musl_is_refused_with_both_versions(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = tmp_path / "ld-musl-x86_64.so.1"
    loader.write_text("#!/bin/sh\nprintf 'musl libc (x86_64)\\nVersion 1.2.5\\n' >&2\nexit 1\n")
    loader.chmod(0o755)
    musl = platforms.host_musl(tmp_path)
    assert musl == "1.2.5"
    monkeypatch.setattr(platforms, "host_glibc", lambda: None)
    monkeypatch.setattr(platforms, "host_musl", lambda: musl)
    with pytest.raises(PlatformTooOld, match=r"needs glibc 2\.28; this machine has musl 1\.2\.5"):
        Trees(home.cache).materialise(part([], glibc=(2, 28)), interpreter())
    assert not (home.cache / "trees").exists()


@pytest.mark.parametrize("tag", ["cp39-cp39-any", "py3-none-win_amd64", "cp311-cp311-musllinux_1_2_x86_64"])
def test_wrong_tags_are_refused_before_a_download(tag: str, package_index: PackageIndex, home: Home) -> None:
    one = wheel("odd", tag=tag)
    package_index.add(one)
    with pytest.raises(WrongTags, match=tag):
        Trees(home.cache).materialise(part([locked(one, package_index.base)]), interpreter())
    assert package_index.total == 0


def test_two_packages_that_own_one_file(home: Home, tmp_path: Path) -> None:
    one = wheel("one", files={"shared/x.py": "1", "same.py": ""})
    two = wheel("two", files={"shared/x.py": "2", "same.py": ""})
    locks = [locked(one, str(tmp_path)), locked(two, str(tmp_path))]
    trees = Trees(home.cache)
    with pytest.raises(PathOwnedTwice, match="one and two both install"):
        trees.materialise(part(locks), interpreter())
    assert trees.all() == []
    chosen = part(locks, winners=((f"{SITE}/shared/x.py", "two"),))
    tree = trees.materialise(chosen, interpreter())
    assert (tree.root / SITE / "shared/x.py").read_text() == "2"
    verify(tree.root, tree.env_id, tree.tree_digest, "full")


def test_a_hostile_wheel_leaves_nothing_behind(home: Home, tmp_path: Path) -> None:
    evil = wheel("evil", members=[Member("../../../../escaped", b"x")])
    with pytest.raises(HostileWheel):
        Trees(home.cache).materialise(part([locked(evil, str(tmp_path))]), interpreter())
    assert Trees(home.cache).all() == []
    assert list((home.cache / "scratch").iterdir()) == []
    assert not list(home.root.rglob("escaped"))


def test_a_build_that_fails_leaves_nothing_behind(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    lock = part([locked(ALPHA, str(tmp_path))])
    with monkeypatch.context() as patch:
        patch.setattr(glue, "all_of", fail)
        with pytest.raises(KeyboardInterrupt):
            Trees(home.cache).materialise(lock, interpreter())
    assert Trees(home.cache).all() == []
    assert list((home.cache / "scratch").iterdir()) == []
    Trees(home.cache).materialise(lock, interpreter())


def test_a_full_disk_is_told_and_leaves_nothing_behind(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lock = part([locked(ALPHA, str(tmp_path))])
    for module, name in ((archive.Archive, "write"), (placing.Placer, "place")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(NoSpace, match=str(home.cache)) as caught:
                Trees(home.cache).materialise(lock, interpreter())
        assert caught.value.exit_code == 5
        assert "cache gc" in (caught.value.hint or "")
        assert Trees(home.cache).all() == []
        assert list((home.cache / "scratch").iterdir()) == []
    Trees(home.cache).materialise(lock, interpreter())


def test_a_tree_in_a_cache_that_cannot_be_written_is_used(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Trees(home.cache).materialise(part([]), interpreter())

    def denied(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("open", "utime", "mkdir"):
        monkeypatch.setattr(os, name, denied)
    trees = Trees(home.cache)
    assert trees.materialise(part([]), interpreter()) == tree
    with trees.lease(tree):
        pass


def test_a_lease_of_a_tree_that_is_gone_is_an_error(home: Home) -> None:
    trees = Trees(home.cache)
    tree = trees.materialise(part([]), interpreter())
    with trees.lease(tree), trees.lease(tree):
        pass
    shutil.rmtree(tree.root)
    with pytest.raises(EnvironmentMismatch, match="cache gc"), trees.lease(tree):
        pass


def test_waiting_names_the_holder(home: Home) -> None:
    """A second process that waits says for whom; here the lock is held by another process for a moment."""
    trees = Trees(home.cache)
    lock = part([])
    path = home.cache / "locks" / "trees" / trees.path(lock.env_id, interpreter()).name
    path.parent.mkdir(parents=True)
    script = (
        "import fcntl, os, sys, time\n"
        "stream = open(sys.argv[1], 'w'); fcntl.flock(stream, fcntl.LOCK_EX)\n"
        "stream.write(f'pid {os.getpid()}'); stream.flush(); print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [interpreter().path, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)
            assert holder.stdin is not None
            holder.stdin.close()

    try:
        trees.materialise(lock, interpreter(), Saying())
    finally:
        holder.stdout.close()
        holder.wait()
    assert f"waiting for pid {holder.pid}" in said[0]
