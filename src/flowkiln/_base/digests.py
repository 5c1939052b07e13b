"""sha256 digests of bytes and files, written ``sha256:<64 hex digits>``."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

_FORM = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes | memoryview) -> str:
    """Digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: str | PathLike[str]) -> str:
    """Digest of a file's content, read in blocks. Raises ``OSError``."""
    with Path(path).open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest in this module's form."""
    return _FORM.fullmatch(text) is not None


def hexdigits(digest: str) -> str:
    """The 64 hex digits of ``digest``. Raises ``ValueError`` when it is not a digest."""
    if not is_digest(digest):
        message = f"not a sha256 digest: {digest!r}"
        raise ValueError(message)
    return digest[7:]
