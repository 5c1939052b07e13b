"""Layers and images with the files that tests want, as other tools write them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AMD64_ELF, ARM64_ELF = 62, 183


def tar(entries: dict[str, Any], modes: dict[str, int] | None = None) -> bytes:
    """A tar of entries in order: bytes are files, a text a symbolic link, None a folder, ("hard", path) a link."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, what in entries.items():
            entry = tarfile.TarInfo(name)
            entry.mode = (modes or {}).get(name, 0o755)
            if what is None:
                entry.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, what
            elif isinstance(what, tuple):
                entry.type, entry.linkname = tarfile.LNKTYPE, what[1]
            else:
                entry.size = len(what)
            archive.addfile(entry, io.BytesIO(what) if isinstance(what, bytes) else None)
    return stream.getvalue()


def layer(entries: dict[str, Any], modes: dict[str, int] | None = None) -> Callable[[], Iterator[bytes]]:
    """A compressed layer as a registry streams it."""
    return stream(gzip.compress(tar(entries, modes)))


def stream(data: bytes, size: int = 1000) -> Callable[[], Iterator[bytes]]:
    """``data`` as a registry streams it."""
    return lambda: (data[start : start + size] for start in range(0, len(data), size))


def elf(machine: int = AMD64_ELF, loader: str | None = None, content: bytes = b"", *, bits: int = 64) -> bytes:
    """The smallest ELF file that names a loader."""
    head = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, int(loader is not None), 0, 0, 0)
    if loader is None:
        return head + content
    name = loader.encode() + b"\0"
    return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name + content


def libc(version: str = "2.36", machine: int = AMD64_ELF) -> bytes:
    """What a glibc says of itself."""
    banner = f"GNU C Library (Debian GLIBC {version}-9) stable release version {version}.\n".encode()
    return elf(machine, content=b"\0GLIBC_2.2.5\0" + banner)


def config(architecture: str = "amd64", *environ: str, **more: Any) -> dict[str, Any]:
    """The config of an image."""
    return {"architecture": architecture, "os": "linux", "config": {"Env": list(environ), **more}}


LOADER = "/lib64/ld-linux-x86-64.so.2"
SYSTEM: dict[str, Any] = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": b"",
    "usr/lib/x86_64-linux-gnu/libc.so.6": libc(),
}
"""A Debian without Python."""


def local(python: str = "3.11", *, content: bytes = b"") -> dict[str, Any]:
    """A Python in /usr/local, as the official images have it."""
    return {
        f"usr/local/bin/python{python}": elf(loader=LOADER, content=content),
        "usr/local/bin/python3": f"python{python}",
        f"usr/local/lib/python{python}/os.py": b"",
    }
