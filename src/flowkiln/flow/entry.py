"""Where a flow file meets the command line: the one place of this folder that reaches up."""

from __future__ import annotations

import importlib
from typing import NoReturn


def main(flow: type) -> NoReturn:
    """Runs the command line of ``flow`` with the arguments of this process and exits."""
    command_line = importlib.import_module("flowkiln.cli.flow")
    command_line.main(flow)
    raise SystemExit(0)
