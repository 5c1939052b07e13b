"""The services that the rows about images need: the engine, the registry and the base of the tests' stack."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack.bases import publish_base
from tests.stack.engines import start_engine
from tests.stack.place import run_folder
from tests.stack.registries import start_registry
from tests.stack.services import stop
from tests.stack.tools import find_tool

from benchmarks.measure import run

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = "3.11"
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@dataclass(frozen=True)
class Stack:
    """A Docker engine, a registry on the loopback and a base with Python in it."""

    engine: str
    registry: str
    base: str
    docker: Path

    def environ(self) -> dict[str, str]:
        """What makes the docker command use this engine, and its own builder: this one has no other."""
        home = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}
        return home | {"DOCKER_HOST": self.engine, "DOCKER_BUILDKIT": "0"}

    def call(self, *arguments: str | Path, folder: Path | None = None) -> str:
        """What ``docker ARGUMENTS`` prints."""
        return run([self.docker, *arguments], cwd=folder or Path("/"), environ=self.environ())

    def forget(self, *images: str) -> None:
        """Removes images from the engine, with the layers that nothing else has; those it lacks are no matter."""
        for image in images:
            command = [str(self.docker), "image", "rm", "--force", image]
            subprocess.run(command, env=self.environ(), capture_output=True, check=False)

    def forget_all(self) -> None:
        """Removes all images from the engine."""
        self.call("system", "prune", "--all", "--force")


def started() -> Stack:
    """The stack, started where it is not running. Raises ``CannotRun``.

    The engine is one of the benchmark's own: layers that the tests' images left in theirs would be had for nothing.
    """
    registry = start_registry("plain")
    base = publish_base("slim-python:3.11")
    return Stack(start_engine("overlay2", "bench").host, registry.address, base, find_tool("docker"))


def ended() -> None:
    """Ends the benchmark's engine and removes all that it has."""
    stop("engine-bench")
    shutil.rmtree(run_folder("engine-bench"), ignore_errors=True)


def certificates() -> Path | None:
    """The file of authorities that this machine trusts: a container that installs something trusts others."""
    told = [os.environ[key] for key in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(key)]
    return next((Path(one) for one in (*told, *_BUNDLES) if Path(one).is_file()), None)


def index() -> str | None:
    """The package index that this machine is told to use, None for the public one."""
    return next((os.environ[key] for key in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL") if os.environ.get(key)), None)


def emptied(folder: Path, files: Sequence[tuple[str, str | Path]]) -> Path:
    """``folder`` with these files alone, given as text or copied."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, content in files:
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
            (folder / name).chmod(content.stat().st_mode & 0o777)
        else:
            (folder / name).write_text(content, encoding="utf-8")
    return folder
