"""The rows about baking: against a Dockerfile that installs the same wheels, compiles bytecode and is pushed."""

from __future__ import annotations

import itertools
import json
import shutil
import time
import urllib.request
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import builders, stack
from benchmarks.measure import Row, alternated, pair_of, run, seconds
from benchmarks.wheelhouse import Wheelhouse
from flowkiln._base.report import Silent
from flowkiln.envs.describing import Describer
from flowkiln.envs.fetch import Fetcher
from flowkiln.envs.lockfolder import LockFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.peers import Peers
    from benchmarks.stack import Stack
    from flowkiln.envs.lock import PlatformLock

REQUIREMENTS = ("pandas>=2.2,<3", "scikit-learn", "requests")
SMALL = "certifi"
"""The package whose version changes: few files, no dependencies, and many releases that all users accept."""
VERSIONS = ("2024.2.2", "2024.6.2", "2024.7.4", "2024.8.30", "2024.12.14", "2025.1.31", "2025.4.26")
"""One to stand before, one to warm up, and one for each time that is measured."""
SETTINGS = '[tool.flowkiln]\nplatforms = ["linux/amd64"]\n'


class Baking:
    """The rows, measured in ``folder`` on the services of ``services``."""

    def __init__(self, peers: Peers, folder: Path, services: Stack, pairs: int) -> None:
        self._pairs = pairs
        self._started = int(time.time())
        self._flowkiln = peers.flowkiln().parent / "flowkiln"
        self._folder = folder
        self._stack = services
        self._numbers = itertools.count(1)
        self._environ = peers.environ(folder / "home") | {
            "FLOWKILN_IMAGES_BASE": services.base,
            "DOCKER_HOST": services.engine,
        }
        self._cache = folder / "home" / "cache"

    def rows(self) -> Iterator[Row]:
        """Everything is locked, fetched and pinned before anything is measured."""
        first = self._locked("whole", "\n".join(REQUIREMENTS))
        pinned = {wheel.name: wheel.version for wheel in first.wheels}
        changed = [self._pinned(pinned | {SMALL: version}) for version in VERSIONS[: self._pairs + 2]]
        with ExitStack() as held:
            wheels = held.enter_context(closing(Wheelhouse(self._folder / "wheels")))
            describer = Describer(self._cache, Fetcher())
            for part in (first, *(self._part(path) for path, _ in changed)):
                wheels.add(part.wheels)
                describer.describe(part, Silent())
            start = builders.prepared(self._stack, self._folder / "start")
            docker = builders.Docker(self._stack, start, wheels.url, self._folder / "docker")
            kit = builders.BuildKit(self._stack, start, wheels.url, self._folder / "buildkit")
            held.callback(kit.close)
            yield from self._cold(first, docker, kit)
            yield from self._one_pin(changed, docker, kit)
        yield self._unchanged()

    # -- rows --------------------------------------------------------------------------------------------------

    def _cold(self, part: PlatformLock, docker: builders.Docker, kit: builders.BuildKit) -> Iterator[Row]:
        requirements = _requirements({wheel.name: wheel.version for wheel in part.wheels})
        locks = self._folder / "locks" / "whole" / "requirements.locks"
        self._bake(locks, self._repository("pin"))
        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: self._built(locks, self._repository("cold")),
            "docker": lambda: docker.push(requirements, self._repository("docker") + ":a", cached=False),
            "buildkit": lambda: kit.push(requirements, self._repository("buildkit") + ":a", cached=False),
        }
        images = self._cache / "images"
        took = alternated(calls, pairs=self._pairs, before=lambda: shutil.rmtree(images, ignore_errors=True))
        work = "bake + push, nothing baked yet (pandas, scikit-learn, requests)"
        yield _faster(work, _DOCKER, took["ours"], took["docker"], 3)
        yield _faster(work, _BUILDKIT, took["ours"], took["buildkit"], 2)

    def _one_pin(
        self, changed: list[tuple[Path, str]], docker: builders.Docker, kit: builders.BuildKit
    ) -> Iterator[Row]:
        """Every change is measured once: the second time, it is none."""
        ours, theirs, kits = (self._repository(name) for name in ("one", "one-docker", "one-buildkit"))
        took: dict[str, list[float]] = {"ours": [], "docker": [], "buildkit": []}
        sent: dict[str, list[int]] = {"ours": [], "docker": [], "buildkit": []}
        for number, (locks, requirements) in enumerate(changed):
            tag = f":v{number}"
            found: list[dict[str, Any]] = []
            timed = {
                "ours": seconds(lambda: found.append(self._built(locks, ours))),  # noqa: B023  called at once
                "docker": seconds(partial(docker.push, requirements, theirs + tag, cached=True)),
                "buildkit": seconds(partial(kit.push, requirements, kits + tag, cached=True)),
            }
            if number < 2:  # the state before, and one to warm up
                continue
            for name, value in timed.items():
                took[name].append(value)
            sent["ours"].append(found[0]["images"][0]["bytes_pushed"])
            for name, repository in (("docker", theirs), ("buildkit", kits)):
                sent[name].append(self._new_bytes(repository, f"v{number}", f"v{number - 1}"))
        work = f"one small pin changed ({SMALL}), bake + push"
        for peer, name in ((_DOCKER, "docker"), (_BUILDKIT, "buildkit")):
            moved = f"; {_mb(max(sent['ours']))} instead of {_mb(max(sent[name]))} uploaded"
            yield _faster(work, peer, took["ours"], took[name], 10, more=moved)

    def _unchanged(self) -> Row:
        """Without a network: with a fresh record no request is needed."""
        locks, repository = self._folder / "locks" / "whole" / "requirements.locks", self._repository("same")
        self._bake(locks, repository)
        offline = {"FLOWKILN_OFFLINE": "1"}
        found: list[dict[str, Any]] = []
        took = alternated({"ours": lambda: found.append(self._bake(locks, repository, offline))}, pairs=15)["ours"]
        moved = sum(one["images"][0]["bytes_pushed"] for one in found)
        took.sort()
        median = took[len(took) // 2]
        return Row(
            work="bake + push, nothing changed",
            peer="nothing; `--offline`",
            ours=f"{median:.2f} s",
            theirs="",
            ratio=f"{median:.2f} s; {moved} bytes, 0 requests",
            aim="under 0.3 s, no bytes, no request when a record is fresh",
            met=median < 0.3 and moved == 0,
        )

    # -- parts -------------------------------------------------------------------------------------------------

    def _repository(self, name: str) -> str:
        """A repository that has nothing yet."""
        return f"{self._stack.registry}/bench-{self._started}/{name}-{next(self._numbers)}"

    def _locked(self, name: str, requirements: str) -> PlatformLock:
        files = [("requirements.txt", requirements + "\n"), ("pyproject.toml", SETTINGS)]
        work = stack.emptied(self._folder / "locks" / name, files)
        run([self._flowkiln, "env", "lock", "requirements.txt"], cwd=work, environ=self._environ)
        return self._part(work / "requirements.locks")

    def _pinned(self, versions: dict[str, str]) -> tuple[Path, str]:
        """The lock folder and the requirements file of exactly these versions."""
        name = f"{SMALL}-{versions[SMALL]}"
        self._locked(name, _requirements(versions))
        return self._folder / "locks" / name / "requirements.locks", _requirements(versions)

    def _part(self, locks: Path) -> PlatformLock:
        (lock,) = LockFolder(locks).read().values()
        (part,) = lock.platforms
        return part

    def _bake(self, locks: Path, repository: str, more: dict[str, str] | None = None) -> dict[str, Any]:
        environ = self._environ | {"FLOWKILN_IMAGES_REPOSITORY": repository, **(more or {})}
        command = ("env", "bake", locks.name, "--push", "--json")
        document: dict[str, Any] = json.loads(run([self._flowkiln, *command], cwd=locks.parent, environ=environ))
        return document

    def _built(self, locks: Path, repository: str) -> dict[str, Any]:
        """As ``_bake``, for what must not have been there already."""
        document = self._bake(locks, repository)
        assert document["images"][0]["status"] == "built", document
        return document

    def _new_bytes(self, repository: str, tag: str, before: str) -> int:
        """The bytes of the layers that an image has and the one before had not."""
        known = {digest for digest, _ in self._layers(repository, before)}
        return sum(size for digest, size in self._layers(repository, tag) if digest not in known)

    def _layers(self, repository: str, tag: str) -> list[tuple[str, int]]:
        host, _, name = repository.partition("/")
        kinds = (
            "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
            "application/vnd.oci.image.index.v1+json"
        )
        request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": kinds})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            document = json.load(answer)
        if "manifests" in document:
            return self._layers(repository, document["manifests"][0]["digest"])
        return [(row["digest"], row["size"]) for row in document["layers"]]


_DOCKER = "`docker build` with uv + `docker push`"
_BUILDKIT = "BuildKit, uv's cache mounted"


def _requirements(versions: dict[str, str]) -> str:
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def _faster(work: str, peer: str, ours: list[float], theirs: list[float], aim: int, *, more: str = "") -> Row:
    pair = pair_of(ours, theirs)
    return Row(
        work=work,
        peer=peer,
        ours=f"{pair.ours:.2f} s",
        theirs=f"{pair.theirs:.2f} s",
        ratio=f"{pair.times_faster:.1f} times faster{more}",
        aim=f"{aim} times faster",
        met=pair.times_faster >= aim,
    )


def rows(peers: Peers, folder: Path, services: Stack, pairs: int) -> Iterator[Row]:
    """Baking and pushing with nothing baked, with one pin changed, and with nothing changed."""
    folder.mkdir(parents=True, exist_ok=True)
    return Baking(peers, folder, services, pairs).rows()
