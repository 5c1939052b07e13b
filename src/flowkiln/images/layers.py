"""Which layers an environment is cut into, and their keys: pure functions of the lock, known before any byte.

A package of 1 MiB or more has a layer of its own, the others share eight by a hash of their name, so that the
version of one package moves one layer and equal packages of different environments share theirs. Only name and
size of the wheel decide. Each package layer has a bytecode layer as its twin, so that sixty layers hold both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowkiln._base import json
from flowkiln.envs.condapackage import CONDA_SCHEMA
from flowkiln.envs.lock import LockedConda

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln.envs.lock import Locked, PlatformLock

BUILDER_VERSION = 1
"""Part of every key: raised when a layer's bytes would change for equal inputs, compressors included."""
ALONE = 1 << 20
"""Bytes of a wheel from which on it has a layer of its own."""
BUCKETS = 8
MOST = 60
"""Environment layers of an image, bytecode included: engines take 127 in all, and the base has its own."""
_MOST_ALONE = MOST // 2 - BUCKETS

Kind = Literal["packages", "bytecode", "glue", "runtime", "runtime-bytecode", "stdlib-bytecode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """A layer before its bytes. ``key`` is ``sha256:...`` of all that decides them.

    ``title`` names it for people. ``wheels`` are those whose files it holds, or whose bytecode; ``without`` are the
    paths in which another distribution wins over them, ``within`` those that one of them wins, with its name.
    """

    kind: Kind
    title: str
    key: str
    wheels: tuple[Locked, ...] = ()
    without: tuple[str, ...] = ()
    within: tuple[tuple[str, str], ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether it holds bytecode."""
        return self.kind in ("bytecode", "runtime-bytecode", "stdlib-bytecode")

    def gives(self, wheel: Locked, path: str) -> bool:
        """Whether ``path`` may be taken from ``wheel``: no other distribution was chosen for it."""
        return path not in self.without and dict(self.within).get(path, wheel.name) == wheel.name


def cut(part: PlatformLock) -> list[LayerSpec]:
    """The package layers of an environment, largest packages first, then the shared ones."""
    large = sorted(
        (one for one in part.packages if (one.size or 0) >= ALONE),
        key=lambda wheel: (-(wheel.size or 0), wheel.name),
    )[:_MOST_ALONE]
    alone = {one.sha256 for one in large}
    buckets: dict[int, list[Locked]] = {}
    for wheel in sorted(part.packages, key=lambda one: (one.name, one.sha256)):
        if wheel.sha256 not in alone:
            buckets.setdefault(bucket_of(wheel.name), []).append(wheel)
    groups = [[wheel] for wheel in large] + [buckets[number] for number in sorted(buckets)]
    return [_packages(group, part) for group in groups]


def bucket_of(name: str) -> int:
    """Which shared layer the package ``name`` goes to."""
    return hashlib.sha256(name.encode()).digest()[0] % BUCKETS


def _packages(wheels: Sequence[Locked], part: PlatformLock) -> LayerSpec:
    names = {wheel.name for wheel in wheels}
    without = tuple(sorted(path for path, winner in part.chosen if winner not in names))
    title = ", ".join(f"{wheel.name} {wheel.version}" for wheel in wheels)
    within = tuple((path, winner) for path, winner in sorted(part.chosen) if winner in names)
    digests = [wheel.sha256 for wheel in wheels]
    listed = [list(pair) for pair in within]
    # How conda packages are described and installed may change while wheels stay as they are.
    conda: dict[str, json.JSONValue] = {}
    if any(isinstance(one, LockedConda) for one in wheels):
        conda["conda"] = CONDA_SCHEMA
    key = key_of("packages", python=part.python, wheels=digests, without=list(without), within=listed, **conda)
    return LayerSpec(kind="packages", title=title, key=key, wheels=tuple(wheels), without=without, within=within)


def bytecode_of(layer: LayerSpec, compiler: str) -> LayerSpec:
    """The twin of a package layer: its bytecode as Python ``X.Y.Z`` compiles it."""
    key = key_of("bytecode", layer=layer.key, compiler=compiler)
    return LayerSpec(
        kind="bytecode",
        title=f"bytecode of {layer.title}",
        key=key,
        wheels=layer.wheels,
        without=layer.without,
        within=layer.within,
    )


def key_of(kind: Kind, **inputs: json.JSONValue) -> str:
    """The key of a layer of ``kind`` that depends on ``inputs``."""
    return json.digest({"schema": 1, "builder": BUILDER_VERSION, "kind": kind, **inputs})
