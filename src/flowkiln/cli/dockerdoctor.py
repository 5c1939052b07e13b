"""``flowkiln doctor --with docker``: the engine, the base of images, the repository that they go to."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from flowkiln.cli.doctor import Finding
from flowkiln.cli.output import size
from flowkiln.images import reference
from flowkiln.wiring import engines
from flowkiln.wiring.baking import default_base, repository_of
from flowkiln.wiring.registries import Registries

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkiln._base.engine import Engine
    from flowkiln._base.settings import Settings


def _engine(settings: Settings) -> Finding:  # noqa: ARG001  every check is called alike
    with engines.opened() as engine:
        version, info = engine.version(), engine.info()
        name = "Podman" if engine.podman else "Docker"
        lines = [f"{name} {version.get('Version', '?')} at {engine.endpoint.url}, {engine.platform}", _kept(engine)]
        lines.append(f"{info.get('NCPU', '?')} cores, {_memory(info.get('MemTotal'))}")
        lines.append(_gpus(info))
        if engine.endpoint.remote:
            lines.append("it may be on another machine: files are sent to containers and fetched, not mounted")
        if shutil.which("docker") is None:
            lines.append("no docker command on PATH: `env shell --with docker` needs it, nothing else does")
        return Finding("engine", "ok", "\n".join(lines), engine.endpoint.origin)


def _kept(engine: Engine) -> str:
    store = "containerd's image store" if engine.containerd_store else "the classic image store"
    rights = "rootless" if engine.rootless else "as root"
    return f"{store}, storage {engine.info().get('Driver', '?')}, {rights}"


def _memory(total: Any) -> str:
    return f"{size(total)} of memory" if isinstance(total, int) and total > 0 else "memory not told"


def _gpus(info: dict[str, Any]) -> str:
    runtimes = [name for name in info.get("Runtimes") or {} if "nvidia" in name]
    devices = [str(one.get("ID")) for one in info.get("DiscoveredDevices") or () if isinstance(one, dict)]
    if runtimes or devices:
        return f"GPUs by {', '.join(runtimes + devices)}"
    return "no runtime for GPUs: steps with gpu= do not start"


def _base(settings: Settings) -> Finding:
    """Whether the registry has the base of environments that name none, for the Python that runs this."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    name = default_base(settings, python)
    place = reference.parse(name)
    origin = settings.origin("images.base")
    if settings.flag("offline"):
        return Finding("base", "ok", f"{name}; not asked, offline", origin, (place.host,))
    found = Registries(settings)(place.host).manifest(place.repository, place.version)
    if found is None:
        text = f"{place.host} has no image {name}\n"
        text += f"Name another with images.base, or log in: `docker login {place.host}`."
        return Finding("base", "problem", text, origin, (place.host,))
    text = f"{name} is there, {found.digest[:19]}"
    return Finding("base", "ok", text, origin, (place.host,))


def _repository(settings: Settings) -> Finding:
    origin = settings.origin("images.repository")
    if not settings.text("images.repository"):
        text = (
            "not set: images go to the local engine alone; `env bake --push` and other machines need\n"
            '[tool.flowkiln.images] repository = "registry.example.com/team/flows"'
        )
        return Finding("repository", "ok", text, origin)
    place = repository_of(settings)
    registries = Registries(settings)
    login = registries.login(place.host)
    told = "no login" if login is None else f"login {login.get('username') or 'by token'}"
    if settings.flag("offline"):
        return Finding("repository", "ok", f"{place.name}, {told}; not asked, offline", origin, (place.host,))
    registries(place.host).check_push(place.repository)
    return Finding("repository", "ok", f"{place.name} takes pushes, {told}", origin, (place.host,))


CHECKS: dict[str, Callable[[Settings], Finding]] = {"engine": _engine, "base": _base, "repository": _repository}
