"""Where a flow file meets the command line: the one place of this folder that reaches up."""

from __future__ import annotations

import gc
import importlib
from typing import NoReturn

_SELDOM = 20_000
"""New objects between collections: the launcher imports much and drops little, and its start is waited for."""


def main(flow: type) -> NoReturn:
    """Runs the command line of ``flow`` with the arguments of this process and exits."""
    gc.set_threshold(_SELDOM)
    command_line = importlib.import_module("flowkiln.cli.flow")
    command_line.main(flow)
    raise SystemExit(0)
