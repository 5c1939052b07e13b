"""``flowkiln env show``: what an environment holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.env_list import document, images_of
from flowkiln.cli.env_list import shown as shown_images
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import size, table
from flowkiln.envs.lock import LinkedFiles, LockedConda

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import Locked, PlatformLock
    from flowkiln.wiring.imaging import Known


@verb("show", example="flowkiln env show flow.py:fit\nflowkiln env show flow.py:fit --platform linux/arm64")
@click.argument("env")
@click.option("--platform", metavar="OS/ARCH", help="Platform to show. Default: this machine's, else the first.")
@click.pass_context
def show(context: click.Context, *, env: str, platform: str | None) -> int:
    """Show what ENV holds on a platform: identity, Python, bounds, pinned bases, packages."""
    from flowkiln.cli import environments

    speaker = session(context)
    one = environments.single(env, speaker)
    part = environments.part(environments.locked(one, env), platform)
    packages = [
        [one.name, one.version, _side(one), size(one.size) if one.size else "-", one.filename]
        for one in part.packages
    ]
    (images,) = images_of([one], speaker)
    lines = [
        *_facts(one.name, one.steps, part),
        *_images(images),
        "",
        *table(["PACKAGE", "VERSION", "FROM", "SIZE", "FILE"], packages, right=[3]),
    ]
    shown = {
        "platform": str(part.platform),
        "env_id": part.env_id,
        "packages": [
            {
                "name": one.name,
                "version": one.version,
                "from": "conda" if isinstance(one, LockedConda) else "pypi",
                "sha256": one.sha256,
                "url": one.url,
                "size": one.size,
                **_built(one),
            }
            for one in part.packages
        ],
        "virtual": [list(pair) for pair in part.virtual],
    }
    answer = {"environment": document(one), "images": shown_images(one.name, images), "shown": shown}
    speaker.result(answer, lines)
    return ExitCode.OK


def _side(one: Locked) -> str:
    if isinstance(one, LinkedFiles):
        return "link scripts"
    if isinstance(one, LockedConda):
        return "conda"
    return "pypi" if one.build is None else f"built of {one.build.source.kind}"


def _built(one: Locked) -> JSONObject:
    """How a package was built, or by which link scripts it was left, where it was."""
    if isinstance(one, LinkedFiles):
        from flowkiln.envs.linkedfiles import to_json

        return {"linked": to_json(one)}
    if isinstance(one, LockedConda) or one.build is None:
        return {}
    from flowkiln.envs.builtwheels import build_to_json

    return {"build": build_to_json(one.build)}


def _images(images: list[Known]) -> list[str]:
    """The bases that are pinned, and where the images on them are known to be."""
    if not images:
        return []
    from flowkiln.cli import basepins

    return [f"{'base':9} {basepins.line(one.pin)}: {one.words()}" for one in images]


def _facts(name: str, steps: tuple[str, ...], part: PlatformLock) -> list[str]:
    from flowkiln.envs import variants

    bounds = [f">= {part.python_minimum}"] if part.python_minimum else []
    bounds += [f"< {part.python_below}"] if part.python_below else []
    python = part.python + (f" ({', '.join(bounds)})" if bounds else "")
    rows = [["name", name], ["steps", ", ".join(steps) or "-"], ["platform", str(part.platform)]]
    rows += [["python", python], ["env_id", part.env_id]]
    if part.glibc:
        rows.append(["glibc", f">= {part.glibc[0]}.{part.glibc[1]}"])
    if part.conda and part.virtual:
        rows.append(["assumes", ", ".join(f"{name} {version}" for name, version in part.virtual)])
    for package, version in part.virtual:
        oldest = variants.driver(version) if package == "cuda" else None
        if oldest or not part.conda:
            rows.append([package, f">= {version}" + (f" (driver {oldest} or newer)" if oldest else "")])
    return [f"{key:9} {value}" for key, value in rows]
