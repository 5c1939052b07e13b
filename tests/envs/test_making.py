"""Sixteen writers on one cache, and ``kill -9`` at any point."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import files
from flowkiln._base.platforms import Platform
from flowkiln.envs.installerrors import WrongTags
from flowkiln.envs.making import check_tags
from flowkiln.envs.proof import verify
from flowkiln.envs.tree import Trees
from flowkiln.envs.wheelstore import WheelStore
from tests.envs.made import interpreter, locked, part
from tests.envs.materialising import start
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln.envs.lock import PlatformLock
    from tests.services.home import Home
    from tests.services.index import PackageIndex

WHEELS = [
    wheel(
        f"pkg{number}",
        files={f"pkg{number}/m{module}.py": os.urandom(2000) for module in range(60)},
        console={f"pkg{number}": f"pkg{number}:main"},
    )
    for number in range(6)
]


def written(lock: PlatformLock, path: Path) -> Path:
    path.write_bytes(pickle.dumps(lock))
    return path


def ended(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out.split()[-1]


def test_sixteen_writers_make_four_environments_once(package_index: PackageIndex, home: Home) -> None:
    """A12: all succeed, every wheel is fetched once, and the cache verifies."""
    package_index.add(*WHEELS)
    package_index.fault("*", Fault(delay=0.05))
    locks = [part([locked(one, package_index.base) for one in WHEELS[number : number + 3]]) for number in range(4)]
    paths = [written(lock, home.work / f"{number}.lock") for number, lock in enumerate(locks)]
    processes = [start(home.cache, paths[number % 4]) for number in range(16)]
    digests = [ended(process) for process in processes]
    trees = Trees(home.cache)
    for number, lock in enumerate(locks):
        tree = trees.find(lock.env_id, interpreter())
        assert tree is not None
        assert {digests[position] for position in range(number, 16, 4)} == {tree.tree_digest}
        verify(tree.root, tree.env_id, tree.tree_digest, "full")
    assert len(trees.all()) == 4
    assert set(package_index.requests.values()) == {1}
    assert package_index.total == len(WHEELS)
    assert list((home.cache / "scratch").iterdir()) == []
    store = WheelStore(home.cache)
    for one in WHEELS:
        stored = store.get(one.sha256)
        assert stored is not None
        assert store.verify(stored) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_at_any_point_leaves_nothing_to_clean_up(seed: int, package_index: PackageIndex, home: Home) -> None:
    """A11: after each kill the same command is started again; the last one is left to end."""
    package_index.add(*WHEELS)
    package_index.fault("*", Fault(rate=400_000))
    chance = random.Random(seed)
    lock = part([locked(one, package_index.base) for one in WHEELS])
    path = written(lock, home.work / "lock")
    killed = 0
    for _ in range(60):
        process = start(home.cache, path)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        try:
            process.wait(chance.uniform(0.0, 0.3))
            files.remove_tree(home.cache)  # it was faster than the kill: from the beginning again
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        if killed == 5:
            break
    assert killed == 5
    digest = ended(start(home.cache, path))
    tree = Trees(home.cache).find(lock.env_id, interpreter())
    assert tree is not None
    assert tree.tree_digest == digest
    verify(tree.root, tree.env_id, digest, "full")


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp39-abi3-manylinux_2_17_x86_64", True),
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp311-cp311-manylinux_2_34_x86_64", False),
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp311-cp311t-manylinux_2_17_x86_64", False),
        ("cp311-cp311-manylinux_2_17_aarch64", False),
        ("pp311-pypy311_pp73-manylinux_2_17_x86_64", False),
        ("py2-none-any", False),
    ],
)
def test_tags_are_held_against_the_locks_own_platform(tag: str, fits: bool) -> None:
    lock = part([locked(wheel("pkg", tag=tag))], platform=Platform("linux", "amd64"), python="3.11", glibc=(2, 28))
    if fits:
        check_tags(lock)
    else:
        with pytest.raises(WrongTags, match=r"does not fit linux/amd64, Python 3\.11, glibc 2\.28"):
            check_tags(lock)
