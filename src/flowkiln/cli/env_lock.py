"""``flowkiln env lock``: the one verb that writes locks on purpose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base import platforms as known
from flowkiln._base.errors import ExitCode
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from flowkiln.cli.output import Session
    from flowkiln.wiring.locks import Request, Settled

UPGRADE_ALL = "*"


@verb(
    "lock",
    example="flowkiln env lock flow.py\nflowkiln env lock --check flow.py\n"
    "flowkiln env lock --upgrade pandas flow.py",
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
@click.pass_context
def lock(
    context: click.Context,
    *,
    envs: tuple[str, ...],
    check: bool,
    upgrades: tuple[str, ...],
    platforms: tuple[str, ...],
) -> int:
    """Lock the environments of ENVS: flows, requirements, pyproject or script files, names.

    Without ENVS, those of the nearest pyproject.toml. A lock that holds is not touched.
    """
    from flowkiln.cli import environments
    from flowkiln.wiring import locks
    from flowkiln.wiring.policy import Policy

    speaker = session(context)
    texts, upgrade = _apart(envs, upgrades)
    requests = [request for text in texts for request in environments.requested(text, speaker)]
    policy = Policy(locked=check, upgrade=upgrade, platforms=tuple(_platform(text) for text in platforms))
    if check:
        policy = Policy(locked=True)
    settled = locks.Settled()
    for home, group in _by_home(requests).items():
        settled.add(locks.settle(group, speaker.settings(home), speaker.reporter, policy=policy))
    for text in () if check else texts:
        settled.files += environments.pruned(text, requests)
    speaker.result(document(requests, settled), lines(requests, settled, check=check))
    _notes(speaker, settled)
    return ExitCode.OK


def _apart(envs: tuple[str, ...], upgrades: tuple[str, ...]) -> tuple[tuple[str, ...], bool | frozenset[str]]:
    """The environments and what may move: ``--upgrade FLOW.py`` means the flow, all its versions free."""
    files = tuple(text for text in upgrades if text != UPGRADE_ALL and (Path(text).exists() or "/" in text))
    names = frozenset(text for text in upgrades if text != UPGRADE_ALL and text not in files)
    texts = (*envs, *files) or ("pyproject.toml",)
    if UPGRADE_ALL in upgrades or (files and not names):
        return texts, True
    return texts, names or False


def _by_home(requests: list[Request]) -> dict[Path, list[Request]]:
    """The requests by the folder of the declaring file, whose settings say how they are locked."""
    groups: dict[Path, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.declared.parent, []).append(request)
    return groups


def _platform(text: str) -> known.Platform:
    try:
        return known.Platform.parse(text)
    except ValueError as error:
        raise BadUsage(f"--platform: {error}") from None


def document(requests: list[Request], settled: Settled) -> dict[str, object]:
    """What was done as the --json document."""
    rows = []
    for request in requests:
        locked = settled.locks[request]
        rows.append(
            {
                "name": request.name,
                "steps": list(request.steps),
                "status": "locked" if request in settled.made else "unchanged",
                "lock_id": locked.lock_id,
                "platforms": {str(part.platform): part.env_id for part in locked.platforms},
                "absent": {str(part.platform): part.reason for part in locked.absent},
            }
        )
    return {"environments": rows, "files": [str(path) for path in settled.files], "notes": settled.notes}


def lines(requests: list[Request], settled: Settled, *, check: bool) -> list[str]:
    """What was done, for people: a line per environment, then the files."""
    found = []
    for request in requests:
        locked = settled.locks[request]
        word = "locked" if request in settled.made else "holds" if check else "unchanged"
        count = max((len(part.wheels) for part in locked.platforms), default=0)
        where = ", ".join(str(part.platform) for part in locked.platforms)
        found.append(
            f"{request.name}: {word}, {count} package{'' if count == 1 else 's'}, Python {locked.python}, {where}"
        )
        found += [f"  not for {part.platform}: {part.reason.splitlines()[0]}" for part in locked.absent]
    return found + [f"wrote {os.path.relpath(path)}" for path in settled.files if path.exists()]


def _notes(speaker: Session, settled: Settled) -> None:
    for text in settled.notes:
        speaker.say(f"note: {text}")
    for folder in settled.folders:
        if folder.is_cached and settled.made:
            speaker.say(f"note: the folder of the declaring file cannot be written; the locks are in {folder.path}")
