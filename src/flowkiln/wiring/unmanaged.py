"""The launcher's own interpreter as a prefix: for flows and steps that declare no environment."""

from __future__ import annotations

import platform
import sys

from flowkiln._base import platforms
from flowkiln.executor.plan import Prefix


def unmanaged() -> Prefix:
    """The prefix of the interpreter that runs this, without an ``env_id``."""
    return Prefix(python=sys.executable, version=platform.python_version(), platform=str(platforms.host()))
