"""Which channels have no packages for a platform: remembered, since offline that is an answer too.

The reader of channels keeps what a server sends, and nothing of a 404.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from flowkiln._base import files

if TYPE_CHECKING:
    from pathlib import Path


def known(folder: Path, channel: str, subdir: str) -> bool:
    """Whether ``channel``, a URL without credentials, had nothing in ``subdir`` when it was last asked."""
    return _place(folder, channel, subdir).exists()


def note(folder: Path, channel: str, subdir: str, *, absent: bool) -> None:
    """Remembers in ``folder`` whether ``channel`` has nothing in ``subdir``."""
    place = _place(folder, channel, subdir)
    if absent:
        files.write_atomic(place, f"{channel}/{subdir}\n".encode())
    else:
        place.unlink(missing_ok=True)


def _place(folder: Path, channel: str, subdir: str) -> Path:
    return folder / "absent" / hashlib.sha256(f"{channel}/{subdir}".encode()).hexdigest()
