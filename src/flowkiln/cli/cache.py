"""``flowkiln cache``: what the cache holds, and freeing what nobody uses."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base import paths
from flowkiln._base.errors import ExitCode
from flowkiln.cli.options import group, session, verb
from flowkiln.cli.output import duration, size, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.collect import Item

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

cache = group(
    "cache",
    help="Look at the cache of environments and wheels, and free what is not used.",
    lazy={"show": "flowkiln.cli.cache:show", "gc": "flowkiln.cli.cache:collect"},
    example="flowkiln cache gc --dry-run",
)


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:  # noqa: ARG001
    """The number of bytes that ``500M`` or ``10 GB`` stands for."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", value.strip().lower())
    if match is None:
        message = f"{value!r} is not a size such as 500M or 10G"
        raise click.BadParameter(message)
    return int(float(match[1]) * _UNITS[match[2]])


@verb("show", example="flowkiln cache show")
@click.pass_context
def show(context: click.Context) -> int:
    """Show what the cache holds: environments and images by last use, and the sum of the rest."""
    from flowkiln.wiring import collecting

    speaker = session(context)
    items = collecting.collector(speaker.settings(Path.cwd()), speaker.reporter).entries()
    folder = paths.cache_root()
    lines = [*_by_use("ENVIRONMENT", "tree", items), *_by_use("IMAGE", "image", items)]
    sums = {kind: sum(item.size for item in items if item.kind == kind) for kind in ("tree", "wheel", "image")}
    sums["other"] = sum(item.size for item in items) - sum(sums.values())
    counted = ", ".join(f"{kind} {size(amount)}" for kind, amount in sums.items() if kind != "image")
    lines.append(f"{folder}: {size(sum(sums.values()) - sums['image'])} ({counted})")
    if sums["image"]:
        lines.append(f"images in the container engine, without their bases: {size(sums['image'])}")
    speaker.result({"folder": str(folder), "bytes": sums, "items": [_document(item) for item in items]}, lines)
    return ExitCode.OK


def _by_use(title: str, kind: str, items: Sequence[Item]) -> list[str]:
    """The items of a kind as a table, the last used first."""
    now = time.time()
    shown = sorted((item for item in items if item.kind == kind), key=lambda item: -item.used)
    rows = [[item.path.name, size(item.size), f"{duration(now - item.used)} ago"] for item in shown]
    return [*table([title, "SIZE", "LAST USED"], rows, right=[1]), ""] if rows else []


@verb("gc", example="flowkiln cache gc --dry-run\nflowkiln cache gc --keep 20 --max-size 10G")
@click.option(
    "--keep", type=click.IntRange(min=0), metavar="N", help="Keep the N environments and N images used last."
)
@click.option(
    "--max-size", callback=_bytes, metavar="SIZE", help="Shrink cache and images to at most SIZE, as 10G."
)
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.pass_context
def collect(context: click.Context, *, keep: int | None, max_size: int | None, dry_run: bool) -> int:
    """Remove what has not been used for a month, or what the options say. What is in use stays.

    That covers environments, wheels and images of the cache, and in the container engine the images and ended
    containers that are flowkiln's.
    """
    from flowkiln.envs.collect import Policy
    from flowkiln.wiring import collecting

    speaker = session(context)
    collector = collecting.collector(speaker.settings(Path.cwd()), speaker.reporter)
    plan = collector.plan(Policy(keep=keep, max_size=max_size))
    if dry_run:
        lines = [
            f"would remove {item.kind} {item.path.name}, {size(item.size)}: {item.reason}" for item in plan.items
        ]
        lines.append(f"would free {size(plan.freed)} of {size(plan.size)}")
        speaker.result(
            {"dry_run": True, "freed": plan.freed, "items": [_document(item) for item in plan.items]}, lines
        )
        return ExitCode.OK
    done = collector.collect(plan, speaker.reporter)
    freed = sum(item.size for item in done.removed)
    lines = [f"removed {item.kind} {item.path.name}, {size(item.size)}" for item in done.removed]
    lines += [f"left {item.kind} {item.path.name}: in use" for item in done.in_use]
    lines.append(f"freed {size(freed)} of {size(plan.size)}")
    document = {
        "dry_run": False,
        "freed": freed,
        "items": [_document(item) for item in done.removed],
        "in_use": [_document(item) for item in done.in_use],
    }
    speaker.result(document, lines)
    return ExitCode.OK


def _document(item: Item) -> JSONObject:
    return {
        "kind": item.kind,
        "path": str(item.path),
        "bytes": item.size,
        "last_used": int(item.used),
        "reason": item.reason,
    }
