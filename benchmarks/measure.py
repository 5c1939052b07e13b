"""Timing of whole processes and calls: alternated pairs, medians, ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: what was measured, against what, the figures, the aim and whether it is met.

    ``met`` is None for a row that has no aim and only tells.
    """

    work: str
    peer: str
    ours: str
    theirs: str
    ratio: str
    aim: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Medians in seconds of two alternated measurements, and the median of the ratios pair by pair."""

    ours: float
    theirs: float
    ratio: float

    @property
    def times_faster(self) -> float:
        return 1 / self.ratio

    @property
    def more(self) -> float:
        return self.ours - self.theirs


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def alternated(
    calls: Mapping[str, Callable[[], object]],
    *,
    pairs: int = 5,
    warmup: int = 1,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each of ``calls``, run in turn; ``before`` is called ahead of each, untimed."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(warmup + pairs):
        for name, call in calls.items():
            if before is not None:
                before()
            took = seconds(call)
            if number >= warmup:
                found[name].append(took)
    return found


def pair_of(ours: Sequence[float], theirs: Sequence[float]) -> Pair:
    """Medians of what was measured in turn."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Pair(statistics.median(ours), statistics.median(theirs), statistics.median(ratios))


def alternate(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int = 5,
    warmup: int = 1,
    before: Callable[[], object] | None = None,
) -> Pair:
    """Runs ``ours`` and ``theirs`` in turn; ``before`` is called ahead of each, untimed."""
    found = alternated({"ours": ours, "theirs": theirs}, pairs=pairs, warmup=warmup, before=before)
    return pair_of(found["ours"], found["theirs"])


def run(command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str] | None = None) -> str:
    """Standard output of ``command``; its failure ends the benchmark with its last lines."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(os.environ if environ is None else environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        sys.exit(f"failed ({done.returncode}): {words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def peak_megabytes(command: Sequence[str | Path], *, cwd: Path, environ: Mapping[str, str]) -> tuple[float, float]:
    """(wall seconds, peak resident megabytes of the launching process alone) of ``command``."""
    started = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"failed ({process.returncode}): {' '.join(map(str, command))}")
    scale = 1024 if sys.platform == "linux" else 1024 * 1024
    return time.perf_counter() - started, usage.ru_maxrss / scale
