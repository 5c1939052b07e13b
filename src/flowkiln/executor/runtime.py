"""The content-addressed copy of flowkiln that steps import, and nothing else of the launcher's.

The launcher's own package lies in a ``site-packages`` folder, beside everything that the launcher needs. A step's
process gets a folder with only our package in it, and of that only what runs inside steps: standard library only.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import flowkiln
from flowkiln._base.files import disk_errors, put_folder, scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_IN_STEPS = frozenset({"cli", "envs", "images", "cards", "client", "deploy", "wiring"})
_EXECUTOR_IN_STEPS = frozenset(
    f"executor/{name}.py"
    for name in ("__init__", "backend", "channel", "child", "deadline", "isolation", "outcome", "plan", "template")
)
_SCHEMA = b"flowkiln runtime 1\n"


def runtime_folder(cache: Path, package: Path | None = None) -> Path:
    """The folder to put on a step's ``PYTHONPATH``, made on first use; any number of processes may ask at once.

    What is not as it was made is made anew. ``package`` is the folder of our package, by default the one that is
    running. Raises NoSpace, ReadOnly.
    """
    source = package or Path(flowkiln.__file__).parent
    files = [(name, (source / name).read_bytes()) for name in _names(source)]
    parent = cache / "runtime"
    folder = parent / _identity(files)
    wanted = {f"{source.name}/{name}": content for name, content in files}

    def sound(made: Path) -> bool:
        return _holds(made, wanted)

    if sound(folder):
        with suppress(OSError):
            os.utime(folder)  # used now, for garbage collection
        return folder
    with scratch_folder(parent) as scratch, disk_errors(parent):
        for name, content in wanted.items():
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        put_folder(scratch, folder, sound)
    return folder


def _holds(folder: Path, wanted: dict[str, bytes]) -> bool:
    """Whether ``folder`` holds these files, unchanged, and nothing else that Python could import."""
    found = 0
    try:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            below = os.path.relpath(parent, folder)
            for name in names:
                inside = name if below == "." else f"{below}/{name}"
                if Path(parent, name).read_bytes() != wanted.get(inside):
                    return False
                found += 1
    except OSError:
        return False
    return found == len(wanted)


def _identity(files: list[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256(_SCHEMA)
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _names(package: Path) -> list[str]:
    """The files of the package that steps may need, relative, sorted."""
    return sorted(_walk(package, ""))


def _walk(folder: Path, below: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = below + entry.name
            if name in _NOT_IN_STEPS or entry.name == "__pycache__":
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), name + "/")
            elif entry.name.endswith(".py") and (below != "executor/" or name in _EXECUTOR_IN_STEPS):
                yield name
