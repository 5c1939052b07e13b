"""Conda's spelling of platforms: ``linux-64``, ``linux-aarch64``, ``osx-arm64``, ``osx-64``."""

from __future__ import annotations

from flowkiln._base.platforms import Platform

NOARCH = "noarch"
"""The folder of a channel for packages that fit every platform."""

_SUBDIRS = {
    Platform("linux", "amd64"): "linux-64",
    Platform("linux", "arm64"): "linux-aarch64",
    Platform("darwin", "amd64"): "osx-64",
    Platform("darwin", "arm64"): "osx-arm64",
}
SUBDIRS = frozenset({NOARCH, *_SUBDIRS.values()})
"""The folders of a channel that are known here."""

_PLATFORMS = {subdir: platform for platform, subdir in _SUBDIRS.items()}


def subdir_of(platform: Platform) -> str:
    """The folder of a channel for ``platform``."""
    return _SUBDIRS[platform]


def platform_of(subdir: str) -> Platform:
    """The platform of a channel's folder. Raises ``ValueError`` naming those that flowkiln knows."""
    if subdir not in _PLATFORMS:
        message = f"unknown platform {subdir!r}; known: {', '.join(sorted(_PLATFORMS))}"
        raise ValueError(message)
    return _PLATFORMS[subdir]
