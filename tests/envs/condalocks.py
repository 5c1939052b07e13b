"""Locks with conda packages, for tests of what is written and read of them."""

from __future__ import annotations

from dataclasses import replace

from flowkiln._base import digests
from flowkiln._base.platforms import Platform
from flowkiln.envs.lock import EnvLock, LockedConda, LockedWheel, PlatformLock
from flowkiln.envs.subdirs import subdir_of

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
CHANNEL = "https://channels.example/forge"


def package(
    name: str, version: str = "1.0", build: str = "0", *, subdir: str = "noarch", **changes: object
) -> LockedConda:
    filename = f"{name}-{version}-{build}.conda"
    made = LockedConda(
        name=name,
        version=version,
        build=build,
        filename=filename,
        url=f"{CHANNEL}/{subdir}/{filename}",
        sha256=digests.hexdigits(digests.of_bytes(f"{subdir}/{filename}".encode())),
        md5=digests.hexdigits(digests.of_bytes(filename.encode()))[:32],
        size=1000,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def part(platform: Platform = AMD64, *wheels: LockedWheel) -> PlatformLock:
    """Python, numpy and what they need, the specs as channels state them."""
    subdir = subdir_of(platform)
    conda = (
        package("libzlib", "1.3.1", "hb9d3cd8_2", subdir=subdir, depends=("__glibc >=2.17,<3.0.a0", "libgcc >=13")),
        package(
            "numpy",
            "1.26.4",
            "py311h64a7726_0",
            subdir=subdir,
            size=None,
            depends=("libzlib", "python >=3.11,<3.12.0a0", "python_abi 3.11.* *_cp311", "python"),
            provides=(("numpy", "1.26.4"),),
        ),
        package("python", "3.11.9", "hb806964_0_cpython", subdir=subdir, depends=("tzdata", "libzlib>=1.3.1")),
        package("tzdata", "2024a", "h0c530f3_0"),
    )
    return PlatformLock(
        platform=platform,
        python="3.11",
        wheels=wheels,
        glibc=(2, 28),
        conda=conda,
        virtual=(("archspec", "1=x86_64"), ("cuda", "12.4"), ("glibc", "2.28")),
    )


def lock(name: str = "fit", *wheels: LockedWheel) -> EnvLock:
    return EnvLock(
        name=name,
        spec_id="sha256:" + "3" * 64,
        python="3.11",
        platforms=(part(AMD64, *wheels), part(ARM64, *wheels)),
        steps=("fit",),
        channels=(CHANNEL, "https://channels.example/second"),
    )
