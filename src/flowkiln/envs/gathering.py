"""The wheels of a lock in the store: fetched and unpacked side by side, with progress in bytes."""

from __future__ import annotations

import queue
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeGuard

from flowkiln.envs.artefact import Artefact
from flowkiln.envs.installerrors import NotCached
from flowkiln.envs.lock import LinkedFiles, LockedWheel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from flowkiln._base.report import Phase, Reporter
    from flowkiln.envs.fetch import Fetcher
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.lock import Locked
    from flowkiln.envs.wheelstore import WheelStore


class Gatherer:
    """Brings wheels and conda packages into one store. ``fetcher`` downloads; None means the default one."""

    def __init__(self, store: WheelStore, cache: Path, fetcher: Fetcher | None) -> None:
        self._store = store
        self._partial = cache / "partial"
        self._fetcher = fetcher

    def gather(self, wheels: Sequence[Locked], reporter: Reporter, *, verify: bool = False) -> list[Unpacked]:
        """All ``wheels`` as the store has them, in order, the missing ones fetched and unpacked.

        ``verify`` reads every file of those that are here and makes damaged ones anew. The first error ends the
        others' work and is raised; what they received is kept.
        """
        found: dict[str, Unpacked] = {}
        missing: list[Locked] = []
        for locked in wheels:
            wheel = self._store.get(locked.sha256)
            if wheel is not None and verify and self._store.verify(wheel):
                reporter.warn(f"{locked.filename} is damaged in the wheel store; making it anew")
                self._store.evict(locked.sha256)
                wheel = None
            if wheel is None:
                missing.append(locked)
            else:
                found[locked.sha256] = wheel
                self._store.touch(locked.sha256)
        if missing:
            found.update(self._fetch_all(missing, reporter))
        return [found[locked.sha256] for locked in wheels]

    def _fetch_all(self, missing: list[Locked], reporter: Reporter) -> dict[str, Unpacked]:
        from flowkiln.envs.fetch import Fetcher  # noqa: PLC0415  installing from the store stays cheap

        fetcher = self._fetcher or Fetcher()
        self._check_offline(missing, fetcher)
        sizes = [locked.size for locked in missing]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        with ExitStack() as stack:
            if self._fetcher is None:
                stack.callback(fetcher.close)
            phase = stack.enter_context(reporter.phase("download", total=total, unit="bytes"))
            return _Crew(self._store, self._partial, fetcher, phase).work(missing)

    def _check_offline(self, missing: Iterable[Locked], fetcher: Fetcher) -> None:
        """Names everything that is missing, not the first only."""
        names = [
            locked.filename
            for locked in missing
            if not _is_local(locked) and not (self._partial / locked.sha256).exists()
        ]
        if fetcher.offline and names:
            message = "--offline, and the cache lacks:" + "".join(f"\n  {name}" for name in sorted(names))
            raise NotCached(message, hint="Run the same command once without --offline.", data={"missing": names})


def _is_local(locked: Locked) -> bool:
    """Whether no network may be needed for it: what is built, or a file."""
    return locked.url.startswith("file:") or _is_made(locked)


def _is_made(locked: Locked) -> TypeGuard[LockedWheel | LinkedFiles]:
    """Whether it is on no server: built of a source, or left by link scripts."""
    return isinstance(locked, LinkedFiles) or (isinstance(locked, LockedWheel) and locked.build is not None)


class _Crew:
    """Threads that fetch and unpack. They are daemons: an interrupted command does not wait for a silent server."""

    def __init__(self, store: WheelStore, partial: Path, fetcher: Fetcher, phase: Phase) -> None:
        self._store = store
        self._partial = partial
        self._fetcher = fetcher
        self._phase = phase
        self._stopped = threading.Event()
        self._telling = threading.Lock()
        self._todo: queue.SimpleQueue[Locked] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Locked, Unpacked | BaseException]] = queue.SimpleQueue()

    def work(self, missing: list[Locked]) -> dict[str, Unpacked]:
        # Largest first: the end of the work is not one big file alone.
        for locked in sorted(missing, key=lambda locked: -(locked.size or 0)):
            self._todo.put(locked)
        threads = [
            threading.Thread(target=self._run, daemon=True, name=f"fetch-{number}")
            for number in range(min(self._fetcher.workers, len(missing)))
        ]
        for thread in threads:
            thread.start()
        found: dict[str, Unpacked] = {}
        try:
            while len(found) < len({locked.sha256 for locked in missing}):
                self._take(found)
        finally:
            self._stopped.set()
        return found

    def _take(self, found: dict[str, Unpacked]) -> None:
        try:
            locked, result = self._done.get(timeout=0.5)
        except queue.Empty:
            with self._telling:
                self._phase.tick()
            return
        if isinstance(result, BaseException):
            raise result
        found[locked.sha256] = result

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                locked = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((locked, self._store.add(locked, self._fetch)))
            # Whatever went wrong in this thread is raised in the caller's.
            except BaseException as error:  # noqa: BLE001
                self._done.put((locked, error))

    def _fetch(self, locked: Locked) -> Path:
        if _is_made(locked):
            return self._fetcher.built(locked, self._partial)
        artefact = Artefact(name=locked.name, url=locked.url, sha256=locked.sha256, size=locked.size)

        def advance(amount: int) -> None:
            with self._telling:
                self._phase.advance(amount, item=locked.name)

        return self._fetcher.fetch(artefact, self._partial, advance=advance, stopped=self._stopped)
