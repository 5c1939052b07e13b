"""What installing a lock's platform writes, for whoever writes it: an image's layers need no tree on this host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln.envs import installer
from flowkiln.envs.gathering import Gatherer
from flowkiln.envs.making import check_tags
from flowkiln.envs.wheelstore import WheelStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowkiln._base.report import Reporter
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.installer import Package, Tree
    from flowkiln.envs.lock import LockedWheel, PlatformLock


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An environment as it is installed: ``packages`` by the sha256 of their wheels, and all in one prefix."""

    packages: Mapping[str, Package]
    tree: Tree


class Describer:
    """Brings wheels into the store of ``cache`` and says what installing them writes."""

    def __init__(self, cache: Path, fetcher: Fetcher | None = None) -> None:
        self._cache = cache
        self._store = WheelStore(cache)
        self._gatherer = Gatherer(self._store, cache, fetcher)

    def missing(self, part: PlatformLock) -> list[LockedWheel]:
        """The wheels of ``part`` that would have to be fetched."""
        return [wheel for wheel in part.wheels if self._store.get(wheel.sha256) is None]

    def describe(self, part: PlatformLock, reporter: Reporter, *, verify: bool = False) -> Described:
        """What installing ``part`` writes, wheels fetched where they are missing.

        ``verify`` reads every stored file and makes what is damaged anew. Raises the errors of fetching and
        unpacking, WrongTags and PathOwnedTwice.
        """
        check_tags(part)
        with files.locked(self._cache / "locks" / "cache", shared=True):
            wheels = self._gatherer.gather(part.wheels, reporter, verify=verify)
        packages = [installer.package(wheel, part.python) for wheel in wheels]
        tree = installer.combine(packages, dict(part.winners), case_matters=part.platform.os != "darwin")
        return Described(packages={one.wheel.sha256: one for one in packages}, tree=tree)

    def stored(self, sha256: str, path: str) -> str:
        """The path on disk of a stored file of a wheel."""
        return f"{self._store.content(sha256)}/{path}"
