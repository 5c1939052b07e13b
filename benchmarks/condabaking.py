"""The rows about images of conda packages: against a Dockerfile that installs the same ones with rattler.

Both sides ask one channel on this machine, know its repodata already, compile bytecode and push.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from tests.services.channel import ChannelServer
from tests.services.condachannel import conda_channel

from benchmarks import builders, stack
from benchmarks.measure import Row, alternated, pair_of, run, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Peers
    from benchmarks.stack import Stack

PACKAGES = {"python": "3.11.*", "scikit-learn": "1.5.*", "pandas": "*"}
SMALL = {"pytz": ("2024.2.*", "2025.2.*"), "packaging": ("24.2.*", "25.0.*"), "six": ("1.16.*", "1.17.*")}
"""Small packages of the channel in two versions each: with each change one of them moves."""
SETTINGS = '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n'
PEER = "`docker build` with rattler + `docker push`"
INSTALL = """
import asyncio, os, pathlib, sys
import rattler

async def main(url, *specs):
    names = {"__glibc": "2.28", "__linux": "5.10", "__unix": "0"}
    assumed = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
        for name, version in names.items()
    ]
    gateway = rattler.Gateway(cache_dir="/tmp/repodata")
    found = await rattler.solve(
        [url], specs, gateway=gateway, platforms=["linux-64", "noarch"], virtual_packages=assumed
    )
    await rattler.install(found, "/opt/env", cache_dir=pathlib.Path("/tmp/packages"))

asyncio.run(main(*sys.argv[1:]))
os._exit(0)  # its threads do not outlive the interpreter well
"""


def rows(peers: Peers, folder: Path, services: Stack, pairs: int) -> Iterator[Row]:
    """Baking and pushing with nothing baked yet, and with one small package changed."""
    folder.mkdir(parents=True, exist_ok=True)
    with ChannelServer() as server:
        yield from _CondaBaking(peers, folder, services, server.mount("main", conda_channel())).rows(pairs)


class _CondaBaking:
    def __init__(self, peers: Peers, folder: Path, services: Stack, channel: str) -> None:
        self._folder = folder
        self._stack = services
        self._channel = channel
        self._started = int(time.time())
        self._numbers = itertools.count(1)
        self._flowkiln = peers.flowkiln().parent / "flowkiln"
        self._cache = folder / "home" / "cache"
        self._environ = peers.environ(folder / "home") | {
            "FLOWKILN_IMAGES_BASE": services.base,
            "DOCKER_HOST": services.engine,
        }
        self._start = self._prepared()

    def rows(self, pairs: int) -> Iterator[Row]:
        chosen = {name: versions[0] for name, versions in SMALL.items()}
        locks = self._locked(chosen)
        self._bake(locks, self._repository("pin"))
        images = self._cache / "images"
        took = alternated(
            {
                "ours": lambda: self._built(locks, self._repository("cold")),
                "docker": lambda: self._docker(chosen, self._repository("docker"), cached=False),
            },
            pairs=pairs,
            before=lambda: shutil.rmtree(images, ignore_errors=True),
        )
        yield _row("bake + push of conda packages, nothing baked yet (scikit-learn, pandas)", took, 1)
        yield _row("one small conda package changed, bake + push", self._changed(chosen), 5)

    def _changed(self, chosen: dict[str, str]) -> dict[str, list[float]]:
        """Every change is measured once: the second time, it is none."""
        ours, theirs = self._repository("one"), self._repository("one-docker")
        self._bake(self._locked(chosen), ours)
        self._docker(chosen, theirs, cached=True)
        took: dict[str, list[float]] = {"ours": [], "docker": []}
        for name, versions in SMALL.items():
            chosen = {**chosen, name: versions[1]}
            locks, now = self._locked(chosen), dict(chosen)
            took["ours"].append(seconds(lambda: self._built(locks, ours)))  # noqa: B023  called at once
            took["docker"].append(seconds(lambda: self._docker(now, theirs, cached=True)))  # noqa: B023  likewise
        return took

    def _prepared(self) -> str:
        """What the Dockerfile starts from: the base with rattler in it."""
        name = f"{self._stack.registry}/bench/rattler:3.11"
        start = builders.prepared(self._stack, self._folder / "start")
        text = f"FROM {start}\nRUN uv pip install --system --no-cache 'py-rattler>=0.28,<0.29'\n"
        context = stack.emptied(self._folder / "rattler", [("Dockerfile", text)])
        self._stack.call("build", "--quiet", "--network", "host", "--tag", name, ".", folder=context)
        self._stack.call("push", "--quiet", name)
        return name

    def _docker(self, chosen: dict[str, str], repository: str, *, cached: bool) -> None:
        specs = " ".join(f"'{name} {version}'" for name, version in (PACKAGES | chosen).items())
        compiled = "/opt/env/bin/python -m compileall -q -j 0 /opt/env/lib/python3.11 || true"
        clean = "rm -rf /tmp/repodata /tmp/packages"
        steps = [
            f"FROM {self._start}",
            "COPY install.py /install.py",
            f"RUN python3 /install.py {self._channel} {specs} && {clean} && ({compiled})",
        ]
        files = [("install.py", INSTALL), ("Dockerfile", "\n".join(steps) + "\n")]
        context = stack.emptied(self._folder / "docker", files)
        how = ["--network", "host", *([] if cached else ["--no-cache"])]
        self._stack.call("build", "--quiet", *how, "--tag", f"{repository}:a", ".", folder=context)
        self._stack.call("push", "--quiet", f"{repository}:a")

    def _repository(self, name: str) -> str:
        """A repository that has nothing yet."""
        return f"{self._stack.registry}/bench-conda-{self._started}/{name}-{next(self._numbers)}"

    def _locked(self, chosen: dict[str, str]) -> Path:
        """The lock folder of these versions, with its packages in the cache."""
        name = "-".join(chosen.values()).replace(".*", "")
        specs = "".join(f"  - {package} {version}\n" for package, version in (PACKAGES | chosen).items())
        text = f"channels:\n  - {self._channel}\nplatforms:\n  - linux-64\ndependencies:\n{specs}"
        files = [("environment.yml", text), ("pyproject.toml", SETTINGS)]
        work = stack.emptied(self._folder / "locks" / name, files)
        run([self._flowkiln, "env", "lock", "environment.yml"], cwd=work, environ=self._environ)
        run([self._flowkiln, "env", "path", "environment.yml"], cwd=work, environ=self._environ)
        return work / "environment.locks"

    def _bake(self, locks: Path, repository: str) -> dict[str, Any]:
        environ = self._environ | {"FLOWKILN_IMAGES_REPOSITORY": repository}
        command = ("env", "bake", locks.name, "--push", "--json")
        document: dict[str, Any] = json.loads(run([self._flowkiln, *command], cwd=locks.parent, environ=environ))
        return document

    def _built(self, locks: Path, repository: str) -> None:
        """As ``_bake``, for what must not have been there already."""
        document = self._bake(locks, repository)
        assert document["images"][0]["status"] == "built", document


def _row(work: str, took: dict[str, list[float]], aim: int) -> Row:
    pair = pair_of(took["ours"], took["docker"])
    return Row(
        work=work,
        peer=PEER,
        ours=f"{pair.ours:.2f} s",
        theirs=f"{pair.theirs:.2f} s",
        ratio=f"{pair.times_faster:.1f} times faster",
        aim="faster" if aim == 1 else f"{aim} times faster",
        met=pair.times_faster >= aim,
    )
