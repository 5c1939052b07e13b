"""The rows about conda environments on disk: our installer against rattler's, from packed files and from caches.

Both are called in this process, so that no interpreter's start is in the figures, and are given the same packages
of the channel that the tests use.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.envs.condatrees import part, solved
from tests.services.condachannel import conda_channel
from tests.services.test_channel import install, solve

from benchmarks.measure import Row, alternate
from flowkiln.envs.interpreter import own
from flowkiln.envs.tree import Trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPECS = ("python 3.11.*", "scikit-learn", "pandas", "scipy")


def rows(folder: Path) -> Iterator[Row]:
    """The same packages with nothing but their files, and with both caches filled."""
    folder.mkdir(parents=True, exist_ok=True)
    records = solve([conda_channel().url], SPECS, folder / "solve")
    locked = part(*solved(records))
    interpreter = own(locked)
    assert interpreter is not None
    size = sum(one.size or 0 for one in locked.conda) / 1e6

    def forget_trees() -> None:
        shutil.rmtree(folder / "ours" / "trees", ignore_errors=True)
        shutil.rmtree(folder / "prefix", ignore_errors=True)

    def forget_all() -> None:
        for name in ("ours", "prefix", "theirs"):
            shutil.rmtree(folder / name, ignore_errors=True)

    for what, forget in (("packed files", forget_all), ("caches that are filled", forget_trees)):
        forget_all()
        pair = alternate(
            lambda: Trees(folder / "ours").materialise(locked, interpreter),
            lambda: install(records, folder / "prefix", folder / "theirs"),
            pairs=7,
            before=forget,
        )
        yield Row(
            work=f"install {len(locked.conda)} conda packages of {size:.0f} MB from {what}",
            peer="`rattler.install`",
            ours=f"{pair.ours:.2f} s",
            theirs=f"{pair.theirs:.2f} s",
            ratio=f"{pair.ratio:.2f} times",
            aim="1.2 times",
            met=pair.ratio <= 1.2,
        )
    forget_all()
