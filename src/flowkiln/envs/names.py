"""Names of files inside archives: which are allowed, and which are one name on some file system."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_DRIVE = re.compile(r"[A-Za-z]:")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST_PATH = 1024


def check_path(path: str, refuse: Callable[[str], Exception]) -> None:
    """Guarantees that ``path`` is a plain relative path below its root; raises ``refuse(reason)`` otherwise."""
    if "\\" in path:
        raise refuse("a backslash in the name")
    if path.startswith("/") or _DRIVE.match(path):
        raise refuse("an absolute path")
    parts = path.split("/")
    if ".." in parts:
        raise refuse("a path that leaves the environment")
    if "" in parts or "." in parts:
        raise refuse("an empty part in the path")
    if _UNPRINTABLE.search(path):
        raise refuse("a control character in the name")
    if len(path) > _LONGEST_PATH or (len(path) > 63 and any(len(part.encode()) > 255 for part in parts)):
        raise refuse("a name that is too long")


def collision_key(path: str) -> str:
    """Equal for paths that are one file on a file system without case or with normalised names."""
    return path if path.isascii() and path.islower() else unicodedata.normalize("NFC", path.casefold())
