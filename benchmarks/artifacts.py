"""The artifact row: a large array saved and loaded, against writing with sha256 and reading the same bytes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.measure import Row

if TYPE_CHECKING:
    from pathlib import Path

_CODE = """
import hashlib, json, os, resource, sys, time
from pathlib import Path
import numpy
from flowkiln.store import artifacts
from flowkiln.store.folder import FolderStore

folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
array = numpy.arange(megabytes * 131072, dtype=numpy.float64)
store = FolderStore(folder / "store")
scale = 1024 if sys.platform == "linux" else 1048576

def plain_write(path):
    digest = hashlib.sha256()
    view = memoryview(array).cast("B")
    with open(path, "wb", buffering=0) as stream:
        for start in range(0, len(view), 1 << 20):
            block = view[start:start + (1 << 20)]
            digest.update(block)
            stream.write(block)

def timed(call):
    started = time.perf_counter()
    value = call()
    return time.perf_counter() - started, value

rows = []
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
for number in range(3):
    array[0] = number
    peer_save, _ = timed(lambda: plain_write(folder / "plain"))
    save, artifact = timed(lambda: artifacts.save("array", array, store.blobs))
    peer_load, total = timed(lambda: numpy.frombuffer((folder / "plain").read_bytes(), dtype=numpy.float64).sum())
    load, ours = timed(lambda: artifacts.load(artifact, store.blobs).sum())
    assert total == ours
    rows.append([save, peer_save, load, peer_load])
    (folder / "plain").unlink()
print(json.dumps(rows))
"""

_PEAK = """
import resource, sys
from pathlib import Path
import numpy
from flowkiln.store import artifacts
from flowkiln.store.folder import FolderStore

scale = 1024 if sys.platform == "linux" else 1048576
array = numpy.ones(int(sys.argv[2]) * 131072)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
artifacts.save("array", array, FolderStore(Path(sys.argv[1]) / "peak").blobs)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale - before)
"""


def rows(python: Path, folder: Path, *, megabytes: int = 1024) -> list[Row]:
    """Saving and loading ``megabytes`` of float64, and the extra peak memory of saving."""

    folder.mkdir(parents=True, exist_ok=True)
    measured = json.loads(_python(python, _CODE, folder, megabytes))
    save = statistics.median((row[0] + row[2]) / (row[1] + row[3]) for row in measured)
    extra = float(_python(python, _PEAK, folder, megabytes))
    ours = statistics.median(row[0] + row[2] for row in measured)
    theirs = statistics.median(row[1] + row[3] for row in measured)
    return [
        Row(
            work=f"artifact of a {megabytes} MB array, save + load",
            peer="write + sha256, read",
            ours=f"{ours:.2f} s",
            theirs=f"{theirs:.2f} s",
            ratio=f"{save:.2f} times; peak {extra / megabytes:+.1%} of the array",
            aim="1.2 times; peak at most 10 % over the array",
            met=save <= 1.2 and extra <= megabytes * 0.1,
        )
    ]


def _python(python: Path, code: str, folder: Path, megabytes: int) -> str:
    done = subprocess.run(
        [str(python), "-c", code, str(folder), str(megabytes)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr[-4000:])
    return done.stdout
