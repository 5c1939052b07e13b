"""What installing a lock's platform writes, for whoever writes it: an image's layers need no tree on this host."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import files
from flowkiln.envs import installer
from flowkiln.envs.gathering import Gatherer
from flowkiln.envs.making import check_tags
from flowkiln.envs.wheel import WheelFile
from flowkiln.envs.wheelstore import WheelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flowkiln._base.report import Reporter
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.installer import Package, Tree, Unpacked
    from flowkiln.envs.lock import Locked, PlatformLock


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A wheel without its files: all that has to be known of it to describe an environment that it is in.

    ``scripts`` are the bytes of the scripts that are written with the prefix, by stored path.
    """

    wheel: Unpacked
    scripts: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An environment as it is installed: ``packages`` by the sha256 of their wheels, and all in one prefix.

    ``scripts`` are those of wheels whose files are not here, by sha256 and stored path.
    """

    packages: Mapping[str, Package]
    tree: Tree
    scripts: Mapping[tuple[str, str], bytes] = field(default_factory=dict)


class Describer:
    """Brings wheels into the store of ``cache`` and says what installing them writes.

    ``fetcher`` downloads, or is called for what does when something is missing.
    """

    def __init__(self, cache: Path, fetcher: Fetcher | Callable[[], Fetcher] | None = None) -> None:
        self._cache = cache
        self._store = WheelStore(cache)
        self._fetcher = fetcher
        self._here: set[str] = set()
        self._lock = threading.Lock()

    @cached_property
    def _gatherer(self) -> Gatherer:
        fetcher = self._fetcher() if callable(self._fetcher) else self._fetcher
        return Gatherer(self._store, self._cache, fetcher)

    def missing(self, part: PlatformLock) -> list[Locked]:
        """The wheels of ``part`` that would have to be fetched."""
        return [one for one in part.packages if not self.has(one)]

    def has(self, wheel: Locked) -> bool:
        """Whether the files of ``wheel`` are here."""
        return wheel.sha256 in self._here or self._store.get(wheel.sha256) is not None

    def known(self, locked: Locked) -> Known | None:
        """What is to be known of a wheel that is here; None when it is not."""
        wheel = self._store.get(locked.sha256)
        if wheel is None:
            return None
        try:
            scripts = {
                file.stored: Path(self.stored(wheel.sha256, file.stored)).read_bytes()
                for file in wheel.files
                if isinstance(file, WheelFile) and file.launcher
            }
        except OSError:
            return None
        return Known(wheel=wheel, scripts=scripts)

    def describe(
        self,
        part: PlatformLock,
        reporter: Reporter,
        *,
        known: Mapping[str, Known] | None = None,
        verify: bool = False,
    ) -> Described:
        """What installing ``part`` writes, wheels fetched where they are neither here nor ``known``, by sha256.

        ``verify`` reads every stored file and makes what is damaged anew. Raises the errors of fetching and
        unpacking, WrongTags, PathOwnedTwice and LinkScripts.
        """
        check_tags(part)
        told = {one.sha256: known[one.sha256] for one in self.missing(part) if one.sha256 in known} if known else {}
        found = {sha256: one.wheel for sha256, one in told.items()}
        rest = [one for one in part.packages if one.sha256 not in found]
        found |= {wheel.sha256: wheel for wheel in self.bring(rest, reporter, verify=verify)}
        packages = [installer.package(found[one.sha256], part.python) for one in part.packages]
        tree = installer.combine(
            packages,
            dict(part.chosen),
            case_matters=part.platform.os != "darwin",
            link_scripts=part.link_scripts,
        )
        return Described(
            packages={one.of.sha256: one for one in packages},
            tree=tree,
            scripts={(sha256, path): data for sha256, one in told.items() for path, data in one.scripts.items()},
        )

    def bring(self, wheels: Iterable[Locked], reporter: Reporter, *, verify: bool = False) -> list[Unpacked]:
        """The wheels with their files here, fetched where they are missing; ``verify`` as in ``describe``."""
        with files.locked(self._cache / "locks" / "cache", shared=True):
            found = self._gatherer.gather(list(wheels), reporter, verify=verify)
        with self._lock:
            self._here.update(wheel.sha256 for wheel in found)
        return found

    def stored(self, sha256: str, path: str) -> str:
        """The path on disk of a stored file of a wheel."""
        return f"{self._store.content(sha256)}/{path}"
