"""Allowed link scripts -> one package of what they left: found where it was made before, else made once.

The scripts run where ``linkcontainer`` runs them; nothing of a package runs here.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from flowkiln._base import digests, files
from flowkiln.envs import linkedfiles
from flowkiln.envs.builderrors import NowhereToLink, OtherLinkedFiles
from flowkiln.envs.builtwheels import KeptFolder
from flowkiln.envs.condapackage import CondaPackage
from flowkiln.envs.condaspec import name_of
from flowkiln.envs.linkedfiles import KeptFiles
from flowkiln.envs.subdirs import subdir_of
from flowkiln.images import linkpackage, linktree
from flowkiln.images.linkcontainer import LinkJob, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln.envs.describing import Describer
    from flowkiln.envs.lock import LinkedFiles, LockedConda, PlatformLock
    from flowkiln.images.linktree import Left
    from flowkiln.images.wheelshelf import LinkedShelf


class Runner(Protocol):
    """Somewhere that link scripts run."""

    def run(self, job: LinkJob, where: str) -> Left:
        """What the scripts left of an environment."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What linking uses. Callables are asked when it needs them, not before.

    ``runner`` gives what runs scripts on a platform, or raises ``NowhereToLink``; ``where`` names the image that
    they run in, for a Python and a platform; ``shelf`` is where the team keeps what they left.
    """

    cache: Path
    describer: Describer
    runner: Callable[[Platform], Runner]
    where: Callable[[str, Platform], str]
    shelf: Callable[[], LinkedShelf | None]
    reporter: Reporter


class ContainerLinker:
    """Runs link scripts, those of an environment once. Threads may share it."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._kept: KeptFolder[KeptFiles] = KeptFolder(means.cache, linkedfiles.kept_from_json)

    def linked(self, label: str, part: PlatformLock, names: frozenset[str]) -> PlatformLock:
        """As ``envs.linkside.Linker.linked``. Raises ``LinkScripts`` where others have scripts too."""
        ordered = [one for one in in_order(part.conda) if one.name in names]
        described = self._means.describer.bring(ordered, self._means.reporter)
        having = [one.name for one in described if isinstance(one, CondaPackage) and one.link_scripts]
        if not having:
            return part
        if part.platform.os != "linux":
            message = f"{', '.join(having)}: link scripts run in containers of Linux alone"
            raise NowhereToLink(message, hint="Leave them out of link_scripts, or do without that platform.")
        before = replace(part, link_scripts=tuple(having))
        nowhere = self._nowhere(part.platform)
        shelf = self._means.shelf()
        if nowhere is not None and shelf is None:
            raise nowhere
        where = self._means.where(part.python, part.platform)
        key = linkedfiles.key_of(before, where)
        with self._held(key):
            found = self._find(key)
            if found is None and nowhere is not None:
                raise nowhere
            found = found or self._made(label, before, where, key)
        return replace(before, linked=found.linked)

    def restored(self, linked: LinkedFiles) -> Path:
        """The very package of a lock: from this machine, the team's, or made once more.

        Raises ``OtherLinkedFiles`` where the scripts leave another one.
        """
        before = linked.before
        assert before is not None, "a lock gives linked files with what they were made of"
        with self._held(linked.key):
            found = self._find(linked.key)
            if found is None:
                self._means.reporter.say(f"what link scripts left is on no server: {_shown(linked)} run again")
                found = self._made("environment", before, linked.where, linked.key)
        if found.sha256 != linked.sha256:
            message = f"the link scripts of {', '.join(linked.scripts)} left other files than the lock names"
            hint = f"`flowkiln env lock --upgrade {linked.scripts[0]}` locks what they leave now."
            data = {"locked": linked.sha256, "left": found.sha256}
            raise OtherLinkedFiles(message, hint=hint, data=data)
        return found.path

    def _nowhere(self, platform: Platform) -> NowhereToLink | None:
        try:
            self._means.runner(platform)
        except NowhereToLink as error:
            return error
        return None

    def _find(self, key: str) -> KeptFiles | None:
        found = self._kept.get(key)
        shelf = None if found is not None else self._means.shelf()
        if shelf is None:
            return found
        with files.scratch_folder(self._means.cache / "scratch") as scratch:
            brought = shelf.get(key, scratch)
            return None if brought is None else self._kept.add(brought)

    def _made(self, label: str, before: PlatformLock, where: str, key: str) -> KeptFiles:
        """The package of what the scripts of ``before`` leave, in the cache and offered to the team."""
        described = self._means.describer.describe(before, self._means.reporter)
        runner = self._means.runner(before.platform)
        shown = ", ".join(before.link_scripts)
        self._means.reporter.say(f"running link scripts of {shown} for {before.platform} in {where}")
        with files.scratch_folder(self._means.cache / "scratch") as scratch:
            (scratch / "left").mkdir()
            job = LinkJob(
                label=shown,
                platform=before.platform,
                python=before.python,
                members=linktree.members(before, described, self._means.describer.stored),
                scripts=_scripts(before, {one.of.name: one.of for one in described.packages.values()}),
                log=self._means.cache / "logs" / f"link-{label}-{before.platform.slug}.log",
                folder=scratch / "left",
            )
            left = runner.run(job, where)
            kept = self._kept.add(self._package(job, left, scratch, (where, key), before.link_scripts))
        if left.messages:
            self._means.reporter.say(
                f"{shown}: " + "".join(one for one in left.messages if one.isprintable() or one == "\n")
            )
        shelf = self._means.shelf()
        if shelf is not None:
            shelf.put(kept)
        return kept

    def _package(
        self, job: LinkJob, left: Left, scratch: Path, made: tuple[str, str], scripts: tuple[str, ...]
    ) -> KeptFiles:
        if left.deleted:
            raise linkpackage.refuse(job.label, "deleted files of packages:", left.deleted)
        if left.odd:
            raise linkpackage.refuse(job.label, "made what is neither a file nor a link:", left.odd)
        path, subdir = scratch / linkedfiles.FILENAME, subdir_of(job.platform)
        sha256, size = linkpackage.write(path, left.changes, subdir, job.label)
        linked = linkedfiles.linked(
            subdir=subdir,
            sha256=sha256,
            size=size,
            where=made[0],
            key=made[1],
            scripts=scripts,
            replaces=tuple(one.path for one in left.changes if one.path in job.members),
        )
        linkpackage.check(path, linked, scratch / "checked", job.label)
        return KeptFiles(linked=linked, path=path)

    @contextmanager
    def _held(self, key: str) -> Iterator[None]:
        """One run of an environment's scripts at a time: who waits finds it done."""

        def waiting(holder: str, seconds: float) -> None:
            self._means.reporter.say(f"waiting for {holder}, which runs the same link scripts ({seconds:.0f} s)")

        with (
            _IN_PROCESS,
            files.locked(self._means.cache / "locks" / "builds" / digests.hexdigits(key)[:32], waiting=waiting),
        ):
            yield


_IN_PROCESS = threading.Lock()
"""Threads of one process wait here rather than polling the OS lock."""


def in_order(packages: Sequence[LockedConda]) -> list[LockedConda]:
    """``packages`` with what each depends on before it; by name where that leaves a choice."""
    by_name = {one.name: one for one in sorted(packages, key=lambda one: one.name)}
    needed = {
        name: sorted({name_of(line) for line in one.depends} & by_name.keys()) for name, one in by_name.items()
    }
    found: dict[str, LockedConda] = {}
    begun: set[str] = set()
    waiting = list(reversed(by_name))
    while waiting:
        name = waiting[-1]
        if name in found or (name in begun and all(one in begun for one in needed[name])):
            found.setdefault(waiting.pop(), by_name[name])
            continue
        begun.add(name)
        waiting += [one for one in reversed(needed[name]) if one not in begun]
    return list(found.values())


def _scripts(before: PlatformLock, packages: Mapping[str, object]) -> list[Script]:
    found = []
    for name in before.link_scripts:
        one = packages[name]
        assert isinstance(one, CondaPackage)
        number = int(one.record.get("build_number", 0))
        found += [Script(kind, name, one.version, number) for kind in one.link_scripts]
    return found


def _shown(linked: LinkedFiles) -> str:
    return f"those of {', '.join(linked.scripts)}"
