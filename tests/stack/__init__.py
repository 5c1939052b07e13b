"""Real services for tests of images: engines, registries, base images. Each starts when it is first asked for.

What was started keeps running after the tests, so that the next run finds it; ``python -m tests.stack stop`` ends
it. A registry begins empty but for the bases, the engines keep their images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.services import unavailable
from tests.stack.bases import Base, publish_base
from tests.stack.engines import Engine, EngineKind, start_engine
from tests.stack.place import CannotRun
from tests.stack.registries import Registry, RegistryKind, start_registry
from tests.stack.tools import Tool, find_tool

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Base", "Engine", "EngineKind", "Registry", "RegistryKind", "Tool", "base", "engine", "registry", "tool"]


def engine(kind: EngineKind) -> Engine:
    """A Docker engine that answers; the test is skipped with the reason where none can run."""
    try:
        return start_engine(kind)
    except CannotRun as why:
        unavailable(str(why))


def registry(kind: RegistryKind) -> Registry:
    """A registry that answers; the test is skipped with the reason where none can run."""
    try:
        return start_registry(kind)
    except CannotRun as why:
        unavailable(str(why))


def tool(name: Tool) -> Path:
    """A program that is there; the test is skipped with the reason where it cannot be had."""
    try:
        return find_tool(name)
    except CannotRun as why:
        unavailable(str(why))


def base(name: Base) -> str:
    """The full reference of a base image that the plain registry has; skipped with the reason otherwise."""
    try:
        return publish_base(name)
    except CannotRun as why:
        unavailable(str(why))
