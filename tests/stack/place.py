"""Where the stack keeps what it built and what it knows of its services."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.home import MACHINE

if TYPE_CHECKING:
    from collections.abc import Iterator


class CannotRun(Exception):
    """A service cannot run on this machine; the text says why."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} cannot run here because {why}")


def root() -> Path:
    """The stack's folder, from the environment as the run was started: tests isolate their own."""
    if moved := MACHINE.get("FLOWKILN_TEST_STACK"):
        return Path(moved).absolute()
    caches = MACHINE.get("XDG_CACHE_HOME") or Path(MACHINE.get("HOME") or Path.home()) / ".cache"
    return Path(caches).absolute() / "flowkiln-stack"


def mark() -> str:
    """Six hex digits that tell this stack's network devices from another's."""
    return hashlib.sha256(os.fsencode(root())).hexdigest()[:6]


def built(*parts: str) -> Path:
    """A path for something built once; its folder exists."""
    path = root().joinpath("built", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run_folder(name: str) -> Path:
    """The folder of a service's state, storage, socket and log; only its owner may look into it."""
    path = root() / "run" / name
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the lock ``name`` against all other processes. The lock dies with its process."""
    folder = root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_state(name: str) -> dict[str, object] | None:
    """What was written of a service when it started, None when it did not or was stopped."""
    try:
        state: dict[str, object] = json.loads((run_folder(name) / "state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return state


def write_state(name: str, state: dict[str, object] | None) -> None:
    """Replaces what is known of a service; None forgets it."""
    path = run_folder(name) / "state.json"
    if state is None:
        path.unlink(missing_ok=True)
        return
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    scratch.replace(path)
