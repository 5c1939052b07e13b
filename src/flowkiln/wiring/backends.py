"""The backend of a run: processes of this machine, containers, or both, as its plan says."""

from __future__ import annotations

import getpass
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flowkiln._base import paths
from flowkiln._base.files import disk_errors
from flowkiln.executor.process import ProcessBackend, ProcessSettings
from flowkiln.flow import package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.settings import Settings
    from flowkiln.executor.backend import Backend
    from flowkiln.executor.docker import DockerBackend
    from flowkiln.executor.plan import Prefix, RunPlan
    from flowkiln.store.folder import FolderStore
    from flowkiln.store.logs import LogLine

    OnLine = Callable[[int, int, LogLine], None]


def backend_for(
    plan: RunPlan,
    number: str,
    store: FolderStore,
    settings: Settings,
    on_line: OnLine,
    *,
    verbose: bool = False,
    inherits: bool = False,
) -> Backend:
    """The backend for a run, whose code is unpacked in the cache, once for all runs of equal code.

    A plan without containers loads nothing of them. ``inherits`` says that the run had a launcher before. Raises
    ``EngineNotFound`` for one that has some.
    """
    cache = paths.cache_root()
    with disk_errors(cache / "code", setting="cache"):
        code_dir = package.unpack(plan.code, store.blobs, cache / "code")
    info: dict[str, Any] = {"plan": plan.to_json(), "full_trace": verbose}
    with suppress(OSError, KeyError):
        info["user"] = getpass.getuser()
    contained = [step.image is not None for step in plan.steps]
    if all(contained):
        return _docker(plan, number, store, settings, on_line, code_dir, info, inherits=inherits)
    about = ProcessSettings(
        code_dir=code_dir,
        cache=cache,
        info=info,
        host=dict(os.environ),
        passed=settings.items("pass-environment") or (),
    )
    processes = ProcessBackend(plan, number, store, about, verify=_proof(plan, number), on_line=on_line)
    if not any(contained):
        return processes
    from flowkiln.executor.routes import Routed

    return Routed(
        plan, processes, _docker(plan, number, store, settings, on_line, code_dir, info, inherits=inherits)
    )


def ending_backend(plan: RunPlan, number: str, store: FolderStore, settings: Settings) -> DockerBackend | None:
    """The backend that ends what a launcher that is gone has left of a run; None where nothing outlives one."""
    if not _has_containers(plan):
        return None
    return _docker(plan, number, store, settings, _unheard, paths.cache_root() / "code", {}, inherits=True)


def require_engine(plan: RunPlan) -> None:
    """Returns when the engine of the plan's containers, if it has any, answers: else what runs there is unknown.

    Raises the engine's errors.
    """
    if _has_containers(plan):
        from flowkiln.wiring import engines

        with engines.opened() as engine:
            engine.info()


def _has_containers(plan: RunPlan) -> bool:
    return any(step.image is not None for step in plan.steps)


def _unheard(_task: int, _attempt: int, _line: LogLine) -> None:
    """Used where nobody watches the run."""


def prewarm(backend: Backend, plan: RunPlan) -> None:
    """Starts what the first step of ``plan`` needs, where it runs as a process."""
    if plan.steps[0].image is None:
        warm = getattr(backend, "prewarm", None)
        if warm is not None:
            warm(plan.steps[0].name)


def _docker(
    plan: RunPlan,
    number: str,
    store: FolderStore,
    settings: Settings,
    on_line: OnLine,
    code_dir: Path,
    info: JSONObject,
    *,
    inherits: bool,
) -> DockerBackend:
    from flowkiln.executor.docker import DockerBackend, DockerSettings
    from flowkiln.wiring import engines

    about = DockerSettings(
        code_dir=code_dir,
        cache=paths.cache_root(),
        info=info,
        host=dict(os.environ),
        passed=settings.items("pass-environment") or (),
        files=settings.text("docker.files") or "auto",  # type: ignore[arg-type]  # one of its choices
        inherits=inherits,
    )
    return DockerBackend(plan, number, store, engines.opened(), about, on_line=on_line)


def _proof(plan: RunPlan, number: str) -> Callable[[Prefix, str], None]:
    """What proves the environment of a step, and names the command that repairs it."""

    def prove(prefix: Prefix, level: str) -> None:
        if prefix.managed:
            from flowkiln.wiring import trees

            step = next(step.name for step in plan.steps if step.prefix == prefix)
            trees.prove(prefix, level, f"{plan.flow}/{number}/{step}")

    return prove
