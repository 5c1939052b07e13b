"""What was asked for an environment, as a value with an identity."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowkiln._base import json, redact
from flowkiln._base.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowkiln.envs.direct import DirectReference

SPEC_SCHEMA = 1

DEFAULT_PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
"""Every environment is locked for these unless it names its platforms."""

DEFAULT_GLIBC = (2, 28)
"""The glibc floor of a Linux lock unless the environment names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenLock:
    """A lock of another tool that is taken as it is: what kind of file, its text, groups and extras of it.

    ``project`` is the text of the pyproject.toml that a uv.lock belongs to; ``path`` serves messages alone.
    """

    kind: str
    text: str = field(repr=False)
    project: str = field(repr=False, default="")
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    path: Path = field(compare=False)

    @property
    def identity(self) -> json.JSONObject:
        """What a request has of it in its own identity."""
        texts = [hashlib.sha256(text.encode()).hexdigest() for text in (self.text, self.project)]
        return {"kind": self.kind, "texts": texts, "groups": list(self.groups), "extras": list(self.extras)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """A request for an environment: what stands in decorators or files, before anything is resolved.

    * ``python``: ``X.Y`` or ``X.Y.Z`` (the patch resolves markers, it does not bind), None = decided at lock time.
    * ``requires_python``: what a project or script admits; decides nothing when ``python`` is given and fits.
    * ``requirements``, ``constraints``: PEP 508 strings, normalised, sorted.
    * ``hashes``: pairs of normalised name and the sha256 hex digests that are allowed for it.
    * ``platforms``: asked for explicitly, sorted; empty means the default ones.
    * ``indexes``: index URLs, first has precedence, nothing else is asked; empty = from the user's settings.
      ``pypi`` stands for PyPI, ``default`` for the default index of the user's settings.
    * ``glibc``: floor as (major, minor). ``exclude_newer``: absolute time, RFC 3339 or a date.
    * ``winners``: pairs of a path owned by several distributions and the one whose file is installed.
    * ``index_pins``: pairs of a package and the one index it comes from, which is asked for nothing else; sorted.
    * ``cuda``: the variant of PyTorch's packages, ``cpu`` or a version of CUDA; None = what the indexes have.
    * ``conda``: conda match specs, normalised, sorted; with any, the environment's Python is conda's.
    * ``channels``: conda channels as names or URLs, first has precedence; empty = from the user's settings.
    * ``virtual``: pairs of a virtual package without its underscores (``cuda``) and the version it is assumed to
      have, sorted; those that a platform always has need not be named.
    * ``link_scripts``: conda packages whose link scripts may run in a container of the platform, sorted.
    * ``direct``: distributions whose source is named, sorted by name; ``requirements`` has each by its name alone.
    * ``code``: folders of projects that travel with a flow's code instead of being installed; not in the identity.
    * ``given``: a lock of another tool; nothing else of packages then stands in the request.

    Build one through ``flowkiln.envs.sources``, which checks and normalises.
    """

    python: str | None = None
    requires_python: str | None = None
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    hashes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    platforms: tuple[Platform, ...] = ()
    indexes: tuple[str, ...] = ()
    glibc: tuple[int, int] = DEFAULT_GLIBC
    exclude_newer: str | None = None
    winners: tuple[tuple[str, str], ...] = field(default=())
    index_pins: tuple[tuple[str, str], ...] = ()
    cuda: str | None = None
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    virtual: tuple[tuple[str, str], ...] = ()
    link_scripts: tuple[str, ...] = ()
    direct: tuple[DirectReference, ...] = ()
    code: tuple[Path, ...] = ()
    given: GivenLock | None = None

    @property
    def spec_id(self) -> str:
        """Identity of the request: ``sha256:...``; equal for equal requests on every host. No credentials."""
        # What few requests have stands in the identity of those alone: others keep the one they had.
        rare: json.JSONObject = {
            "index_pins": [[name, redact.url(url)] for name, url in sorted(self.index_pins)],
            "cuda": self.cuda,
            "conda": sorted(self.conda),
            "channels": [redact.url(url) for url in self.channels],
            "virtual": [list(pair) for pair in sorted(self.virtual)],
            "link_scripts": sorted(self.link_scripts),
            "direct": [one.identity for one in sorted(self.direct, key=lambda one: one.name)],
            "given": None if self.given is None else self.given.identity,
        }
        return json.digest(
            {
                **{key: value for key, value in rare.items() if value},
                "schema": SPEC_SCHEMA,
                "python": self.python,
                "requires_python": self.requires_python,
                "requirements": sorted(self.requirements),
                "constraints": sorted(self.constraints),
                "hashes": [[name, sorted(values)] for name, values in sorted(self.hashes)],
                "platforms": sorted(str(platform) for platform in self.platforms),
                "indexes": [redact.url(url) for url in self.indexes],
                "glibc": list(self.glibc),
                "exclude_newer": self.exclude_newer,
                "winners": [list(pair) for pair in sorted(self.winners)],
            }
        )

    def with_platforms(self, platforms: Iterable[Platform]) -> EnvSpec:
        """This request for exactly ``platforms``."""
        return replace(self, platforms=tuple(sorted(set(platforms))))


def normal_name(name: str) -> str:
    """A distribution name in its normal form (PEP 503): lower case, runs of ``-_.`` become ``-``."""
    return re.sub(r"[-_.]+", "-", name).lower()
