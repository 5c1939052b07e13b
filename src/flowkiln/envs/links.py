"""Where symbolic links lead, found by following them as the kernel does, without a file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 40
"""Links in one path: at more, the kernel refuses to follow them."""


def leaves(path: str, links: Mapping[str, str]) -> bool:
    """Whether the link at ``path`` leads out of the prefix, once the other ``links`` of the prefix are followed.

    ``links`` are targets by path, relative to the prefix. What is not among them counts as a folder that exists:
    somebody may make it. A circle leads nowhere, and so not outside.
    """
    target = links[path]
    if not target or target.startswith("/") or "\0" in target:
        return True
    at = path.split("/")[:-1]
    pending = target.split("/")[::-1]
    followed = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not at:
                return True
            at.pop()
            continue
        at.append(part)
        found = links.get("/".join(at))
        if found is not None:
            followed += 1
            if followed > _MOST:
                return False
            if not found or found.startswith("/"):
                return True
            at.pop()
            pending += found.split("/")[::-1]
    return False
