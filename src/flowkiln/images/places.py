"""Where things are inside an image."""

from __future__ import annotations

PREFIX = "/opt/env"
RUNTIMES = "/opt/flowkiln"
BYTECODE = "/opt/flowkiln/pyc"
DESCRIPTION = "/opt/env/.flowkiln"


def runtime(runtime_id: str) -> str:
    """The folder of flowkiln's own part."""
    return f"{RUNTIMES}/{runtime_id}"
