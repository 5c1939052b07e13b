"""The rows about environments on disk: `uv pip sync` and sha256 of the bytes, everything warm."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import Row, alternate, run
from benchmarks.peers import uv
from flowkiln._base import command, platforms
from flowkiln.envs import indexes, pylock
from flowkiln.envs.interpreters import Interpreters
from flowkiln.envs.resolve import resolve
from flowkiln.envs.spec import EnvSpec
from flowkiln.envs.uv import Solver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Peers
    from flowkiln.envs.lock import PlatformLock

REQUIREMENTS = ("pandas>=2.2,<3", "scikit-learn", "requests", "click")
_MATERIALISE = """
import pickle, sys
from pathlib import Path
from flowkiln.envs.tree import Trees
lock, interpreter = pickle.loads(Path(sys.argv[2]).read_bytes())
tree = Trees(Path(sys.argv[1])).materialise(lock, interpreter)
print(tree.root, tree.env_id, tree.tree_digest)
"""
_VERIFY = """
import hashlib, json, os, statistics, sys, time
from flowkiln.envs.proof import verify

root, env_id, tree_digest = sys.argv[1:]
paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]

def hash_all():
    for path in paths:
        with open(path, "rb") as stream:
            hashlib.file_digest(stream, "sha256")

def timed(call, *args):
    started = time.perf_counter()
    call(*args)
    return time.perf_counter() - started

found = {"stat": [], "full": [], "hash": [], "files": len(paths), "bytes": sum(map(os.path.getsize, paths))}
for _ in range(6):
    found["hash"].append(timed(hash_all))
    found["full"].append(timed(verify, root, env_id, tree_digest, "full"))
    found["stat"].append(timed(verify, root, env_id, tree_digest, "stat"))
print(json.dumps({key: statistics.median(value[1:]) if isinstance(value, list) else value
                  for key, value in found.items()}))
"""


def locked(folder: Path) -> PlatformLock:
    """The packages of the benchmark, locked for this machine."""
    spec = EnvSpec(python=f"{sys.version_info.major}.{sys.version_info.minor}", requirements=REQUIREMENTS)
    solver = Solver(plan=indexes.plan(), logs=folder, limits=command.Limits(total=300.0))
    lock = resolve("bench", spec, solver, host=platforms.host()).lock
    part = lock.on(platforms.host())
    assert part is not None
    return part


def rows(peers: Peers, folder: Path) -> Iterator[Row]:
    """Whole processes on both sides; each is given the same lock and starts with its own cache filled."""
    folder.mkdir(parents=True, exist_ok=True)
    part = locked(folder)
    interpreter = Interpreters(folder / "cache", downloads="never").find(part)
    (folder / "lock").write_bytes(pickle.dumps((part, interpreter)))
    (folder / "pylock.toml").write_text(pylock.serialise(part.python, part.wheels))
    environ = peers.environ(folder / "home") | {
        "UV_CACHE_DIR": str(folder / "uv-cache"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    python = peers.flowkiln()

    def ours() -> str:
        return run([python, "-c", _MATERIALISE, folder / "cache", folder / "lock"], cwd=folder, environ=environ)

    def theirs() -> str:
        target = ("--python", folder / "venv" / "bin" / "python")
        return run([uv(), "pip", "sync", "--quiet", *target, "pylock.toml"], cwd=folder, environ=environ)

    def forget() -> None:
        shutil.rmtree(folder / "cache" / "trees", ignore_errors=True)
        command_line = [uv(), "venv", "--quiet", "--clear", "--python", interpreter.path, "venv"]
        run(command_line, cwd=folder, environ=environ)

    pair = alternate(ours, theirs, pairs=9, warmup=1, before=forget)
    yield Row(
        work=f"materialise {len(part.wheels)} packages, warm wheel store",
        peer="`uv pip sync`, warm",
        ours=f"{pair.ours:.2f} s",
        theirs=f"{pair.theirs:.2f} s",
        ratio=f"{pair.ratio:.2f} times",
        aim="1.5 times",
        met=pair.ratio <= 1.5,
    )
    forget()
    tree = ours().split()
    took = json.loads(run([python, "-c", _VERIFY, *tree], cwd=folder, environ=environ))
    megabytes = took["bytes"] / 1e6
    yield Row(
        work=f"full verification, {took['files']} files, {megabytes:.0f} MB",
        peer="sha256 of the bytes, one thread",
        ours=f"{took['full']:.2f} s; level `stat`: {took['stat'] * 1000:.0f} ms",
        theirs=f"{took['hash']:.2f} s",
        ratio=f"{took['full'] / took['hash']:.2f} times",
        aim="1.2 times",
        met=took["full"] <= 1.2 * took["hash"],
    )
