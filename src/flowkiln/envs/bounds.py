"""Which patch versions of Python a lock holds for.

Markers on ``python_full_version`` and ``Requires-Python`` may depend on the patch. A lock is resolved for one
patch; here uv is asked, offline and with every version pinned, whether the same set holds for the first patch and
for a far later one. Where it does not, the patch at which it changes is looked for and recorded.
"""

from __future__ import annotations

import json as plain_json
from dataclasses import replace
from typing import TYPE_CHECKING

from flowkiln._base import digests, files, json, parallel, paths, redact
from flowkiln._base.errors import NoSpace, ReadOnly
from flowkiln._base.report import Silent
from flowkiln.envs import pylock
from flowkiln.envs.errors import EnvError, LockTimeout
from flowkiln.envs.uv import Question, Solver, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flowkiln.envs.lock import LockedWheel

LATER = 64
"""A patch number that no release reaches."""


def find(solver: Solver, question: Question, wheels: Sequence[LockedWheel]) -> tuple[str | None, str | None]:
    """``python_minimum`` and ``python_below`` as ``X.Y.Z``, each None where the patch decides nothing.

    A pure function of its arguments, remembered in the cache.
    """
    if not wheels:
        return None, None
    remembered = _memory(question, wheels)
    known = _recall(remembered)
    if known is not None:
        return known
    quiet = replace(solver, offline=True, reporter=Silent())
    probe = replace(
        question,
        preferred=None,
        upgrade=False,
        quiet=True,
        pins=tuple(f"{wheel.name}=={wheel.version}" for wheel in wheels),
    )
    wanted = {(wheel.name, wheel.version) for wheel in wheels}
    minor, _, patch = question.full_python.rpartition(".")

    def holds(number: int) -> bool:
        try:
            answer = ask(quiet, replace(probe, full_python=f"{minor}.{number}"))
        except LockTimeout:
            raise
        except EnvError:
            return False
        return {(one.name, one.version) for one in pylock.read_uv(answer.pylock)} == wanted

    here = int(patch)
    lowest, highest = parallel.together(lambda far: _edge(holds, here, far), (0, LATER), at_once=2)
    found = (
        f"{minor}.{lowest}" if lowest > 0 else None,
        f"{minor}.{highest + 1}" if highest < LATER else None,
    )
    _remember(remembered, found)
    return found


def _edge(holds: Callable[[int], bool], inside: int, far: int) -> int:
    """The patch furthest from ``inside`` towards ``far`` up to which the set holds."""
    if inside == far or holds(far):
        return far
    good, bad = inside, far
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _memory(question: Question, wheels: Sequence[LockedWheel]) -> Path:
    pinned = [[name, redact.url(url)] for name, url in question.spec.index_pins]
    key = json.digest(
        {
            "schema": 1,
            **({"index_pins": pinned} if pinned else {}),
            **({"cuda": question.spec.cuda} if question.spec.cuda else {}),
            "requirements": list(question.spec.requirements),
            "constraints": list(question.spec.constraints),
            "python": question.full_python,
            "target": question.target.uv_platform,
            "wheels": [[wheel.name, wheel.version, wheel.sha256] for wheel in wheels],
        }
    )
    return paths.cache_root() / "bounds" / f"{digests.hexdigits(key)}.json"


def _recall(path: Path) -> tuple[str | None, str | None] | None:
    try:
        minimum, below = plain_json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return minimum, below


def _remember(path: Path, found: tuple[str | None, str | None]) -> None:
    try:
        files.write_atomic(path, plain_json.dumps(list(found)).encode())
    except (OSError, NoSpace, ReadOnly):
        return
