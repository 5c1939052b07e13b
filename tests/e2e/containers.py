"""A user's project whose steps run in containers of a real engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowkiln._base.endpoints import find
from flowkiln._base.engine import Engine
from flowkiln.executor.container import LABEL, run_labels
from tests import stack
from tests.e2e.project import Project

PATIENCE = 60.0


class Dock:
    """A project and the engine that its containers are with."""

    def __init__(self, project: Project, kind: stack.EngineKind = "overlay2") -> None:
        self.project = project
        self.host = stack.engine(kind).host
        self.tcp = stack.engine(kind).tcp or ""
        self.engine = Engine(find({"DOCKER_HOST": self.host}))
        self.base = stack.base("slim-python:3.11")
        project.environ |= {"DOCKER_HOST": self.host, "FLOWKILN_IMAGES_BASE": self.base}

    @property
    def store(self) -> Path:
        """The project's store."""
        return self.project.folder / ".flowkiln"

    def containers(self) -> list[dict[str, Any]]:
        """All containers of all runs in the project's store."""
        label = LABEL + "store"
        return self.engine.containers(labels={label: run_labels(str(self.store), "")[label]})

    def inspected(self) -> list[dict[str, Any]]:
        """What the engine tells of each of them."""
        found = [self.engine.inspect(one["Id"]) for one in self.containers()]
        return [one for one in found if one is not None]

    def end(self) -> None:
        """Removes what a failed test has left, after the launchers that would start more."""
        self.project.end()
        for one in self.containers():
            self.engine.remove(one["Id"])
        self.engine.close()


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """What ``what`` gives once that is true, as long as the process runs."""
    limit = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < limit, "waited in vain"
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"ended with {process.returncode}\n{out[-3000:]}\n{err[-5000:]}")
        time.sleep(0.05)
    return found


def docked(project: Project, kind: stack.EngineKind = "overlay2") -> Iterator[Dock]:
    """Body of a fixture."""
    dock = Dock(project, kind)
    yield dock
    dock.end()
