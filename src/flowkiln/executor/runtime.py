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
    from collections.abc import Iterator, Mapping

_NOT_IN_STEPS = frozenset({"cli", "envs", "images", "cards", "client", "deploy", "wiring"})
_EXECUTOR_IN_STEPS = frozenset(
    f"executor/{name}.py"
    for name in (
        *("__init__", "backend", "channel", "child", "deadline", "isolation", "outcome", "plan", "template"),
        *("activation", "classify", "inside", "lines", "marker", "memory", "supervisor", "guard"),
    )
)
_SCHEMA = b"flowkiln runtime 2\n"
CONTAINER_FOLDER = "/opt/flowkiln"
"""Where the runtime lies in a container, below its identity."""
START = "supervise.py"
_START = b"""import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rpartition("/")[0])
    from flowkiln.executor.inside import main

    main()
"""


def runtime_folder(cache: Path, package: Path | None = None) -> Path:
    """The folder to put on a step's ``PYTHONPATH``, made on first use; any number of processes may ask at once.

    What is not as it was made is made anew. ``package`` is the folder of our package, by default the one that is
    running. Raises NoSpace, ReadOnly.
    """
    wanted = files(package)
    parent = cache / "runtime"
    folder = parent / identity(wanted)

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


def files(package: Path | None = None) -> dict[str, bytes]:
    """The runtime's files by path: our package as far as steps need it, and the start of a container's supervisor.

    ``package`` is the folder of our package, by default the one that is running.
    """
    source = package or Path(flowkiln.__file__).parent
    found = {f"{source.name}/{name}": (source / name).read_bytes() for name in _names(source)}
    return {**found, START: _START}


def identity(files: Mapping[str, bytes]) -> str:
    """What names these files: 32 hex digits that follow their paths and bytes alone."""
    digest = hashlib.sha256(_SCHEMA)
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


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
