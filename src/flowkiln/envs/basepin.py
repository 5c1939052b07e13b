"""The base of an image as a lock holds it: which manifest, and what is known of it without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowkiln._base.platforms import Platform

Libc = Literal["glibc", "musl", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """What one base image is, read from its config and layers.

    ``python`` is ``X.Y.Z`` and ``interpreter`` the absolute path of that CPython's real executable, both None where
    the base has none (``/usr/local/bin`` wins over ``/usr/bin``). ``glibc`` is (major, minor), None unless ``libc``
    is ``glibc``. ``path``, ``user`` and ``entrypoint`` are those of the config, ``user`` "" for root.
    ``stdlib`` is the folder of the standard library, ``stdlib_bytecode`` whether it holds bytecode already.
    """

    python: str | None = None
    interpreter: str | None = None
    libc: Libc = "none"
    glibc: tuple[int, int] | None = None
    path: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    stdlib: str | None = None
    stdlib_bytecode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BasePin:
    """A base for one platform. ``reference`` is as it was declared (``python:3.11-slim``).

    ``manifest`` is the digest of the platform's manifest, ``config`` that of its config. ``bytecode`` is the
    ``X.Y.Z`` whose compiler makes the bytecode of images on this base, None for images without bytecode.
    ``environments`` are the names of those that are baked on it, sorted. ``without_bytecode`` are the versions of
    environments' own Pythons that could not be run where this was decided: images with them have none either.
    """

    reference: str
    platform: Platform
    manifest: str
    config: str
    facts: BaseFacts
    bytecode: str | None = None
    environments: tuple[str, ...] = ()
    without_bytecode: tuple[str, ...] = ()
