"""What an ENV on the command line comes to: requests to lock, locks to look at, one tree to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import paths, platforms
from flowkiln.cli import targets
from flowkiln.cli.errors import AmbiguousTarget, BadUsage, UnknownTarget
from flowkiln.envs import condalock
from flowkiln.envs.errors import MissingLock, StaleLock
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.envs.requirements import name_of
from flowkiln.wiring import loading, locks, requests, trees

if TYPE_CHECKING:
    from flowkiln.cli.output import Session
    from flowkiln.cli.targets import FlowTarget, FolderTarget, TaskTarget
    from flowkiln.envs.lock import EnvLock, PlatformLock
    from flowkiln.envs.spec import EnvSpec
    from flowkiln.envs.tree import Tree
    from flowkiln.wiring.locks import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment that was named: its lock where there is one, and whether that holds.

    ``state`` is ``fresh``, ``stale``, ``missing``, or ``unchecked`` for a lock folder and for a past task, whose
    declaring file is not read.
    ``home`` is the folder of the declaring file, whose settings hold for it.
    """

    name: str
    state: str
    home: Path
    steps: tuple[str, ...] = ()
    lock: EnvLock | None = None
    folder: LockFolder | None = None
    roots: tuple[str, ...] = ()
    """The names of the packages that were asked for, where the declaring file was read."""


def requested(text: str, speaker: Session) -> list[Request]:
    """The requests that ``text`` stands for. Raises ``UnknownTarget`` for what declares nothing."""
    target = targets.parse(text)
    match target:
        case targets.FlowTarget():
            return _of_flow(target, speaker)
        case targets.NameTarget(name):
            path = _project(name)
            return requests.of_project(path, speaker.settings(path.parent), name)
        case targets.SourceTarget(path, "pyproject", None):
            return requests.of_project(path, speaker.settings(path.parent))
        case targets.SourceTarget(path, _, part):
            return [requests.of_file(path, speaker.settings(path.parent), part)]
        case targets.RunTarget():
            message = f"{text} is a whole run, with an environment for each step"
            raise UnknownTarget(message, hint=f"Name a step: {text}/STEP. `flowkiln env diff` takes runs.")
        case targets.ImageTarget():
            message = f"{text} is an image, which declares nothing and has no lock of its own"
            raise UnknownTarget(message, hint="`flowkiln env verify IMAGE` says which environment it holds.")
    message = f"{text} declares no environment"
    raise UnknownTarget(message, hint="Give the flow, project, requirements or script file that does.")


def _of_flow(target: FlowTarget, speaker: Session) -> list[Request]:
    from flowkiln.flow import checks

    flow = loading.load(target.path)
    wanted = requests.of_flow(flow, checks.require(flow), speaker.settings(target.path.parent))
    if target.step is None:
        return list(dict.fromkeys(one for one in wanted.values() if one is not None))
    if target.step not in wanted:
        message = f"flow {flow.__name__} has no step {target.step!r}"
        raise UnknownTarget(message, hint=f"Steps are {', '.join(wanted)}.")
    one = wanted[target.step]
    if one is None:
        message = f"step {target.step!r} runs in the launcher's own interpreter"
        raise UnknownTarget(message, hint="Give it an environment with @pypi.")
    return [one]


def _project(name: str) -> Path:
    found = paths.nearest_pyproject(Path.cwd())
    if found is None:
        message = f"there is no file {name!r}, and no pyproject.toml here or above that declares it"
        raise UnknownTarget(message, hint=targets.HINT)
    return found


def named(text: str, speaker: Session) -> list[Environment]:
    """The environments that ``text`` names, with their locks as they stand. Raises ``UnknownTarget``."""
    target = targets.parse(text)
    if isinstance(target, targets.FolderTarget):
        return _of_folder(target)
    if isinstance(target, targets.TaskTarget):
        return [_of_task(target, speaker)]
    found = []
    for request in _listed(target, requested(text, speaker), speaker):
        standing = locks.read(request.folder)
        found.append(
            Environment(
                name=request.name,
                state=locks.state(request, standing),
                home=request.declared.parent,
                steps=request.steps,
                lock=standing.get(request.name),
                folder=request.folder,
                roots=_roots(request.spec),
            )
        )
    return found


def _roots(spec: EnvSpec) -> tuple[str, ...]:
    """The names of the packages that a request asks for, of both sides."""
    conda = (condalock.split(text.rpartition("::")[2])[0] for text in spec.conda)
    return (*(name_of(text) for text in spec.requirements), *conda)


def _listed(target: targets.Target, wanted: list[Request], speaker: Session) -> list[Request]:
    """``wanted``, for a whole project with the groups and extras of it that were locked one by one."""
    match target:
        case targets.SourceTarget(path, "pyproject", None):
            standing = locks.read(LockFolder.beside(path))
            return [*wanted, *requests.parts_of_project(path, speaker.settings(path.parent), standing)]
    return wanted


def _of_folder(target: FolderTarget) -> list[Environment]:
    folder = LockFolder(target.path.absolute())
    found = [
        Environment(
            name=lock.name,
            state="unchecked",
            home=folder.path.parent,
            steps=lock.steps,
            lock=lock,
            folder=folder,
        )
        for lock in folder.read().values()
        if target.name in (None, lock.name) or target.name in lock.steps
    ]
    if not found:
        what = f"environment {target.name!r}" if target.name else "locks"
        raise UnknownTarget(f"{target.path} has no {what}", hint=targets.HINT)
    return found


def _of_task(target: TaskTarget, speaker: Session) -> Environment:
    """The environment that a past task ran in, from the lock that its run's record keeps."""
    from flowkiln.wiring import history

    store = history.open_store(speaker.own_settings())
    place = history.find(store, str(target))
    history.chosen(store, place)
    prefix = history.plan_of(place.run).step(target.step).prefix
    if not prefix.managed:
        message = f"{target} ran in the launcher's own interpreter ({prefix.python}, {prefix.version})"
        raise UnknownTarget(message, hint="Only steps with @pypi have an environment of their own.")
    lock, folder = history.lock_of(store, place.run, target.step)
    home = folder.parent if folder.parent.is_dir() else Path.cwd()
    return Environment(name=lock.name, state="unchecked", home=home, steps=(target.step,), lock=lock)


def single(text: str, speaker: Session) -> Environment:
    """The one environment that ``text`` names. Raises ``AmbiguousTarget`` when it names several."""
    found = named(text, speaker)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownTarget(f"{text} declares no environment", hint=targets.HINT)
    names = ", ".join(f"{one.name} ({', '.join(one.steps)})" if one.steps else one.name for one in found)
    step = found[0].steps[0] if found[0].steps else found[0].name
    raise AmbiguousTarget(f"{text} has {len(found)} environments: {names}", hint=f"Pick one: {text}:{step}")


def locked(one: Environment, text: str) -> EnvLock:
    """The lock of ``one``. Raises ``MissingLock`` and ``StaleLock``."""
    step = one.steps[0] if one.steps else None
    hint = f"Run `flowkiln env lock {text.partition(':')[0]}`."
    if one.lock is None:
        raise MissingLock(f"environment {one.name!r} has no lock", step=step, hint=hint)
    if one.state == "stale":
        message = f"the requirements of environment {one.name!r} have changed since it was locked"
        raise StaleLock(message, step=step, hint=hint)
    return one.lock


def part(lock: EnvLock, platform: str | None) -> PlatformLock:
    """The part of ``lock`` for ``platform``; without one, this machine's, else the first."""
    if platform is None:
        return lock.on(platforms.host()) or lock.platforms[0]
    try:
        wanted = platforms.Platform.parse(platform)
    except ValueError as error:
        raise BadUsage(f"--platform: {error}", hint="Write for example --platform linux/arm64.") from None
    return trees.part_for(lock, wanted)


def tree(text: str, speaker: Session) -> Tree:
    """The tree of the one environment that ``text`` names, installed now when it is not here."""
    target = targets.parse(text)
    if isinstance(target, targets.TaskTarget):
        found = _tree_of_task(target, speaker)
        if found is not None:
            return found
    one = single(text, speaker)
    host = _host(one, speaker)
    wanted = _wanted(one, text, host)
    return host.ensure([wanted], speaker.reporter)[wanted.env_id]


def _host(one: Environment, speaker: Session) -> trees.Host:
    return trees.Host(speaker.settings(one.home))


def _wanted(one: Environment, text: str, host: trees.Host) -> PlatformLock:
    return trees.part_for(locked(one, text), host.platform, steps=one.steps)


def _tree_of_task(target: TaskTarget, speaker: Session) -> Tree | None:
    """The very tree that the task ran in, when it is still here."""
    from flowkiln.wiring import history

    settings = speaker.settings(Path.cwd())
    prefix = history.plan_of(history.find(history.open_store(settings), str(target)).run).step(target.step).prefix
    return next((one for one in trees.Host(settings).trees.all() if str(one.root) == prefix.root), None)


def installed(one: Environment, text: str, speaker: Session) -> Tree | None:
    """The tree of ``one`` on this machine, None when it is not installed."""
    host = _host(one, speaker)
    return host.find(_wanted(one, text, host))


def repaired(one: Environment, text: str, speaker: Session) -> Tree:
    """The tree of ``one`` made anew."""
    host = _host(one, speaker)
    return host.repair(_wanted(one, text, host), speaker.reporter)


def pruned(text: str, wanted: list[Request], speaker: Session) -> tuple[list[str], list[Path]]:
    """Removes the locks that a whole flow or project no longer asks for: their names, and the paths that changed.

    Locks of another kind stay: those of a project's groups and extras, that of a requirements file of equal stem.
    """
    target = targets.parse(text)
    match target:
        case targets.FlowTarget(path, None) | targets.SourceTarget(path, "pyproject", None):
            folder = LockFolder.beside(path)
            kept = {one.name for one in _listed(target, wanted, speaker) if one.folder == folder}
            if any(path.with_suffix(suffix).exists() for suffix in (".txt", ".in")):
                kept.add(path.stem)
            return locks.prune(folder, kept)
    return [], []
