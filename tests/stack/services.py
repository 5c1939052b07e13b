"""The services by name: started, stopped, described."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.stack.bases import RECIPES, publish_base
from tests.stack.daemons import end, running
from tests.stack.debian import forget_archives
from tests.stack.engines import start_engine, tidy_engine
from tests.stack.place import CannotRun, locked, read_state, write_state
from tests.stack.registries import start_registry
from tests.stack.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Callable

DAEMONS = ("registry-plain", "registry-tls", "engine-overlay2", "engine-containerd")
"""What runs, in the order in which it starts; it stops in the opposite one."""


def _bases() -> str:
    with ThreadPoolExecutor(2) as pool:  # downloads and archives: two at once on two cores
        references = list(pool.map(publish_base, RECIPES))
    forget_archives()
    return ", ".join(references)


def _engine(kind: str) -> str:
    engine = start_engine("overlay2" if kind == "overlay2" else "containerd")
    return f"Docker {engine.version} at {engine.host} and {engine.tcp}"


STARTS: dict[str, Callable[[], str]] = {
    "registry-plain": lambda: start_registry("plain").url,
    "registry-tls": lambda: start_registry("tls").url,
    "engine-overlay2": lambda: _engine("overlay2"),
    "engine-containerd": lambda: _engine("containerd"),
    "tools": lambda: ", ".join(str(find_tool(name)) for name in ("docker", "skopeo", "crane")),
    "bases": _bases,
}
"""What ``start`` makes true, by name; each call says what there is now."""


def stop(name: str) -> bool:
    """Ends a service that runs and forgets it; whether it ran. What it built and stored stays."""
    with locked(name):
        process = running(name)
        if process is not None:
            end(process)
        if name.startswith("engine-"):
            tidy_engine(name)
        write_state(name, None)
    return process is not None


def status(name: str) -> str:
    """One line: what runs and where, or that it does not, or that it ended by itself."""
    state, process = read_state(name), running(name)
    if process is not None and state is not None:
        return f"runs, process {process.pid}: {state.get('host') or state.get('address')}"
    return "not running" if state is None else "ended by itself"


def start(name: str) -> str:
    """Makes the service run; what there is now. :class:`CannotRun` says why not."""
    try:
        return STARTS[name]()
    except OSError as failure:
        raise CannotRun(name, f"of {failure}") from failure
