"""``flowkiln env show``: what an environment holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln.cli.env_list import document, images_of
from flowkiln.cli.env_list import shown as shown_images
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import size, table

if TYPE_CHECKING:
    from flowkiln.envs.lock import PlatformLock
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
        [wheel.name, wheel.version, size(wheel.size) if wheel.size else "-", wheel.filename]
        for wheel in part.wheels
    ]
    (images,) = images_of([one], speaker)
    lines = [
        *_facts(one.name, one.steps, part),
        *_images(images),
        "",
        *table(["PACKAGE", "VERSION", "SIZE", "WHEEL"], packages, right=[2]),
    ]
    shown = {
        "platform": str(part.platform),
        "env_id": part.env_id,
        "packages": [
            {"name": w.name, "version": w.version, "sha256": w.sha256, "url": w.url, "size": w.size}
            for w in part.wheels
        ],
    }
    answer = {"environment": document(one), "images": shown_images(one.name, images), "shown": shown}
    speaker.result(answer, lines)
    return ExitCode.OK


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
    for package, version in part.virtual:
        oldest = variants.driver(version) if package == "cuda" else None
        rows.append([package, f">= {version}" + (f" (driver {oldest} or newer)" if oldest else "")])
    return [f"{key:9} {value}" for key, value in rows]
