"""``flowkiln env list``: the environments of a flow, a project or a lock folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import table

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.cli.environments import Environment
    from flowkiln.cli.output import Session
    from flowkiln.envs.basepin import BasePin
    from flowkiln.wiring.imaging import Known


@verb("list", example="flowkiln env list flow.py")
@click.argument("envs", nargs=-1)
@click.pass_context
def list_environments(context: click.Context, *, envs: tuple[str, ...]) -> int:
    """List the environments of ENVS: their steps, whether their lock holds, what it has.

    Without ENVS, those of the nearest pyproject.toml.
    """
    from flowkiln.cli import environments

    speaker = session(context)
    found = [one for text in envs or ("pyproject.toml",) for one in environments.named(text, speaker)]
    known = images_of(found, speaker)
    rows = [
        [one.name, ", ".join(one.steps) or "-", one.state, *_locked(one), _images(images)]
        for one, images in zip(found, known, strict=True)
    ]
    heads = ["NAME", "STEPS", "LOCK", "PYTHON", "PACKAGES", "PLATFORMS", "IMAGES"]
    told = [image for one, images in zip(found, known, strict=True) for image in shown(one.name, images)]
    answer = {"environments": [document(one) for one in found], "images": told}
    speaker.result(answer, table(heads, rows, right=[4]) if rows else [none(envs)])
    return ExitCode.OK


def images_of(found: list[Environment], speaker: Session) -> list[list[Known]]:
    """What is known of the images of each environment; those without pinned bases load nothing of images."""
    if not any(_pins(one) for one in found):
        return [[] for _ in found]
    from flowkiln.wiring.imaging import Catalogue

    catalogues = {home: Catalogue(speaker.settings(home)) for home in {one.home for one in found}}
    return [catalogues[one.home].of(one.lock, _pins(one)) if one.lock is not None else [] for one in found]


def _pins(one: Environment) -> tuple[BasePin, ...]:
    """The bases that stand in the folder of an environment's lock for it."""
    from flowkiln.wiring import locks

    if one.lock is None or one.folder is None:
        return ()
    return tuple(pin for pin in locks.standing_folder(one.folder).read_bases() if one.name in pin.environments)


def shown(name: str, images: list[Known]) -> list[JSONObject]:
    """The images of the environment ``name``, and their bases, as the --json output shows them."""
    if not images:
        return []
    from flowkiln.cli import basepins

    return [{"env": name, "base": basepins.document(one.pin), **one.to_json()} for one in images]


def _images(images: list[Known]) -> str:
    """How many bases are pinned, and how many of the images on them are known to be somewhere."""
    if not images:
        return "-"
    words = [f"{counted(len(images), 'base')} pinned"]
    here, pushed = sum(bool(one.here) for one in images), sum(one.pushed is not None for one in images)
    words += [f"{here} in the engine"] if here else []
    words += [f"{pushed} pushed"] if pushed else []
    return ", ".join(words)


def none(texts: tuple[str, ...]) -> str:
    """What to say when ``texts`` declare no environment at all."""
    if texts and all(text.endswith(".py") for text in texts):
        return "no step declares an environment: all run in the launcher's own interpreter"
    return f"no environment is declared in {', '.join(texts) or 'pyproject.toml'}"


def _locked(one: Environment) -> list[str]:
    lock = one.lock
    if lock is None:
        return ["-", "-", "-"]
    count = max((len(part.packages) for part in lock.platforms), default=0)
    return [lock.python, str(count), ", ".join(str(part.platform) for part in lock.platforms)]


def document(one: Environment) -> JSONObject:
    """An environment as the --json output shows it."""
    lock = one.lock
    return {
        "name": one.name,
        "steps": list(one.steps),
        "state": one.state,
        "folder": str(one.folder.path) if one.folder else None,
        "lock_id": lock.lock_id if lock else None,
        "python": lock.python if lock else None,
        "platforms": [
            {"platform": str(part.platform), "env_id": part.env_id, "packages": len(part.packages)}
            for part in (lock.platforms if lock else ())
        ],
        "absent": [
            {"platform": str(part.platform), "reason": part.reason} for part in (lock.absent if lock else ())
        ],
    }
