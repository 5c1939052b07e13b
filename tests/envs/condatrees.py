"""Conda packages of a channel as a lock would have them, and the trees that are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base.platforms import Platform
from flowkiln.envs.interpreter import own
from flowkiln.envs.lock import LockedConda, PlatformLock
from flowkiln.envs.tree import Tree, Trees

if TYPE_CHECKING:
    from pathlib import Path

    import rattler

    from tests.services.channel import Channel

AMD64 = Platform("linux", "amd64")


def locked(channel: Channel, name: str, version: str | None = None, subdir: str | None = None) -> LockedConda:
    """The package ``name`` of ``channel``, with what the repodata say of it."""
    path = channel.find(name, version, subdir)
    row = channel.records(path.parent.name)[path.name]
    return LockedConda(
        name=str(row["name"]),
        version=str(row["version"]),
        build=str(row["build"]),
        filename=path.name,
        url=path.as_uri(),
        sha256=str(row["sha256"]),
        md5=str(row["md5"]),
        size=path.stat().st_size,
        depends=tuple(row["depends"]),  # type: ignore[arg-type]
    )


def python(channel: Channel) -> LockedConda:
    """Python 3.11 for linux-64."""
    rows = channel.records("linux-64").values()
    version = next(
        str(row["version"]) for row in rows if row["name"] == "python" and str(row["version"])[:5] == "3.11."
    )
    return locked(channel, "python", version, "linux-64")


def solved(records: list[rattler.RepoDataRecord]) -> tuple[LockedConda, ...]:
    """What rattler chose, as a lock has it."""
    found = [
        LockedConda(
            name=one.name.normalized,
            version=str(one.version),
            build=str(one.build),
            filename=one.file_name,
            url=str(one.url),
            sha256=(one.sha256 or b"").hex(),
            md5=(one.md5 or b"").hex(),
            size=one.size,
            depends=tuple(map(str, one.depends)),
        )
        for one in records
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def part(*conda: LockedConda, platform: Platform = AMD64) -> PlatformLock:
    """A part of a lock with these packages; its Python is 3.11."""
    return PlatformLock(platform=platform, python="3.11", wheels=(), conda=conda)


def materialise(cache: Path, of: PlatformLock) -> Tree:
    """The tree of ``of``, which has its own Python."""
    interpreter = own(of)
    assert interpreter is not None
    return Trees(cache).materialise(of, interpreter)
