"""The rows about running in containers: the first run, the way to user code, proof of every byte, and pulls."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import builders, flows, stack
from benchmarks.measure import Row, alternated, pair_of, run
from benchmarks.pulling import Cut
from flowkiln._base.report import Silent
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.images.manifest import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Peers
    from benchmarks.stack import Stack
    from flowkiln.envs.lock import PlatformLock

_VERIFY = """
import glob, hashlib, json, os, statistics, sys, time
sys.path[:0] = glob.glob("/opt/flowkiln/*/")
from flowkiln.executor import marker

root = "/opt/env"
paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
paths = [path for path in paths if not os.path.islink(path)]

def hash_all():
    for path in paths:
        with open(path, "rb") as stream:
            hashlib.file_digest(stream, "sha256")

def timed(call, *args):
    started = time.perf_counter()
    call(*args)
    return time.perf_counter() - started

hashed, full = [], []
for _ in range(6):
    hashed.append(timed(hash_all))
    full.append(timed(marker.verify, root, *sys.argv[1:], "full"))
print(json.dumps({"hash": statistics.median(hashed[1:]), "full": statistics.median(full[1:]), "files": len(paths),
                  "bytes": sum(map(os.path.getsize, paths))}))
"""
_LAYERS = (10, 30, 60)
_CLOCK = "import time; print(time.time())"
_USED = "import pandas, sklearn, requests; print(pandas.__version__)"


class Containers:
    """The rows, measured in ``folder`` on the services of ``services``."""

    def __init__(self, peers: Peers, folder: Path, services: Stack, pairs: int) -> None:
        self._pairs = pairs
        self._python = peers.flowkiln()
        self._folder = folder
        self._stack = services
        self._cache = folder / "home" / "cache"
        self._environ = peers.environ(folder / "home") | {
            "FLOWKILN_IMAGES_BASE": services.base,
            "DOCKER_HOST": services.engine,
        }
        if (told := stack.index()) is not None:
            self._environ["UV_DEFAULT_INDEX"] = told
        self._numbers = itertools.count(1)

    def rows(self) -> Iterator[Row]:
        """The first run comes first: what it leaves is used by the others."""
        settings = '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n'
        files = [("flow.py", flows.CONTAINED.format(python=stack.PYTHON)), ("pyproject.toml", settings)]
        self._work = stack.emptied(self._folder / "flow", files)
        self._run()
        yield self._first()
        yield self._to_user_code()
        yield self._verification()
        yield from self._pulls()

    # -- rows --------------------------------------------------------------------------------------------------

    def _first(self) -> Row:
        start = builders.prepared(self._stack, self._folder / "start")
        docker = builders.Docker(self._stack, start, None, self._folder / "docker")
        requirements = "".join(f"{one.name}=={one.version}\n" for one in self._part().wheels)

        def theirs() -> None:
            name = f"bench-first:{next(self._numbers)}"
            docker.build(requirements, name, cached=False)
            self._stack.call("run", "--rm", name, "python3", "-c", _USED)

        def forget() -> None:
            shutil.rmtree(self._cache, ignore_errors=True)
            shutil.rmtree(self._work / ".flowkiln", ignore_errors=True)
            self._stack.forget_all()

        took = alternated({"ours": self._run, "theirs": theirs}, pairs=self._pairs, before=forget)
        forget()
        self._run()
        pair = pair_of(took["ours"], took["theirs"])
        return Row(
            work="first `run --with docker`, nothing cached, downloads included",
            peer="`docker build` with uv + `docker run`",
            ours=f"{pair.ours:.1f} s",
            theirs=f"{pair.theirs:.1f} s",
            ratio=f"{pair.times_faster:.1f} times faster",
            aim="2 times faster",
            met=pair.times_faster >= 2,
        )

    def _to_user_code(self) -> Row:
        image = self._image()
        ours: list[float] = []
        theirs: list[float] = []
        for number in range(22):
            took = self._gap()
            began = time.time()
            clock = float(self._stack.call("run", "--rm", image, "python", "-c", _CLOCK))
            if number >= 2:
                ours.append(took)
                theirs.append(clock - began)
        pair = pair_of(ours, theirs)
        return Row(
            work="Docker task, from its submission to user code",
            peer="`docker run` of the same image",
            ours=f"{pair.ours * 1000:.0f} ms",
            theirs=f"{pair.theirs * 1000:.0f} ms",
            ratio=f"{pair.more * 1000:+.0f} ms",
            aim="at most 150 ms more",
            met=pair.more <= 0.150,
        )

    def _verification(self) -> Row:
        image = self._image()
        labels = json.loads(self._stack.call("image", "inspect", image))[0]["Config"]["Labels"]
        script = self._folder / "verify.py"
        script.write_text(_VERIFY, encoding="utf-8")
        mount = f"type=bind,source={script},target=/verify.py"
        identity = [labels[f"{LABEL}.{name}"] for name in ("env-id", "tree-digest")]
        command = ("python", "-I", "-S", "-B", "/verify.py", *identity)
        took = json.loads(self._stack.call("run", "--rm", "--mount", mount, image, *command))
        ratio = took["full"] / took["hash"]
        return Row(
            work=f"full verification in a container, {took['files']} files, {took['bytes'] / 1e6:.0f} MB",
            peer="sha256 of the bytes, one thread",
            ours=f"{took['full']:.2f} s",
            theirs=f"{took['hash']:.2f} s",
            ratio=f"{ratio:.2f} times",
            aim="1.2 times",
            met=ratio <= 1.2,
        )

    def _pulls(self) -> Iterator[Row]:
        describer = Describer(self._cache, Fetcher())
        part = self._part()
        cut = Cut(describer.describe(part, Silent()), describer, self._stack.registry)
        names = {str(count): cut.push(count) for count in _LAYERS}
        calls = {count: partial(self._stack.call, "pull", "--quiet", name) for count, name in names.items()}
        took = alternated(calls, pairs=self._pairs, before=lambda: self._stack.forget(*names.values()))
        self._stack.forget(*names.values())
        fewest = str(_LAYERS[0])
        for count in _LAYERS[1:]:
            pair = pair_of(took[str(count)], took[fewest])
            yield Row(
                work=f"`docker pull` of {cut.size / 1e6:.0f} MB in {count} layers",
                peer=f"the same in {fewest} layers",
                ours=f"{pair.ours:.2f} s",
                theirs=f"{pair.theirs:.2f} s",
                ratio=f"{pair.ratio:.2f} times",
                aim="none: told for the choice of 60 layers",
                met=None,
            )

    # -- parts -------------------------------------------------------------------------------------------------

    def _run(self) -> str:
        command: list[str | Path] = [self._python, "flow.py", "run", "--with", "docker"]
        return run(command, cwd=self._work, environ=self._environ)

    def _gap(self) -> float:
        """Seconds from the record that a task is submitted to the first line of its code."""
        shutil.rmtree(self._work / ".flowkiln", ignore_errors=True)
        clock = self._run().split("clock ")[-1].split()[0]
        (journal,) = (self._work / ".flowkiln" / "r").glob("*/journal")
        (record,) = (one for one in journal.iterdir() if b'"submitted":[[2,' in one.read_bytes())
        return float(clock) - record.stat().st_mtime

    def _part(self) -> PlatformLock:
        lock, *_ = LockFolder(self._work / "flow.locks").read().values()
        (part,) = lock.platforms
        return part

    def _image(self) -> str:
        """The id of the flow's image, which is in the engine."""
        command: list[str | Path] = [self._python.parent / "flowkiln", "env", "bake", "flow.py", "--to", "docker"]
        (row,) = json.loads(run([*command, "--json"], cwd=self._work, environ=self._environ))["images"]
        return str(row["digest"])


def rows(peers: Peers, folder: Path, services: Stack, pairs: int) -> Iterator[Row]:
    """The first run, the way to user code, full verification, and pulls by number of layers."""
    folder.mkdir(parents=True, exist_ok=True)
    return Containers(peers, folder, services, pairs).rows()
