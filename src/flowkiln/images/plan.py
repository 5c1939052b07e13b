"""An image before its bytes: which layers on which base, and the key that names it.

The plan is symbolic: it names layers by their keys, and needs neither wheels nor registry. Code is not part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.images import layers

if TYPE_CHECKING:
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import PlatformLock
    from flowkiln.images.layers import LayerSpec

PLAN_SCHEMA = 1
CONFIG_VERSION = 1
"""Part of every image key: raised when the config would differ for equal inputs."""
_RELEASE = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """What to bake. ``layers`` lie on the base in this order: those that change least come first."""

    name: str
    lock_id: str
    part: PlatformLock
    base: BasePin
    runtime_id: str
    layers: tuple[LayerSpec, ...]

    @property
    def image_key(self) -> str:
        """Identity of what is asked for: ``sha256:...``. Compression is not in it: it moves no config."""
        return json.digest(
            {
                "schema": PLAN_SCHEMA,
                "env_id": self.part.env_id,
                "lock_id": self.lock_id,
                "base": self.base.manifest,
                "runtime_id": self.runtime_id,
                "builder": layers.BUILDER_VERSION,
                "bytecode": bytecode_of(self.part, self.base) or "none",
                "config": CONFIG_VERSION,
            }
        )

    @property
    def tag(self) -> str:
        """The tag under which registries and engines hold the image."""
        return f"fk-{self.image_key.removeprefix('sha256:')}"


def plan(name: str, lock_id: str, part: PlatformLock, base: BasePin, runtime_id: str) -> ImagePlan:
    """The plan of one platform of an environment on ``base``."""
    compiler = bytecode_of(part, base)
    packages = layers.cut(part)
    found: list[LayerSpec] = []
    if compiler is not None and part.own_python is None:
        found.append(stdlib_layer(base, compiler))
    found.append(_runtime(runtime_id))
    if compiler is not None:
        found.append(_runtime_bytecode(runtime_id, compiler))
    for layer in packages:
        found.append(layer)
        if compiler is not None:
            found.append(layers.bytecode_of(layer, compiler))
    found.append(_glue(part, base))
    return ImagePlan(name=name, lock_id=lock_id, part=part, base=base, runtime_id=runtime_id, layers=tuple(found))


def bytecode_of(part: PlatformLock, base: BasePin) -> str | None:
    """The Python that compiles an image's bytecode, None where it has none.

    The base's pin decides: its own Python for environments that have none, else the environment's, unless it is one
    that was not to be had where the pin was written.
    """
    own = part.own_python
    if own is None:
        return base.bytecode
    return own.version if _RELEASE.fullmatch(own.version) and own.version not in base.without_bytecode else None


def python_of(part: PlatformLock, base: BasePin) -> tuple[str, str]:
    """The interpreter of an image, empty where it lies in the environment, and its version X.Y.Z."""
    own = part.own_python
    if own is not None:
        return "", own.version
    assert base.facts.interpreter is not None
    assert base.facts.python is not None
    return base.facts.interpreter, base.facts.python


def stdlib_layer(base: BasePin, compiler: str) -> LayerSpec:
    """The bytecode of the base's standard library, as Python ``X.Y.Z`` compiles it."""
    key = layers.key_of("stdlib-bytecode", base=base.manifest, compiler=compiler)
    return layers.LayerSpec(kind="stdlib-bytecode", title=f"bytecode of Python {compiler}", key=key)


def interpreter_bytecode(part: PlatformLock, compiler: str) -> LayerSpec:
    """The bytecode of the Python that ``part`` brings, with its standard library, as ``X.Y.Z`` compiles it."""
    own = next(layer for layer in layers.cut(part) if part.own_python in layer.wheels)
    return layers.bytecode_of(own, compiler)


def _runtime(runtime_id: str) -> LayerSpec:
    key = layers.key_of("runtime", runtime=runtime_id)
    return layers.LayerSpec(kind="runtime", title="flowkiln's runtime", key=key)


def _runtime_bytecode(runtime_id: str, compiler: str) -> LayerSpec:
    key = layers.key_of("runtime-bytecode", runtime=runtime_id, compiler=compiler)
    return layers.LayerSpec(kind="runtime-bytecode", title="bytecode of flowkiln's runtime", key=key)


def _glue(part: PlatformLock, base: BasePin) -> LayerSpec:
    interpreter, version = python_of(part, base)
    key = layers.key_of("glue", env=part.env_id, interpreter=interpreter, version=version)
    return layers.LayerSpec(kind="glue", title="environment", key=key, wheels=part.packages)
