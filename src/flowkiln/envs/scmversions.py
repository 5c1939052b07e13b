"""Versions for projects that take theirs from the history of their repository, which an archive does not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

_DESCRIBED = re.compile(r"(?P<tag>.+)-(?P<distance>\d+)-g(?P<commit>[0-9a-f]+)")
_NUMBERED = re.compile(r"(?:^|[^0-9])(?P<version>\d.*)$")
_VARIABLES = (
    "SETUPTOOLS_SCM_PRETEND_VERSION",  # setuptools-scm, hatch-vcs
    "PDM_BUILD_SCM_VERSION",
    "PBR_VERSION",
    "POETRY_DYNAMIC_VERSIONING_BYPASS",
)

_TOOLS = frozenset(
    {
        *("setuptools-scm", "hatch-vcs", "pdm-backend", "pbr", "poetry-dynamic-versioning", "flit-scm", "dunamai"),
        *("setuptools-git-versioning", "versioningit", "versioneer", "vcs-versioning", "uv-dynamic-versioning"),
    }
)
"""Build requirements that take the version from the history."""


def asked_by(names: Iterable[str]) -> bool:
    """Whether one of the build requirements ``names`` takes the version from the history."""
    return not _TOOLS.isdisjoint(names)


def variables(version: str | None) -> dict[str, str]:
    """What tells back ends the version that the history gives; nothing for None."""
    return {} if version is None else dict.fromkeys(_VARIABLES, version)


def of(described: str | None, commit: str) -> str:
    """The version of a commit as ``git describe --tags --long`` names it (``v1.2-3-gabc1234``).

    On a tag it is that of the tag, after it the next one's development version, as setuptools-scm guesses it:
    ``1.3.dev3+gabc1234``. Without a tag it is ``0.1.dev0+g...``.
    """
    match = _DESCRIBED.fullmatch(described or "")
    tagged = _tagged(match["tag"]) if match is not None else None
    if match is None or tagged is None:
        return f"0.1.dev0+g{commit[:7]}"
    distance = int(match["distance"])
    return str(tagged) if distance == 0 else f"{_next(tagged)}.dev{distance}+g{match['commit']}"


def _tagged(tag: str) -> Version | None:
    """The version that a tag such as ``v1.2`` or ``name-1.2`` is of."""
    match = _NUMBERED.search(tag)
    try:
        return Version(match["version"]) if match is not None else None
    except InvalidVersion:
        return None


def _next(version: Version) -> str:
    """The version that comes next: the last number raised, of a pre-release its own."""
    if version.pre is not None:
        return f"{version.base_version}{version.pre[0]}{version.pre[1] + 1}"
    release = list(version.release)
    release[-1] += 1
    return ".".join(map(str, release))
