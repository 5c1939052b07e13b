"""What a command allows to be done about locks that are missing or stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkiln._base.platforms import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be done about a lock that is missing or stale. ``upgrade`` frees versions (True: all)."""

    locked: bool = False
    frozen: bool = False
    upgrade: bool | frozenset[str] = False
    platforms: tuple[Platform, ...] = ()
