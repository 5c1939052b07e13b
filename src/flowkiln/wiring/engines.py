"""The container engine of this user, found as the docker command finds it."""

from __future__ import annotations

import os

from flowkiln._base import endpoints
from flowkiln._base.engine import Engine


def opened() -> Engine:
    """A client of the engine; nothing is asked of it yet. Raises ``EngineNotFound``."""
    return Engine(endpoints.find(os.environ))
