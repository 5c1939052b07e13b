"""What is known of the images of environments without asking any network: pins, records of pushes, this engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from flowkiln._base import endpoints, paths
from flowkiln._base.engine import Engine
from flowkiln._base.engineerrors import EngineError
from flowkiln.executor import runtime
from flowkiln.images import plan
from flowkiln.images.manifest import LABEL
from flowkiln.images.pushing import place_of
from flowkiln.images.records import Records
from flowkiln.wiring.baking import compression_of, team_repository

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock

_PATIENCE = 3.0
"""Seconds that an engine of this machine has to answer."""
_KEY = f"{LABEL}.image-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The image of an environment on a pinned base.

    ``pushed`` is its digest where the repository of the settings was seen to hold it. ``here`` is whether the local
    engine has it, None where that is not known: no engine answers, or it may be on another machine.
    """

    pin: BasePin
    image_key: str
    tag: str
    pushed: str | None
    here: bool | None

    def to_json(self) -> JSONObject:
        """As ``env list --json`` shows it, beside its pin."""
        return {"image_key": self.image_key, "tag": self.tag, "pushed": self.pushed, "engine": self.here}

    def words(self) -> str:
        """For people: ``in the engine, pushed``."""
        words = ["in the engine"] if self.here else []
        words += ["pushed"] if self.pushed else []
        return ", ".join(words) or ("not baked" if self.here is False else "not known to be baked")


class Catalogue:
    """Answers for the environments of one project. The engine is asked once, when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records = Records(paths.cache_root())

    def of(self, lock: EnvLock, pins: tuple[BasePin, ...]) -> list[Known]:
        """The images of an environment, one for each of its pins whose platform is locked."""
        return [self._known(lock, pin) for pin in pins if lock.on(pin.platform) is not None]

    def _known(self, lock: EnvLock, pin: BasePin) -> Known:
        part = lock.on(pin.platform)
        assert part is not None
        found = plan.plan(lock.name, lock.lock_id, part, pin, self._runtime_id)
        return Known(
            pin=pin,
            image_key=found.image_key,
            tag=found.tag,
            pushed=self._pushed(found.image_key),
            here=None if self._here is None else found.image_key in self._here,
        )

    @cached_property
    def _runtime_id(self) -> str:
        return runtime.identity(runtime.files())

    def _pushed(self, image_key: str) -> str | None:
        told = team_repository(self._settings)
        if told is None:
            return None
        place = place_of(told, compression_of(self._settings))
        record = self._records.image(place, image_key)
        return None if record is None else record.digest

    @cached_property
    def _here(self) -> set[str] | None:
        """The keys of our images in the engine of this machine; None where none of this machine answers."""
        try:
            endpoint = endpoints.find(os.environ)
            if endpoint.remote:
                return None
            with Engine(endpoint, timeout=_PATIENCE) as engine:
                found = engine.images(labels={_KEY: None})
        except EngineError:
            return None
        return {str((one.get("Labels") or {}).get(_KEY)) for one in found}
