from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import roots
from flowkiln.envs.collect import DAY, Collector, Plan, Policy
from flowkiln.envs.proof import verify
from flowkiln.envs.running import bytecode_folder, variables
from flowkiln.envs.tree import Tree, Trees
from flowkiln.envs.wheelstore import WheelStore
from flowkiln.executor.runtime import runtime_folder
from flowkiln.flow import package
from flowkiln.store.folder import FolderStore
from tests.envs.made import interpreter, locked, part
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.home import Home

WHEELS = [wheel(f"pkg{number}", files={f"pkg{number}/data.bin": os.urandom(100_000)}) for number in range(4)]


@pytest.fixture
def trees(home: Home, tmp_path: Path) -> list[Tree]:
    """Three trees, last used 3, 2 and 1 days ago; pkg0 is in all of them, the others in one each."""
    made = []
    locks = [locked(one, str(tmp_path / "index")) for one in WHEELS]
    for number in (1, 2, 3):
        tree = Trees(home.cache).materialise(part([locks[0], locks[number]]), interpreter())
        age(tree.root / ".flowkiln", 4 - number)
        made.append(tree)
    for entry in (home.cache / "wheels").glob("*/*"):
        age(entry, 3)
    return made


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def names(plan: Plan, kind: str) -> list[str]:
    return sorted(item.path.name for item in plan.items if item.kind == kind)


def disk(folder: Path) -> int:
    seen = {one.stat().st_ino: one.lstat().st_blocks * 512 for one in folder.rglob("*") if one.is_file()}
    return sum(seen.values())


def test_nothing_is_planned_for_what_was_used_lately(home: Home, trees: list[Tree]) -> None:
    assert Collector(home.cache).plan(Policy()).items == ()


def test_trees_unused_for_long_go_with_their_wheels(home: Home, trees: list[Tree]) -> None:
    age(trees[0].root / ".flowkiln", 40)
    for one in WHEELS:
        age(home.cache / "wheels" / one.sha256[:2] / one.sha256, 40)
    plan = Collector(home.cache).plan(Policy())
    assert names(plan, "tree") == [trees[0].root.name]
    assert names(plan, "wheel") == [WHEELS[1].sha256]
    assert [item.kind for item in plan.items] == ["tree", "wheel"]


def test_keep_counts_the_last_used(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    plan = collector.plan(Policy(keep=1))
    assert names(plan, "tree") == sorted(tree.root.name for tree in trees[:2])
    assert names(plan, "wheel") == sorted(one.sha256 for one in WHEELS[1:3])
    done = collector.collect(plan)
    assert done.removed == plan.items
    assert Trees(home.cache).all() == [trees[2]]
    verify(trees[2].root, trees[2].env_id, trees[2].tree_digest, "full")
    assert WheelStore(home.cache).get(WHEELS[0].sha256) is not None
    assert WheelStore(home.cache).get(WHEELS[1].sha256) is None


def test_a_plan_changes_nothing_and_tells_what_it_frees(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    before = disk(home.cache / "trees") + disk(home.cache / "wheels")
    plan = collector.plan(Policy(keep=1))
    assert len(Trees(home.cache).all()) == 3
    collector.collect(plan)
    after = disk(home.cache)
    assert plan.freed == sum(item.size for item in plan.items)
    assert plan.freed >= 200_000
    assert before > after
    assert collector.plan(Policy(keep=1)).size == plan.size - plan.freed


def test_max_size_takes_the_least_recently_used_first(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    size = collector.plan(Policy()).size
    plan = collector.plan(Policy(max_size=size - 50_000))
    assert names(plan, "tree") == [trees[0].root.name]
    assert plan.size - plan.freed <= size - 50_000
    everything = collector.plan(Policy(max_size=0))
    assert len(names(everything, "tree")) == 3
    assert len(names(everything, "wheel")) == 4
    collector.collect(everything)
    assert collector.entries() == []


def test_a_leased_tree_is_left_and_told(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    plan = collector.plan(Policy(keep=0))
    with Trees(home.cache).lease(trees[0]):
        done = collector.collect(plan)
    assert [item.path for item in done.in_use] == [trees[0].root]
    assert Trees(home.cache).all() == [trees[0]]
    verify(trees[0].root, trees[0].env_id, trees[0].tree_digest, "full")
    assert [item.path for item in collector.collect(collector.plan(Policy(keep=0))).removed] == [trees[0].root]


def test_a_lease_ends_with_its_process(home: Home, trees: list[Tree]) -> None:
    script = (
        "import fcntl, sys\nstream = open(sys.argv[1], 'a'); fcntl.flock(stream, fcntl.LOCK_SH)\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    path = Trees(home.cache).lease_file(trees[0].root.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        collector = Collector(home.cache)
        plan = collector.plan(Policy(keep=0))
        assert len(collector.collect(plan).in_use) == 1
        holder.kill()
    assert collector.collect(collector.plan(Policy(keep=0))).in_use == ()


def test_what_was_used_just_now_is_kept_whatever_is_asked(home: Home, trees: list[Tree]) -> None:
    Trees(home.cache).touch(trees[0])
    plan = Collector(home.cache).plan(Policy(keep=0, max_size=0))
    assert trees[0].root.name not in names(plan, "tree")
    assert WHEELS[1].sha256 not in names(plan, "wheel")


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(home: Home) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    scratch = home.cache / "scratch"
    for pid, days in ((dead.pid, 1.0), (dead.pid, 0.0), (os.getpid(), 1.0)):
        folder = scratch / f".scratch-{pid}-{int(days)}a"
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 5000)
        age(folder, days)
    (home.cache / "partial").mkdir()
    for name, days in (("a" * 64, 8), ("b" * 64, 1)):
        (home.cache / "partial" / name).write_text("x")
        age(home.cache / "partial" / name, days)
    collector = Collector(home.cache)
    plan = collector.plan(Policy())
    assert names(plan, "scratch") == [f".scratch-{dead.pid}-1a"]
    assert names(plan, "partial") == ["a" * 64]
    collector.collect(plan)
    assert sorted(one.name for one in scratch.iterdir()) == sorted(
        [f".scratch-{dead.pid}-0a", f".scratch-{os.getpid()}-1a"]
    )


def test_bytecode_goes_with_its_tree(home: Home, trees: list[Tree]) -> None:
    environ = variables(trees[0], home.cache, {"PATH": "/usr/bin:/bin"})
    subprocess.run([trees[0].python, "-c", "import pkg0"], env=environ, check=False, capture_output=True)
    folder = bytecode_folder(home.cache) / trees[0].root.relative_to("/")
    folder.mkdir(parents=True, exist_ok=True)
    stale = folder.with_name("0" * 32 + "-3.11.1-00000000")
    stale.mkdir()
    age(stale, 8)
    collector = Collector(home.cache)
    assert names(collector.plan(Policy()), "bytecode") == [stale.name]
    collector.collect(collector.plan(Policy(keep=0)))
    assert not folder.exists()
    assert not stale.exists()


def test_other_folders_of_the_cache_are_never_looked_at(home: Home, trees: list[Tree]) -> None:
    own = home.cache / "uv" / "archive-v0"
    own.mkdir(parents=True)
    (own / "file").write_text("x")
    age(own, 1000)
    collector = Collector(home.cache)
    collector.collect(collector.plan(Policy(keep=0, max_size=0)))
    assert (own / "file").exists()
    assert (home.cache / "locks").is_dir()


AGEING = ("code", "runtime", "index", "logs", "bounds", "passed")


def test_what_can_be_made_again_goes_when_unused_for_a_month(home: Home) -> None:
    for folder in AGEING:
        for name, days in (("old", 31), ("new", 29)):
            path = home.cache / folder / name
            path.mkdir(parents=True)
            (path / "file").write_text("x")
            age(path, days)
    bytecode = bytecode_folder(home.cache) / (home.cache / "code").relative_to("/")
    for name in ("old", "new"):
        (bytecode / name).mkdir(parents=True)
    collector = Collector(home.cache)
    assert {item.path.name for item in collector.plan(Policy()).items} == {"old"}
    collector.collect(collector.plan(Policy()))
    assert {path.name for folder in AGEING for path in (home.cache / folder).iterdir()} == {"new"}
    assert [path.name for path in bytecode.iterdir()] == ["new"]


def test_code_that_a_run_unpacks_again_is_in_use(home: Home, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    (tmp_path / "flow.py").write_text("print()")
    digest = package.snapshot(tmp_path / "flow.py", store.blobs, ())
    for _ in range(2):
        made = [package.unpack(digest, store.blobs, home.cache / "code"), runtime_folder(home.cache)]
        unused = Collector(home.cache).plan(Policy()).items
        for path in made:
            age(path, 31)
    assert unused == ()
    assert {item.path for item in Collector(home.cache).plan(Policy()).items} == set(made)


def test_an_index_and_its_journal_age_as_one(home: Home) -> None:
    (home.cache / "index").mkdir(parents=True)
    for name, days in (("a.v1.sqlite", 40), ("a.v1.sqlite-wal", 1), ("b.v1.sqlite", 40), ("b.v1.sqlite-wal", 35)):
        (home.cache / "index" / name).write_text("x")
        age(home.cache / "index" / name, days)
    assert names(Collector(home.cache).plan(Policy()), "index") == ["b.v1.sqlite", "b.v1.sqlite-wal"]


def test_a_tree_that_a_link_points_to_is_kept(home: Home, trees: list[Tree], tmp_path: Path) -> None:
    link = tmp_path / ".venv"
    link.symlink_to(trees[0].root)
    roots.record(home.cache, link)
    collector = Collector(home.cache)
    assert names(collector.plan(Policy(keep=0, max_size=0)), "tree") == sorted(tree.root.name for tree in trees[1:])
    assert WHEELS[1].sha256 not in names(collector.plan(Policy(keep=0, max_size=0)), "wheel")
    assert [item.path for item in collector.entries() if str(link) in item.reason] == [trees[0].root]
    link.unlink()
    link.symlink_to(trees[1].root)
    assert names(collector.plan(Policy(keep=2)), "tree") == [trees[0].root.name]
    collector.collect(collector.plan(Policy()))
    assert roots.linked(home.cache) == {trees[1].root: link}
    link.unlink()
    assert len(names(collector.plan(Policy(keep=0)), "tree")) == 3
    collector.collect(collector.plan(Policy()))
    assert not any((home.cache / "links").iterdir())


def test_a_damaged_tree_is_collected_too(home: Home, trees: list[Tree]) -> None:
    (trees[0].root / ".flowkiln" / "tree.json").write_text("damaged")
    age(trees[0].root / ".flowkiln", 40)
    plan = Collector(home.cache).plan(Policy())
    assert names(plan, "tree") == [trees[0].root.name]


def test_what_is_gone_already_is_no_error(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    plan = collector.plan(Policy(keep=0))
    shutil.rmtree(trees[0].root)
    assert len(collector.collect(plan).removed) == len(plan.items)


def test_entries_count_shared_files_once(home: Home, trees: list[Tree]) -> None:
    collector = Collector(home.cache)
    entries = collector.entries()
    assert sum(item.size for item in entries) == collector.plan(Policy()).size
    assert {item.kind for item in entries} == {"tree", "wheel"}
    assert all(item.used > 0 for item in entries)


def test_an_empty_cache(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "none")
    assert collector.entries() == []
    assert collector.plan(Policy(keep=0, max_size=0)) == Plan(items=(), size=0, freed=0)


def filled(home: Home, path: str, days: float, size: int = 50_000) -> Path:
    """A file below the cache's folder of images, last used so many days ago."""
    made = home.cache / "images" / path
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(os.urandom(size))
    age(made, days)
    return made


def test_layers_that_were_pushed_go_after_a_week_and_records_after_a_month(home: Home) -> None:
    layers = [filled(home, f"blobs/aa/{name}", days) for name, days in (("a", 3), ("b", 8))]
    records = [filled(home, f"pushed/place/{name}.json", days) for name, days in (("c", 20), ("d", 40))]
    lock = filled(home, "bases/e.lock", 400)
    left = filled(home, "blobs/.scratch-999999999-abcdef", 1)
    plan = Collector(home.cache).plan(Policy())
    assert [item.path for item in plan.items] == [layers[1], records[1], left]
    Collector(home.cache).collect(plan)
    assert [one.exists() for one in (*layers, *records, lock, left)] == [True, False, True, False, True, False]


def test_layers_go_first_when_the_cache_is_to_shrink(home: Home, trees: list[Tree]) -> None:
    layer = filled(home, "blobs/aa/a", 0.5, 200_000)
    whole = disk(home.cache)
    plan = Collector(home.cache).plan(Policy(max_size=whole - 150_000))
    assert [item.path for item in plan.items] == [layer]


def test_keeping_nothing_keeps_no_records(home: Home) -> None:
    record, fresh = filled(home, "layers/a.json", 1), filled(home, "layers/b.json", 0)
    assert [item.path for item in Collector(home.cache).plan(Policy(keep=0)).items] == [record]
    assert Collector(home.cache).plan(Policy(keep=1)).items == ()
    assert fresh.exists()
