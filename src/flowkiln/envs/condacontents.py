"""What a conda package holds for Python, read from the list of its files, and remembered by its sha256."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from flowkiln._base import files
from flowkiln._base.errors import NoSpace, ReadOnly
from flowkiln.envs.spec import normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Provided = tuple[tuple[str, str], ...]
"""Pairs of a distribution's normalised name and its version, sorted."""

LISTS = ("info/paths.json", "info/files")
"""The files of a package that list its files: old ones have the second alone."""

_METADATA = re.compile(
    r"(?:^|/)site-packages/(?P<name>[A-Za-z0-9][A-Za-z0-9._]*?)(?:-(?P<version>[^/-]+)(?:-py[\d.]+)?)?"
    r"\.(?:dist|egg)-info(?:/|$)"
)


def distributions(paths: Iterable[str], version: str) -> Provided:
    """The distributions that a package's paths tell of, by the folders and files of their metadata.

    ``version`` is the package's, for metadata whose name has none. What is vendored inside of another distribution
    is not one.
    """
    found: dict[str, str] = {}
    for path in paths:
        match = _METADATA.search(path)
        if match is not None:
            found.setdefault(normal_name(match["name"]), _normal(match["version"] or version))
    return tuple(sorted(found.items()))


def listed(read: Mapping[str, bytes | None]) -> list[str]:
    """The paths of a package, from its ``LISTS``. Raises ``ValueError`` where neither can be read."""
    document, lines = (read.get(name) for name in LISTS)
    if document is not None:
        entries = json.loads(document)
        try:
            return [str(entry["_path"]) for entry in entries["paths"]]
        except (KeyError, TypeError) as error:
            message = f"{LISTS[0]} has no list of paths"
            raise ValueError(message) from error
    if lines is None:
        message = "it has no list of its files"
        raise ValueError(message)
    return lines.decode(errors="replace").splitlines()


def recall(folder: Path, sha256: str) -> Provided | None:
    """What is known of the package with that hash, None where nothing is."""
    try:
        return tuple((str(name), str(version)) for name, version in json.loads(_place(folder, sha256).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remember(folder: Path, sha256: str, provided: Provided) -> None:
    """Keeps it for :func:`recall`, where the folder can be written."""
    try:
        files.write_atomic(_place(folder, sha256), json.dumps(provided).encode())
    except (OSError, NoSpace, ReadOnly):
        return


def _place(folder: Path, sha256: str) -> Path:
    return folder / "provides" / sha256[:2] / f"{sha256}.json"


def _normal(version: str) -> str:
    try:
        return str(Version(version))
    except InvalidVersion:
        return version
