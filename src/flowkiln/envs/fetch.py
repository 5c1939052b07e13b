"""Downloads of locked artefacts: resumed, retried, verified. A file is addressed by the sha256 that it must have.

What was received lies in a folder under that name and is continued by the next attempt, of this process or a later
one. Nothing limits the whole time: only silence counts.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
from typing import TYPE_CHECKING

from flowkiln._base import files, redact
from flowkiln.envs.artefact import Artefact
from flowkiln.envs.builderrors import BuiltAbsent
from flowkiln.envs.download import Partial, receive
from flowkiln.envs.installerrors import DownloadFailed, InstallError, NotCached, WrongHash
from flowkiln.envs.transport import Network, Transport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln.envs.lock import LinkedFiles, LockedWheel

__all__ = ["Artefact", "Fetcher", "Network"]

_LONGEST_WAIT = 60.0
_PROGRESS = 1 << 20
LARGE = 32 << 20
"""Files from this size on share ``large_at_once`` places, so that a thin line is not split among them."""


def _ignore(_: int) -> None:
    return


class Fetcher:
    """Downloads artefacts. Threads may share it; ``workers`` is how many it is meant to serve at once.

    ``retries`` counts attempts in a row without progress, ``backoff`` is the first pause in seconds, doubled each
    time and jittered. ``offline`` turns every download that needs a network into NotCached. ``built`` brings
    a wheel that was built, and so is on no server: the path of a file that stays.
    """

    def __init__(
        self,
        network: Network | None = None,
        *,
        offline: bool = False,
        workers: int = 8,
        large_at_once: int = 3,
        retries: int = 5,
        backoff: float = 0.5,
        built: Callable[[LockedWheel | LinkedFiles], Path] | None = None,
    ) -> None:
        self.network = network or Network()
        self.offline = offline
        self.workers = workers
        self._built = built
        self._retries = retries
        self._backoff = backoff
        self._transport = Transport(self.network, connections=workers)
        self._large = threading.Semaphore(large_at_once)

    def fetch(
        self,
        artefact: Artefact,
        folder: Path,
        *,
        advance: Callable[[int], None] = _ignore,
        stopped: threading.Event | None = None,
    ) -> Path:
        """The path of the verified file in ``folder``; ``advance`` is told the number of bytes received.

        When it fails, ``folder`` keeps what was received. The caller holds a lock on the artefact; ``stopped``
        ends the download early. Raises the download errors (ENV030 to ENV037), NoSpace and ReadOnly.
        """
        if (artefact.size or 0) >= LARGE:
            with self._large:
                return self._verified(artefact, folder, advance, stopped or threading.Event())
        return self._verified(artefact, folder, advance, stopped or threading.Event())

    def built(self, wheel: LockedWheel | LinkedFiles, folder: Path) -> Path:
        """The path of a copy in ``folder`` of what was built or linked. Raises the errors of builds."""
        if self._built is None:
            message = f"{wheel.filename} was built from source, and nothing here brings such wheels"
            raise BuiltAbsent(message)
        found = self._built(wheel)
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            copy = folder / f"{wheel.sha256}.built"
            shutil.copyfile(found, copy)
        return copy

    def fetch_any(self, name: str, url: str, folder: Path) -> tuple[Path, str]:
        """The path of a file in ``folder`` whose hash nobody has stated, with its sha256: whatever is there now.

        The caller holds a lock on the URL. Raises as ``fetch`` does.
        """
        artefact = Artefact(name=name, url=url, sha256=hashlib.sha256(url.encode()).hexdigest())
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            partial = Partial(folder / f"{artefact.sha256}.url")
            if partial.size and partial.validator is None:  # bytes of an answer that may be another one now
                partial.discard()
            digest = self._complete(artefact, partial, _ignore, threading.Event())
            partial.finish()
        return partial.path, digest

    def close(self) -> None:
        """Closes idle connections."""
        self._transport.close()

    def _verified(
        self, artefact: Artefact, folder: Path, advance: Callable[[int], None], stopped: threading.Event
    ) -> Path:
        got = ""
        with files.disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                partial = Partial(folder / artefact.sha256)
                advance(partial.size)
                got = self._complete(artefact, partial, advance, stopped)
                if got == artefact.sha256:
                    partial.finish()
                    return partial.path
                advance(-partial.size)
                partial.discard()
        shown = redact.text(artefact.url)
        message = f"{shown}: wrong sha256, twice\n  expected {artefact.sha256}\n  received {got}"
        raise WrongHash(
            message,
            hint=f"Lock it anew: `flowkiln env lock --upgrade {artefact.name}`.",
            data={"url": shown, "expected": artefact.sha256, "received": got},
        )

    def _complete(
        self, artefact: Artefact, partial: Partial, advance: Callable[[int], None], stopped: threading.Event
    ) -> str:
        """The sha256 of the file, all of it received."""
        if partial.size and partial.size == artefact.size:
            return partial.hexdigest()
        if self.offline and not artefact.url.startswith("file:"):
            shown = redact.text(artefact.url)
            message = f"{artefact.name} is not in the cache, and --offline forbids to fetch {shown}"
            raise NotCached(message, hint="Run the same command once without --offline.")
        failures = 0
        while True:
            before = partial.size
            try:
                receive(self._transport, self.network.stall, artefact, partial, advance, stopped)
            except InstallError as error:
                failures = 0 if partial.size - before >= _PROGRESS else failures + 1
                if not error.retryable or failures >= self._retries or stopped.is_set():
                    raise
                stopped.wait(self._wait(failures, error))
            else:
                if not stopped.is_set():
                    return partial.hexdigest()
                message = f"{artefact.name}: download interrupted"
                raise DownloadFailed(message)

    def _wait(self, failures: int, error: InstallError) -> float:
        """Seconds until the next attempt: what the server asked for, else growing, with jitter."""
        asked = error.data.get("retry_after")
        if isinstance(asked, int):
            return min(float(asked), _LONGEST_WAIT)
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  spreads clients, hides nothing
        return min(self._backoff * float(2 ** max(failures - 1, 0)) * jitter, _LONGEST_WAIT)
