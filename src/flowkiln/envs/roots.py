"""Links that users made to trees: what they point to is kept by garbage collection for as long as they stand.

``<cache>/links/<hash of the link's path>`` is a symbolic link to the user's link.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from flowkiln._base import digests, files


def record(cache: Path, link: Path) -> None:
    """Notes that ``link`` keeps the tree it points to. Raises ``NoSpace`` and ``ReadOnly``."""
    absolute = Path(os.path.abspath(link))  # noqa: PTH100  the link itself, not what it leads to
    name = digests.hexdigits(digests.of_bytes(os.fsencode(absolute)))[:32]
    with files.disk_errors(cache), files.scratch_folder(cache / "scratch") as scratch:
        (cache / "links").mkdir(exist_ok=True)
        (scratch / name).symlink_to(absolute)
        (scratch / name).replace(cache / "links" / name)


def forget_gone(cache: Path) -> None:
    """Forgets links that stand no more. What cannot be removed stays: it keeps nothing."""
    with contextlib.suppress(OSError):
        for one in (cache / "links").iterdir():
            if not one.readlink().is_symlink():
                one.unlink()


def linked(cache: Path) -> dict[Path, Path]:
    """The trees that users' links point to, with such a link of each. A link that is gone keeps nothing."""
    found: dict[Path, Path] = {}
    try:
        noted = sorted((cache / "links").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return found
    for one in noted:
        try:
            link = one.readlink()
            found[Path(os.path.abspath(link.parent / link.readlink()))] = link  # noqa: PTH100
        except OSError:
            continue
    return found
