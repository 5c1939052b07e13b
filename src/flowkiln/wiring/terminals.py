"""A container for somebody at a terminal: the ``docker`` command's words for an image, with folders mounted."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.executor import container
from flowkiln.executor.environ import OWN, cores
from flowkiln.executor.plan import ContainerSettings
from flowkiln.wiring.errors import EngineElsewhere, NoDockerCommand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from flowkiln._base.endpoints import Endpoint
    from flowkiln._base.engine import Engine
    from flowkiln.executor.container import Bind
    from flowkiln.executor.plan import StepPlan

RUNTIME = f"{container.MOUNTS}/runtime"
LIBRARY = f"{container.MOUNTS}/library"
HERE = f"{container.MOUNTS}/here"
_START = """\
import os, shutil, sys
folder, root, kept, *words = sys.argv[1:]
environ = dict(os.environ)
if root:
    sys.path.insert(0, folder)
    from flowkiln.executor.activation import ActivationError, activated
    try:
        environ = activated(root, environ, kept.split(","))
    except ActivationError as error:
        sys.exit(f"flowkiln: {error}")
if not words:
    words = [shutil.which("bash") or shutil.which("sh") or sys.executable]
    words += ["-i"] if words == [sys.executable] else []
try:
    os.execvpe(words[0], words, environ)
except OSError as error:
    print(f"flowkiln: {words[0]} could not be started: {error.strerror}", file=sys.stderr)
    sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
"""
"""Activates the environment and becomes the command, or the best shell that an image has: Python where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What a container is given: the step whose image and settings it has, folders, working directory, variables.

    ``command`` is empty for a shell.
    """

    step: StepPlan
    binds: Sequence[Bind]
    folder: str
    variables: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()


def require(engine: Engine) -> str:
    """The ``docker`` command. Raises ``NoDockerCommand``, ``EngineElsewhere`` for an engine without our files."""
    found = shutil.which("docker")
    if found is None:
        raise NoDockerCommand("there is no `docker` command on PATH, which a terminal in a container needs")
    if engine.endpoint.remote:
        raise EngineElsewhere(f"the engine {engine.endpoint} may not see the files of this machine")
    return found


def variables(engine: Engine, seat: Seat, passed: Sequence[str]) -> dict[str, str]:
    """All variables inside the container."""
    assert seat.step.image is not None
    config = (engine.image(seat.step.image.reference) or {}).get("Config") or {}
    found = container.container_variables(
        seat.step, image=config.get("Env") or (), host=os.environ, passed=passed, runtime=RUNTIME, threads=cores()
    )
    found |= {name: os.environ[name] for name in ("TERM",) if name in os.environ}
    return {**found, **seat.variables}


def words(
    program: str, engine: Engine, seat: Seat, environment: Path, named: Iterable[str] = (), *, terminal: bool
) -> list[str]:
    """The command line of the docker command. ``environment`` is the file that holds the variables.

    ``named`` are variables that the docker command itself has.
    """
    step = seat.step
    assert step.image is not None
    python = step.prefix.python
    found = [program, "run", "--rm", "--interactive", *(["--tty"] if terminal else [])]
    found += ["--workdir", seat.folder, "--env-file", str(environment)]
    found += [word for name in named for word in ("--env", name)]
    found += [word for bind in seat.binds for word in ("--mount", _mount(bind))]
    found += _limits(step.container or ContainerSettings(), engine)
    if any("selinux" in str(one) for one in engine.info().get("SecurityOptions") or ()):
        found += ["--security-opt", "label=disable"]
    if seat.command and step.prefix.root is None:
        return [*found, "--entrypoint", seat.command[0], step.image.reference, *seat.command[1:]]
    kept = ",".join((*OWN, *dict(step.environ)))
    start = ["-I", "-S", "-c", _START, RUNTIME, step.prefix.root or "", kept]
    return [*found, "--entrypoint", python, step.image.reference, *start, *seat.command]


def _limits(told: ContainerSettings, engine: Engine) -> list[str]:
    own = "0:0" if engine.rootless else f"{os.getuid()}:{os.getgid()}"
    found = ["--user", told.user or own]
    for option, value in (
        ("--cpus", told.cpus),
        ("--memory", told.memory),
        ("--memory-swap", told.memory),
        ("--shm-size", told.shared_memory),
        ("--network", told.network),
        ("--gpus", "all" if told.gpus == -1 else told.gpus),
    ):
        if value is not None:
            found += [option, str(value)]
    for source, target, read_only in told.mounts:
        found += ["--mount", _mount(container.Bind(source=source, target=target, read_only=read_only))]
    return [*found, *(["--read-only", "--tmpfs", f"{container.TEMPORARY}:mode=1777"] if told.read_only else [])]


def _mount(bind: Bind) -> str:
    """A mount as the docker command reads it: fields of a CSV record."""
    fields = ["type=bind", f"source={bind.source}", f"target={bind.target}"]
    fields += ["readonly"] if bind.read_only else []
    return ",".join(_field(text) for text in fields)


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def write_environment(path: Path, found: Mapping[str, str]) -> dict[str, str]:
    """Writes the variables for the docker command, for this user alone, and returns those of several lines.

    The file has one variable a line: what does not fit is to be named on the command line and given by ours.
    """
    several = {name: value for name, value in found.items() if "\n" in value}
    lines = [f"{name}={value}\n" for name, value in found.items() if name not in several]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:  # noqa: PTH123  a descriptor
        stream.writelines(lines)
    return several


def caller(endpoint: Endpoint, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the docker command, so that it speaks to the engine that flowkiln found."""
    if endpoint.tls is not None or endpoint.origin == "DOCKER_HOST" or endpoint.origin.startswith("context "):
        return dict(environ)
    return {**environ, "DOCKER_HOST": endpoint.url}
