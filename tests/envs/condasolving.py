"""What the tests of conda packages share: a channel made in a line, a question and a solver in short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowkiln._base.command import Limits
from flowkiln.envs import channels, virtual
from flowkiln.envs.condaquestion import CondaAnswer, CondaQuestion, CondaSolver
from flowkiln.envs.condasolve import ask
from flowkiln.envs.condaspec import match_spec
from tests.envs.locking import AMD64
from tests.services.channel import Channel
from tests.services.condapackages import package

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.platforms import Platform


def demo(folder: Path) -> Channel:
    """A channel with two versions of two packages, and some that ask for what a platform may not have."""
    return made(
        folder,
        ("demo", "1.0", {"depends": ["leaf >=1"], "timestamp": 1_600_000_000_000}),
        ("demo", "2.0", {"depends": ["leaf >=2"]}),
        ("leaf", "1.0", {"timestamp": 1_600_000_000_000}),
        ("leaf", "2.0"),
        ("gpu", "1.0", {"depends": ["__cuda >=12"]}),
        ("new", "1.0", {"depends": ["__glibc >=2.34"]}),
        ("old-leaf", "1.0", {"depends": ["leaf <2"]}),
    )


def made(folder: Path, *packages: tuple[Any, ...], **pythons: str) -> Channel:
    """A channel of ``(name, version, further options)`` and a Python 3.11.9 for both Linux platforms."""
    channel = Channel(folder)
    for subdir in ("linux-64", "linux-aarch64"):
        for version, build in (pythons or {"3.11.9": "0_cpython"}).items():
            package(channel.folder, "python", version, build=build, subdir=subdir)
    for name, version, *more in packages:
        package(channel.folder, name, version, **(more[0] if more else {}))
    return channel.index()


def conda_solver(*urls: str, **options: Any) -> CondaSolver:
    """A solver for the channels ``urls``."""
    limits = options.pop("limits", Limits(total=60, stall=30))
    return CondaSolver(plan=channels.plan(urls), limits=limits, **options)


def question(*specs: str, platform: Platform = AMD64, **options: Any) -> CondaQuestion:
    """The question for ``specs`` on Python 3.11, as environment ``fit`` of step ``train``."""
    own = options.pop("own", ())
    return CondaQuestion(
        **{
            "name": "fit",
            "specs": tuple(match_spec(text) for text in specs),
            "platform": platform,
            "python": "3.11",
            "virtual": virtual.assumed(platform, glibc=(2, 28), own=own),
            "steps": ("train",),
            **options,
        }
    )


def solved(where: str | CondaSolver, *specs: str, **options: Any) -> CondaAnswer:
    """The answer to :func:`question`, of a solver or of the channel with that URL."""
    return ask(conda_solver(where) if isinstance(where, str) else where, question(*specs, **options))


def chosen(answer: CondaAnswer) -> dict[str, str]:
    """Name -> version of what was chosen besides Python."""
    return {one.name: one.version for one in answer.packages if one.name != "python"}
