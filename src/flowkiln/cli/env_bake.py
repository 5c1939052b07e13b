"""``flowkiln env bake``: images of environments, for a registry, the local engine or a folder."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.platforms import Platform
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.cli.output import Session
    from flowkiln.images.libraries import Missing
    from flowkiln.images.plan import ImagePlan
    from flowkiln.wiring.baking import Bakery, Wish

LAYOUT = "oci:"
DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image that was baked, or was there. ``sent`` counts the bytes that moved for it.

    ``missing`` are the libraries that it lacks, None where that is not known.
    """

    wish: Wish
    plan: ImagePlan
    image: str
    digest: str
    config: str
    sent: int
    built: bool
    missing: tuple[Missing, ...] | None = None

    def to_json(self) -> JSONObject:
        """As a row of ``bake --json``."""
        return {
            "env": self.plan.name,
            "steps": list(self.wish.steps),
            "platform": str(self.plan.part.platform),
            "lock_id": self.plan.lock_id,
            "env_id": self.plan.part.env_id,
            "image": self.image,
            "digest": self.digest,
            "config": self.config,
            "status": "built" if self.built else "present",
            "bytes_pushed": self.sent,
            "missing_libraries": None if self.missing is None else [one.to_json() for one in self.missing],
        }

    def line(self) -> str:
        """For people."""
        did = f"built, {size(self.sent)} sent" if self.built else "present"
        return f"{self.plan.name} ({self.plan.part.platform}): {did}\n  {self.image}"


class Sink(Protocol):
    """Where images go: all platforms of one environment at a time."""

    def put(self, wishes: Sequence[tuple[Wish, ImagePlan]]) -> list[Row]:
        """The images, there now."""


@verb(
    "bake",
    example="flowkiln env bake flow.py --push --json\nflowkiln env bake train.locks --push\n"
    "flowkiln env bake flow.py:fit --to docker\nflowkiln env bake flow.py --to oci:images",
)
@click.argument("envs", nargs=-1, required=True)
@click.option("--push", is_flag=True, help="Push to the repository of the setting images.repository.")
@click.option("--to", metavar="WHERE", help="docker, oci:FOLDER, oci:FILE.tar, or a repository to push to.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH", help="Bake for this platform only.")
@click.option("--rebuild", is_flag=True, help="Make and send the image even where it is there already.")
@click.pass_context
def bake(
    context: click.Context,
    *,
    envs: tuple[str, ...],
    push: bool,
    to: str | None,
    platforms: tuple[str, ...],
    rebuild: bool,
) -> int:
    """Bake the environments of ENVS into images: no container engine, Dockerfile or root is needed.

    Lock folders are enough: no user code is imported then. A lock that is missing or stale is exit code 3. What is
    there already is not made again.
    """
    from flowkiln.cli import baking

    speaker = session(context)
    if push == bool(to):
        message = "say where the images go: --push, or --to docker, oci:FOLDER or a repository"
        raise BadUsage(message if not push else "--push and --to exclude each other", hint="See `--help`.")
    chosen = tuple(_platform(text) for text in platforms)
    rows: list[Row] = []
    for home, wishes in baking.wishes(envs, speaker).items():
        with closing(baking.bakery(home, speaker)) as bakery:
            sink = baking.sink(bakery, speaker.settings(home), to, rebuild=rebuild)
            rows += _baked(bakery, baking.expanded(wishes, chosen, to, bakery), sink, speaker)
    speaker.result({"images": [row.to_json() for row in rows]}, [row.line() for row in rows])
    return ExitCode.OK


def _baked(bakery: Bakery, wishes: Sequence[Wish], sink: Sink, speaker: Session) -> list[Row]:
    from flowkiln.cli import baking

    pins = bakery.pin(wishes, baking.policy(speaker))
    groups: dict[Any, list[tuple[Wish, ImagePlan]]] = {}
    for wish in wishes:
        key = (wish.lock.name, wish.folder, bakery.reference_of(wish))
        groups.setdefault(key, []).append((wish, bakery.plan(wish, pins[wish])))
    rows: list[Row] = []
    for group in groups.values():
        with group[0][0].concerning():
            rows += sink.put(group)
    return [replace(row, missing=bakery.missing(row.plan, row.wish.steps)) for row in rows]


def _platform(text: str) -> Platform:
    try:
        found = Platform.parse(text)
    except ValueError as error:
        raise BadUsage(f"--platform: {error}", hint="Write for example --platform linux/arm64.") from None
    if found.os != "linux":
        raise BadUsage(f"--platform {text}: images are for linux", hint="Write for example --platform linux/arm64.")
    return found


def target_of(text: str) -> Path:
    """The path of an ``oci:`` destination. Raises ``BadUsage``."""
    path = Path(text.removeprefix(LAYOUT))
    hint = "Write --to oci:images or --to oci:images.tar."
    if not path.name and path != Path("/"):
        raise BadUsage(f"--to {text!r} names no folder", hint=hint)
    if path.exists() and not path.is_dir() and path.suffix != ".tar":
        raise BadUsage(f"--to {text!r}: {path} is a file, and a layout is a folder or a .tar", hint=hint)
    return path
