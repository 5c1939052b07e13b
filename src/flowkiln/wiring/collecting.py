"""Garbage collection of everything: the cache's files, and what is in the container engine if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import paths
from flowkiln._base.engineerrors import EngineError, EngineNotFound
from flowkiln.envs.collect import Collector
from flowkiln.images.collecting import EngineGarbage
from flowkiln.wiring import engines
from flowkiln.wiring.baking import team_repository

if TYPE_CHECKING:
    from flowkiln._base.engine import Engine
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings


def collector(settings: Settings, reporter: Reporter) -> Collector:
    """What collects in the cache and in the engine. An engine that does not answer is said and left alone."""
    cache = paths.cache_root()
    told = team_repository(settings)
    return Collector(cache, [EngineGarbage(_engine(reporter), cache, told.name if told else None)])


def _engine(reporter: Reporter) -> Engine | None:
    try:
        found = engines.opened()
        found.version()
    except EngineNotFound:
        return None
    except EngineError as error:
        reporter.say(f"without the container engine: {error.message}")
        return None
    return found
