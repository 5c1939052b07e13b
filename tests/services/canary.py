"""Finds a secret at rest: as it is, encoded, or inside compressed files and archives."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def find(secret: str, *folders: Path, besides: Iterable[str] = (), pairs: Iterable[str] = ()) -> list[str]:
    """Every file below ``folders`` that holds ``secret``, with the form it was found in.

    ``besides`` are names of folders to leave out; ``pairs`` are users whose ``user:secret`` may be encoded.
    """
    forms = dict(_forms(secret, pairs))
    left_out = set(besides)
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if left_out & set(path.relative_to(folder).parts):
                continue
            if secret in path.name:
                found.append(f"{path}: name")
            if path.is_symlink() or not path.is_file():
                continue
            for where, data in _contents(path.read_bytes()):
                found += [f"{path}{where}: {name}" for name, form in forms.items() if form in data]
    return found


def _forms(secret: str, pairs: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    raw = secret.encode()
    yield "plain", raw
    yield "reversed", raw[::-1]
    yield "hex", raw.hex().encode()
    if quote(secret, safe="") != secret:
        yield "percent-encoded", quote(secret, safe="").encode()
    yield "base64", base64.b64encode(raw).rstrip(b"=")[:-1]
    for user in pairs:
        yield f"Basic {user}", base64.b64encode(f"{user}:{secret}".encode()).rstrip(b"=")[:-1]


def _contents(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", data
    for kind, unpack in (("gz", gzip.decompress), ("xz", lzma.decompress), ("bz2", bz2.decompress)):
        try:
            yield f" ({kind})", unpack(data)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
            continue
    if data[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for name in archive.namelist():
                    yield f"!{name}", archive.read(name)
        except (zipfile.BadZipFile, NotImplementedError, zlib.error):
            return
