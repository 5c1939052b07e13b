"""Locks, bases and plans for tests, without a network."""

from __future__ import annotations

import hashlib

from flowkiln._base.platforms import Platform
from flowkiln.envs.basepin import BaseFacts, BasePin
from flowkiln.envs.lock import LockedWheel, PlatformLock
from flowkiln.images import plan as plans
from flowkiln.images.plan import ImagePlan

AMD64 = Platform("linux", "amd64")
MIB = 1 << 20


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def wheel(name: str, size: int | None = 1000, version: str = "1.0") -> LockedWheel:
    return LockedWheel(
        name=name,
        version=version,
        filename=f"{name}-{version}-py3-none-any.whl",
        url=f"https://example.org/{name}-{version}-py3-none-any.whl",
        sha256=hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
        size=size,
    )


def part(*wheels: LockedWheel, winners: tuple[tuple[str, str], ...] = ()) -> PlatformLock:
    return PlatformLock(platform=AMD64, python="3.11", wheels=wheels, glibc=(2, 28), winners=winners)


def pin(name: str = "python:3.11-slim", *, bytecode: str | None = "3.11.2", manifest: str = "base") -> BasePin:
    facts = BaseFacts(
        python="3.11.2",
        interpreter="/usr/local/bin/python3.11",
        libc="glibc",
        glibc=(2, 36),
        path="/usr/local/bin:/usr/bin",
        stdlib="/usr/local/lib/python3.11",
    )
    return BasePin(
        reference=name,
        platform=AMD64,
        manifest=digest(manifest),
        config=digest(manifest + " config"),
        facts=facts,
        bytecode=bytecode,
    )


def plan(one: PlatformLock, base: BasePin | None = None, *, runtime: str = "r" * 32) -> ImagePlan:
    return plans.plan("fit", digest("lock"), one, base or pin(), runtime)
