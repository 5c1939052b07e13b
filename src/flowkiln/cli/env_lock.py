"""``flowkiln env lock``: the one verb that writes locks on purpose."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base import platforms as known
from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.env_list import none
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln.cli.basepins import Pinned
    from flowkiln.cli.output import Session
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock
    from flowkiln.wiring.locks import Request, Settled
    from flowkiln.wiring.policy import Policy

UPGRADE_ALL = "*"


@verb(
    "lock",
    example="flowkiln env lock flow.py\nflowkiln env lock --check flow.py\n"
    "flowkiln env lock --upgrade pandas flow.py\nflowkiln env lock --base flow.py",
)
@click.argument("envs", nargs=-1)
@click.option("--check", is_flag=True, help="Change nothing; a lock that is missing or stale is exit code 3.")
@click.option(
    "--upgrade",
    "upgrades",
    multiple=True,
    is_flag=False,
    flag_value=UPGRADE_ALL,
    metavar="[PACKAGE]",
    help="Let versions move: of PACKAGE, or of all.",
)
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Lock for this platform as well.")
@click.option("--base", is_flag=True, help="Pin the base images that the environments are baked on, too.")
@click.option("--upgrade-base", is_flag=True, help="Let pins of base images move to what their names mean now.")
@click.pass_context
def lock(
    context: click.Context,
    *,
    envs: tuple[str, ...],
    check: bool,
    upgrades: tuple[str, ...],
    platforms: tuple[str, ...],
    base: bool,
    upgrade_base: bool,
) -> int:
    """Lock the environments of ENVS: flows, requirements, pyproject or script files, names.

    Without ENVS, those of the nearest pyproject.toml. A lock that holds is not touched. With --base, the images
    that they are baked on are pinned by digest: those of @docker(image=...), else that of the setting images.base.
    """
    from flowkiln.cli import environments
    from flowkiln.wiring.policy import Policy

    speaker = session(context)
    if check and upgrade_base:
        raise BadUsage("--check and --upgrade-base exclude each other", hint="`--check --base` looks at the pins.")
    texts, upgrade = _apart(envs, upgrades)
    requests = [request for text in texts for request in environments.requested(text, speaker)]
    policy = Policy(locked=check, upgrade=upgrade, platforms=tuple(_platform(text) for text in platforms))
    if check:
        policy = Policy(locked=True)
    _begin(requests, policy, speaker)
    settled = _settled(requests, policy, speaker)
    removed: list[str] = []
    for text in () if check else texts:
        names, paths = environments.pruned(text, requests, speaker)
        removed += names
        settled.files += paths
    bases = _Bases()
    if base or upgrade_base:
        bases = _pinned(texts, speaker, settled, Policy(locked=check), upgrade=upgrade_base)
    shown = [] if requests else [none(texts)]
    speaker.result(
        {**document(requests, settled, removed), **bases.to_json()},
        [*shown, *lines(requests, settled, removed), *bases.lines(), *_written(settled)],
    )
    _notes(speaker, settled)
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class _Bases:
    """The bases that were asked about, and the pins that nothing needs any more."""

    pinned: list[Pinned] = field(default_factory=list)
    removed: list[BasePin] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        removed = [{"reference": pin.reference, "platform": str(pin.platform)} for pin in self.removed]
        return {"bases": [one.to_json() for one in self.pinned], "removed_bases": removed}

    def lines(self) -> list[str]:
        removed = [f"removed base {pin.reference} ({pin.platform}): nothing is baked on it" for pin in self.removed]
        return [*(one.line() for one in self.pinned), *removed]


def _pinned(texts: tuple[str, ...], speaker: Session, settled: Settled, policy: Policy, *, upgrade: bool) -> _Bases:
    """Pins bases, and adds the files that this changed to those of ``settled``."""
    from flowkiln.cli import basepins
    from flowkiln.envs.lockfolder import INDEX

    found = basepins.pinned(texts, speaker, policy, upgrade=upgrade)
    gone = [] if policy.locked else basepins.pruned(texts, speaker)
    changed = {one.folder for one in found if one.changed} | {folder for folder, _ in gone}
    for index in sorted(folder.or_cache().path / INDEX for folder in changed):
        if index not in settled.files:
            settled.files.append(index)
    return _Bases(found, [pin for _, pin in gone])


def _begin(requests: list[Request], policy: Policy, speaker: Session) -> None:
    """Says where and for what is locked. Raises ``BadUsage`` for packages to upgrade that nothing has."""
    from flowkiln.envs.resolve import targets
    from flowkiln.wiring import locks

    if not requests:
        return
    host = known.host()
    found = {request: locks.read(request.folder).get(request.name) for request in requests}
    wanted = {one for request, lock in found.items() for one in targets(request.spec, host, lock)}
    doing = "checking locks" if policy.locked else "locking"
    speaker.say(f"{doing} on {host} for {', '.join(map(str, sorted(wanted | {*policy.platforms})))}")
    if not isinstance(policy.upgrade, bool) and None not in found.values():
        _check_upgrades(policy.upgrade, found)


def _check_upgrades(names: frozenset[str], found: Mapping[Request, EnvLock | None]) -> None:
    from flowkiln.envs import condaspec
    from flowkiln.envs.requirements import name_of
    from flowkiln.envs.spec import normal_name

    there = {wheel.name for lock in found.values() if lock for part in lock.platforms for wheel in part.packages}
    there |= {name_of(text) for request in found for text in request.spec.requirements}
    there |= {condaspec.name_of(text) for request in found for text in request.spec.conda}
    unknown = sorted(name for name in names if normal_name(name) not in there)
    if unknown:
        near = difflib.get_close_matches(normal_name(unknown[0]), sorted(there), 1)
        hint = f"Did you mean {near[0]}?" if near else "`flowkiln env show ENV` lists what an environment holds."
        raise BadUsage(f"--upgrade {', '.join(unknown)}: no lock has it", hint=hint)


def _settled(requests: list[Request], policy: Policy, speaker: Session) -> Settled:
    """Locks, each with the settings of the folder that declares it."""
    from flowkiln.wiring import locks

    homes: dict[Path, list[Request]] = {}
    for request in requests:
        homes.setdefault(request.declared.parent, []).append(request)
    settled = locks.Settled()
    for home, group in homes.items():
        settled.add(locks.settle(group, speaker.settings(home), speaker.reporter, policy=policy))
    return settled


def _apart(envs: tuple[str, ...], upgrades: tuple[str, ...]) -> tuple[tuple[str, ...], bool | frozenset[str]]:
    """The environments and what may move: ``--upgrade FLOW.py`` means the flow, all its versions free."""
    files = tuple(text for text in upgrades if text != UPGRADE_ALL and (Path(text).exists() or "/" in text))
    names = frozenset(text for text in upgrades if text != UPGRADE_ALL and text not in files)
    texts = (*envs, *files) or ("pyproject.toml",)
    if UPGRADE_ALL in upgrades or (files and not names):
        return texts, True
    return texts, names or False


def _platform(text: str) -> known.Platform:
    try:
        return known.Platform.parse(text)
    except ValueError as error:
        raise BadUsage(f"--platform: {error}", hint="Write for example --platform linux/arm64.") from None


def document(requests: list[Request], settled: Settled, removed: list[str]) -> dict[str, object]:
    """What was done as the --json document: environments as everywhere, with whether their lock is new."""
    from flowkiln.cli import env_list
    from flowkiln.cli.environments import Environment

    rows = []
    for request in requests:
        one = Environment(
            name=request.name,
            state="fresh",
            home=request.declared.parent,
            steps=request.steps,
            lock=settled.locks[request],
            folder=request.folder,
        )
        rows.append({**env_list.document(one), "changed": request in settled.made})
    files = [str(path) for path in settled.files]
    return {"environments": rows, "removed": removed, "files": files, "notes": settled.notes}


def lines(requests: list[Request], settled: Settled, removed: list[str]) -> list[str]:
    """What was done, for people: a line per environment, then what was removed."""
    found = []
    for request in requests:
        locked = settled.locks[request]
        word = "locked" if request in settled.made else "fresh"
        count = max((len(part.packages) for part in locked.platforms), default=0)
        where = ", ".join(str(part.platform) for part in locked.platforms)
        found.append(f"{request.name}: {word}, {counted(count, 'package')}, Python {locked.python}, {where}")
        found += [f"  not for {part.platform}: {part.reason.splitlines()[0]}" for part in locked.absent]
    return found + [f"removed {name}: nothing declares it any more" for name in removed]


def _written(settled: Settled) -> list[str]:
    return [f"wrote {os.path.relpath(path)}" for path in settled.files if path.exists()]


def _notes(speaker: Session, settled: Settled) -> None:
    for text in settled.notes:
        speaker.say(f"note: {text}")
    for folder in settled.folders:
        if folder.is_cached and settled.made:
            speaker.say(f"note: the folder of the declaring file cannot be written; the locks are in {folder.path}")
