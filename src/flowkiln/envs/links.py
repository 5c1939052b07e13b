"""Where symbolic links lead, followed as a system would, without looking at any disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST_FOLLOWED = 40
"""Links in one path, as Linux counts; with more of them nothing opens it."""
LONGEST_TARGET = 1024


def escaping(links: Mapping[str, str], key: Callable[[str], str] = str) -> str | None:
    """The first of ``links`` (path -> target, relative to one root) that leaves the root; None where none does.

    Links on the way are followed, so that ``..`` is the folder above where a path really is. What is no link
    counts as a folder. ``key`` is equal for paths that are one on the file system.
    """
    targets = {key(path): target for path, target in links.items()}
    return next((path for path, target in sorted(links.items()) if _leaves(path, target, targets, key)), None)


def _leaves(path: str, target: str, targets: Mapping[str, str], key: Callable[[str], str]) -> bool:
    if target.startswith("/"):
        return True
    todo = [*target.split("/")[::-1], *path.split("/")[-2::-1]]  # of the folder first, from the end
    here: list[str] = []
    followed = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            here.append(part)
            further = targets.get(key("/".join(here)))
            if further is not None:
                followed += 1
                if followed > _MOST_FOLLOWED:
                    return False
                if further.startswith("/"):
                    return True  # wherever it stands: an absolute target is outside
                here.pop()
                todo += further.split("/")[::-1]
    return False
