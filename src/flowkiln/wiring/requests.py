"""What a flow, a project or a file asks for, as requests with the folder that their locks belong to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowkiln._base import json, platforms
from flowkiln._base.report import counted
from flowkiln.envs import driver
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.lockfolder import LockFolder, texts_of
from flowkiln.envs.spec import normal_name
from flowkiln.flow import environments
from flowkiln.wiring import locks
from flowkiln.wiring.locks import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock, Locked
    from flowkiln.flow.environments import EnvRequest
    from flowkiln.flow.graph import Graph
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.store.interfaces import Blobs
    from flowkiln.wiring.locks import Settled
    from flowkiln.wiring.policy import Policy


def of_flow(flow: type[FlowSpec], graph: Graph, settings: Settings) -> dict[str, Request | None]:
    """The request of each step; None where a step runs in the launcher's interpreter."""
    wanted = environments.requests(flow, graph)
    made = {one.name + str(one.file): _request(one, settings) for one in wanted.values() if one is not None}
    return {step: None if one is None else made[one.name + str(one.file)] for step, one in wanted.items()}


def _request(one: EnvRequest, settings: Settings) -> Request:
    folder = LockFolder.beside(one.file)
    request = Request(name=one.name, spec=one.spec, folder=folder, declared=one.file, steps=one.steps)
    return locks.widened(request, settings)


def code_of_steps(wanted: Mapping[str, Request | None]) -> dict[str, tuple[Path, int]]:
    """The files that travel with the flow's code because steps ask for projects as code: path inside -> file, size.

    Raises ``CodeCollides`` and the errors of ``projectfiles.code_of``.
    """
    folders = sorted({folder for one in wanted.values() if one is not None for folder in one.spec.code})
    if not folders:
        return {}
    from flowkiln.envs import projectfiles
    from flowkiln.envs.directerrors import CodeCollides

    found: dict[str, tuple[Path, int]] = {}
    tops: dict[str, Path] = {}
    for folder in folders:
        for inside, file in projectfiles.code_of(folder, environ=os.environ).items():
            top = inside.partition("/")[0].removesuffix(".py")
            if tops.setdefault(top, folder) != folder:
                raise CodeCollides(f"{tops[top]} and {folder} both travel as code and both have {top!r}")
            found[inside] = file
    return found


def check_code(code: Iterable[str], locked: Mapping[str, EnvLock | None]) -> None:
    """Guarantees that no step has a package of the name of what travels as code, which it would import instead.

    ``code`` are paths inside of the flow's code. Raises ``CodeCollides``.
    """
    from flowkiln.envs.directerrors import CodeCollides

    tops = {normal_name(path.partition("/")[0].removesuffix(".py")): path.partition("/")[0] for path in code}
    for step, lock in locked.items():
        names = (
            {name for part in lock.platforms for one in part.packages for name in _provides(one)} if lock else ()
        )
        for name in sorted(tops.keys() & set(names)):
            message = f"{tops[name]} travels as code with all steps, and would hide the package {name} of this one"
            hint = 'Leave out "as": "code" there: the project is then built, for the steps that ask for it.'
            raise CodeCollides(message, step=step, hint=hint)


def _provides(one: Locked) -> Iterator[str]:
    """The names of distributions that a locked package brings to Python."""
    if isinstance(one, LockedConda):
        yield from (name for name, _ in one.provides)
    else:
        yield one.name


def of_project(pyproject: Path, settings: Settings, name: str | None = None) -> list[Request]:
    """The requests of ``[tool.flowkiln.envs]``, or the one called ``name``. Raises ``BadSource``."""
    from flowkiln.envs import sources

    names = [name] if name is not None else sorted(sources.project_environments(pyproject))
    folder = LockFolder.beside(pyproject)
    return [
        locks.widened(
            Request(name=one, spec=sources.project_spec(pyproject, one), folder=folder, declared=pyproject),
            settings,
        )
        for one in names
    ]


def of_file(path: Path, settings: Settings, part: str | None = None) -> Request:
    """The request that a requirements file, a script, or a group or extra of a pyproject.toml makes by itself."""
    from flowkiln.envs import sources

    if part is None or path.suffix != ".toml":
        spec = sources.file_spec(path)
    else:
        groups, extras = sources.project_parts(path)
        as_extra = part in extras and part not in groups
        spec = sources.file_spec(path, group=None if as_extra else part, extra=part if as_extra else None)
    request = Request(name=part or path.stem, spec=spec, folder=LockFolder.beside(path), declared=path)
    return locks.widened(request, settings)


def parts_of_project(pyproject: Path, settings: Settings, standing: Iterable[str]) -> list[Request]:
    """The requests of the groups and extras that have a lock: nothing lists them as environments but that.

    ``standing`` names the locks beside the file.
    """
    from flowkiln.envs import sources

    groups, extras = sources.project_parts(pyproject)
    parts = ((groups | extras) - sources.project_environments(pyproject).keys()) & set(standing)
    return [of_file(pyproject, settings, part) for part in sorted(parts)]


def locks_of_steps(
    wanted: dict[str, Request | None], settings: Settings, reporter: Reporter, policy: Policy
) -> dict[str, EnvLock | None]:
    """The lock of each step, made now where ``policy`` allows it; None for the launcher's interpreter.

    What was locked is said, with where the files are and that they belong under version control.
    """
    unique = list(dict.fromkeys(request for request in wanted.values() if request is not None))
    if not unique:
        return dict.fromkeys(wanted)
    settled = locks.settle(unique, settings, reporter, policy=policy, host=platforms.host())
    announce(settled, reporter)
    return {step: None if request is None else settled.locks[request] for step, request in wanted.items()}


def record_of_steps(
    wanted: dict[str, Request | None],
    found: dict[str, EnvLock | None],
    blobs: Blobs,
    pins: Mapping[str, BasePin] | None = None,
) -> dict[str, JSONObject]:
    """The lock of each step for the record of a run: the files' texts as a blob, and where they stood.

    ``pins`` are the bases of the steps that run in images. For CUDA, this machine's driver stands beside, None
    where it is not known.
    """
    made: dict[tuple[Request, BasePin | None], JSONObject] = {}
    record: dict[str, JSONObject] = {}
    for step, request in wanted.items():
        lock = found[step]
        if request is None or lock is None:
            continue
        pin = (pins or {}).get(step)
        if (request, pin) not in made:
            data = json.compact(texts_of([lock], [] if pin is None else [pin]))
            folder = str(locks.standing_folder(request.folder).path)
            made[request, pin] = {"sha256": blobs.put(data), "size": len(data), "folder": folder}
        record[step] = made[request, pin]
        cuda = [value for part in lock.platforms for name, value in part.virtual if name == "cuda"]
        if cuda:
            record[step] = {**record[step], "driver": {"cuda": cuda[0], "found": driver.found()}}
    return record


def announce(settled: Settled, reporter: Reporter) -> None:
    """Says what was locked just now and what to do with the files."""
    for request in settled.made:
        lock = settled.locks[request]
        count = max((len(part.packages) for part in lock.platforms), default=0)
        where = ", ".join(str(part.platform) for part in lock.platforms)
        reporter.say(f"locked {request.name}: Python {lock.python}, {counted(count, 'package')}, for {where}")
        for absent in lock.absent:
            reporter.say(f"  not for {absent.platform}: {absent.reason.splitlines()[0]}")
    for text in settled.notes:
        reporter.say(f"note: {text}")
    if not settled.made:
        return
    for folder in settled.folders:
        shown = os.path.relpath(folder.path)
        if folder.is_cached:
            reporter.say(f"the locks are in {folder.path}, because the flow's folder cannot be written")
        else:
            reporter.say(f"the lock files are in {shown}{os.sep}; they belong in git")
