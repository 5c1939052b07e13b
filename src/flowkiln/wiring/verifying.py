"""Images are held against what they say of themselves, and against a lock: from registries, engines and layouts."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.engineerrors import ContainerMissing
from flowkiln.envs.describing import Describer
from flowkiln.images import inside, judging, places, reference, stored
from flowkiln.images.errors import NoImage
from flowkiln.images.judging import Claims, Locked, Verdict
from flowkiln.wiring import engines
from flowkiln.wiring.registries import Registries
from flowkiln.wiring.trees import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from flowkiln._base.engine import Engine
    from flowkiln._base.json import JSONObject
    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Phase, Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.envs.lockfolder import LockFolder
    from flowkiln.images.inside import Found

    Files = Callable[[], dict[str, Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An environment of a lock that an image may hold."""

    lock: EnvLock
    folder: LockFolder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An image with what it says of itself and what was found. ``digest`` is None where only an engine has it.

    ``locked`` is the environment of the lock that it was held against, None without a lock.
    """

    name: str
    platform: str
    digest: str | None
    config: str
    claims: Claims
    verdict: Verdict
    locked: Locked | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An image that can be read."""

    name: str
    digest: str | None
    config_digest: str
    config: JSONObject
    files: Files


class Verifier:
    """Verifies images with the registries, engine and indexes of the settings."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings = settings
        self._reporter = reporter

    def in_registry(self, text: str, candidates: Sequence[Candidate] | None) -> list[Checked]:
        """Every platform of an image of a registry. Raises the errors of references, images and registries."""
        place = reference.parse(text)
        found = stored.in_registry(Registries(self._settings)(place.host), place)
        return [self._checked(self._of(one), candidates) for one in found]

    def in_layout(self, path: Path, name: str, candidates: Sequence[Candidate] | None) -> list[Checked]:
        """Every platform of an image of an OCI layout. Raises ``BadLayout`` and the errors of images."""
        return [self._checked(self._of(one), candidates) for one in stored.in_layout(path, name)]

    def in_engine(self, name: str, candidates: Sequence[Candidate] | None) -> list[Checked]:
        """The image of the user's engine. Raises ``NoImage`` and the errors of engines."""
        with engines.opened() as engine:
            found = engine.image(name)
            if found is None:
                hint = "`docker images flowkiln` lists what it has; `flowkiln env bake ENV --to docker` bakes."
                raise NoImage(f"the engine {engine.endpoint} has no image {name}", hint=hint)
            config = {"os": found.get("Os"), "architecture": found.get("Architecture"), "config": found["Config"]}
            files = partial(self._exported, engine, str(found["Id"]))
            opened = _Opened(name=name, digest=None, config_digest=str(found["Id"]), config=config, files=files)
            return [self._checked(opened, candidates)]

    def _of(self, image: stored.StoredImage) -> _Opened:
        return _Opened(
            name=image.name,
            digest=image.digest,
            config_digest=image.config_digest,
            config=image.config,
            files=partial(self._streamed, image),
        )

    def _streamed(self, image: stored.StoredImage) -> dict[str, Found]:
        with self._reporter.phase(f"verify {image.name}", total=image.size, unit="bytes") as phase:
            layers = [(diff_id, partial(_counted, opened, phase)) for diff_id, opened in image.layers]
            return inside.of_layers(image.name, layers)

    def _exported(self, engine: Engine, image: str) -> dict[str, Found]:
        """What the engine gives of the folder of the environment; nothing of the image runs for that."""
        with _container(engine, image) as name:
            try:
                return inside.of_archive(engine.get_archive(name, places.PREFIX))
            except ContainerMissing:  # the container is there: what it lacks is the folder
                return {}

    def _checked(self, image: _Opened, candidates: Sequence[Candidate] | None) -> Checked:
        claims = Claims.of(image.config)
        platform = f"{image.config.get('os')}/{image.config.get('architecture')}"
        problem, locked = None, None
        if candidates is not None:
            locked = self._locked(claims, platform, candidates)
            if locked is None:
                names = ", ".join(sorted({one.lock.name for one in candidates})) or "none"
                problem = f"the lock has no such environment for {platform}: {names}"
        verdict = judging.judge(image.files(), claims, locked)
        if problem is not None:
            verdict.problems.insert(0, problem)
        return Checked(
            name=image.name,
            platform=platform,
            digest=image.digest,
            config=image.config_digest,
            claims=claims,
            verdict=verdict,
            locked=locked,
        )

    # -- locks -------------------------------------------------------------------------------------------------

    def _locked(self, claims: Claims, platform: str, candidates: Sequence[Candidate]) -> Locked | None:
        """What the lock says of the environment that the image names; of the only one where it names none."""
        parts = [(one, part) for one in candidates for part in one.lock.platforms if str(part.platform) == platform]
        named = [pair for pair in parts if pair[1].env_id == claims.env_id]
        if not named and len(parts) != 1:
            return None
        one, part = (named or parts)[0]
        return Locked(
            name=one.lock.name,
            env_id=part.env_id,
            lock_id=one.lock.lock_id,
            tree_digest=self._tree_digest(part),
            bases=_bases(one, part.platform),
        )

    def _tree_digest(self, part: PlatformLock) -> str | None:
        """What installing the locked wheels writes; None offline where some would have to be fetched."""
        describer = Describer(paths.cache_root(), Host(self._settings).fetcher())
        if self._settings.flag("offline") and describer.missing(part):
            return None
        return describer.describe(part, self._reporter).tree.tree_digest


def _bases(one: Candidate, platform: Platform) -> tuple[str, ...] | None:
    """The manifests of the bases that the lock pins for the environment, None where it pins none."""
    pins = one.folder.read_bases() if one.folder is not None else ()
    found = [pin.manifest for pin in pins if pin.platform == platform and one.lock.name in pin.environments]
    return tuple(found) or None


@contextmanager
def _container(engine: Engine, image: str) -> Iterator[str]:
    """The name of a container of the image that is never started."""
    name = f"flowkiln-verify-{os.urandom(8).hex()}"
    engine.create(
        name, {"Image": image, "Entrypoint": ["/never"], "Cmd": [], "Labels": {"io.flowkiln.kind": "verify"}}
    )
    try:
        yield name
    finally:
        engine.remove(name)


def _counted(opened: Callable[[], Iterator[bytes]], phase: Phase) -> Iterator[bytes]:
    for block in opened():
        phase.advance(len(block))
        yield block
