"""A file to download as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A file to download: its URL without credentials, and what it must be. ``size`` is in bytes, if known."""

    name: str
    url: str
    sha256: str
    size: int | None = None
