"""Flows whose every step runs in a locked environment, and proves it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise SystemExit(
        "flowkiln runs on Linux and macOS; on Windows use WSL 2: https://learn.microsoft.com/windows/wsl"
    )

if TYPE_CHECKING:
    from flowkiln.flow.current import current
    from flowkiln.flow.decorators import catch, docker, environment, resources, retry, timeout
    from flowkiln.flow.environmentdecorators import conda, conda_base, pypi, pypi_base
    from flowkiln.flow.includes import IncludeFile
    from flowkiln.flow.marks import step
    from flowkiln.flow.parameters import JSONType, JSONTypeClass, Parameter
    from flowkiln.flow.spec import FlowSpec

__version__ = "0.1.0"

__all__ = [
    "FlowSpec",
    "IncludeFile",
    "JSONType",
    "JSONTypeClass",
    "Parameter",
    "catch",
    "conda",
    "conda_base",
    "current",
    "docker",
    "environment",
    "pypi",
    "pypi_base",
    "resources",
    "retry",
    "step",
    "timeout",
]

_HOMES = {
    "FlowSpec": "spec",
    "IncludeFile": "includes",
    "JSONType": "parameters",
    "JSONTypeClass": "parameters",
    "Parameter": "parameters",
    "catch": "decorators",
    "conda": "environmentdecorators",
    "conda_base": "environmentdecorators",
    "current": "current",
    "docker": "decorators",
    "environment": "decorators",
    "pypi": "environmentdecorators",
    "pypi_base": "environmentdecorators",
    "resources": "decorators",
    "retry": "decorators",
    "step": "marks",
    "timeout": "decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module 'flowkiln' has no attribute {name!r}"
        raise AttributeError(message)
    import importlib  # noqa: PLC0415  keeps ``import flowkiln`` free of the flow API

    value = getattr(importlib.import_module(f"flowkiln.flow.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
