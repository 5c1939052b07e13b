"""Makes trees: gathers the wheels, builds in a scratch folder, renames into place.

Apart from ``envs.tree``, as finding a tree that is here must not load what downloading and unpacking need.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from flowkiln._base import files, platforms
from flowkiln.envs.building import DamagedWheel, build
from flowkiln.envs.gathering import Gatherer
from flowkiln.envs.installerrors import WrongTags
from flowkiln.envs.subdirs import NOARCH, subdir_of
from flowkiln.envs.wheels import Target, tags_of
from flowkiln.envs.wheelstore import WheelStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln._base.report import Reporter
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.interpreter import Interpreter
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.treefile import Description


class Maker:
    """Makes the trees of one cache folder."""

    def __init__(self, cache: Path, fetcher: Fetcher | None) -> None:
        self._cache = cache
        self._store = WheelStore(cache)
        self._gatherer = Gatherer(self._store, cache, fetcher)

    def make(
        self,
        root: Path,
        part: PlatformLock,
        interpreter: Interpreter,
        reporter: Reporter,
        there: Callable[[], Description | None],
    ) -> Description:
        """The tree at ``root``, made unless ``there`` finds it once this process is the one to make it.

        A ``there`` that always says None makes it anew, from stored wheels that were read and found right.
        """

        def waiting(holder: str, seconds: float) -> None:
            reporter.say(f"waiting for {holder}, which installs the same environment ({seconds:.0f} s)")

        check_tags(part)
        with ExitStack() as stack:
            stack.enter_context(files.locked(self._cache / "locks" / "cache", shared=True))
            stack.enter_context(
                files.locked(self._cache / "locks" / "trees" / root.name, waiting=waiting, every=2.0)
            )
            found = there()
            if found is not None:
                return found
            wheels = self._gatherer.gather(part.packages, reporter, verify=root.exists())
            try:
                return self._build(root, part, interpreter, wheels)
            except DamagedWheel:
                # Found in time: what is damaged in the store is fetched again, once.
                wheels = self._gatherer.gather(part.packages, reporter, verify=True)
                return self._build(root, part, interpreter, wheels)

    def _build(
        self, root: Path, part: PlatformLock, interpreter: Interpreter, found: list[Unpacked]
    ) -> Description:
        with files.disk_errors(root), files.scratch_folder(self._cache / "scratch") as scratch:
            description = build(scratch, root, part, interpreter, found, self._store)
            root.parent.mkdir(parents=True, exist_ok=True)
            if root.exists() or root.is_symlink():
                with files.scratch_folder(self._cache / "scratch") as old:
                    root.rename(old / "tree")
                    scratch.rename(root)
            else:
                scratch.rename(root)
        return description


def check_tags(part: PlatformLock) -> None:
    """Guarantees that every package of ``part`` is for its platform and Python. Raises WrongTags."""
    for one in part.conda:
        if one.subdir not in (NOARCH, subdir_of(part.platform)):
            message = f"{one.subdir}/{one.filename} does not fit {part.platform}"
            raise WrongTags(message, hint=f"Lock it anew: `flowkiln env lock --upgrade {one.name}`.")
    floor = part.glibc or platforms.host_glibc() if part.platform.os == "linux" else None
    target = Target(part.platform, part.python, floor)
    for wheel in part.wheels:
        if target.rank(wheel.filename) is None:
            wanted = f"{part.platform}, Python {part.python}"
            if floor is not None:
                wanted += f", glibc {floor[0]}.{floor[1]}"
            message = f"{wheel.filename} ({tags_of(wheel.filename)}) does not fit {wanted}"
            raise WrongTags(message, hint=f"Lock it anew: `flowkiln env lock --upgrade {wheel.name}`.")
