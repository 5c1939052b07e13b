"""``python -m tests.envs.materialising CACHE LOCK``: makes a tree in a process of its own and prints its digest.

LOCK is a pickled ``PlatformLock``. A line is printed before the work begins, so that a test can time its kill.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from flowkiln.envs.fetch import Fetcher, Network
from flowkiln.envs.tree import Trees
from tests.envs.made import interpreter

REPOSITORY = Path(__file__).parents[2]


def start(cache: Path, lock: Path) -> subprocess.Popen[str]:
    """Such a process, started; ``stdout`` and ``stderr`` are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.envs.materialising", cache, lock],
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}", "PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tell(line: str) -> None:
    """One line to whoever started this process, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Makes the tree that the arguments say."""
    cache, lock = Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())
    tell("begin")
    tree = Trees(cache, fetcher=Fetcher(Network(stall=20.0))).materialise(lock, interpreter())
    tell(tree.tree_digest)


if __name__ == "__main__":
    main()
