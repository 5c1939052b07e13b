"""The lock as a value: an environment resolved for each of its platforms, with its identities.

``env_id`` is what "the same environment" means. It covers the platform, the interpreter's X.Y and ABI, each
(name, version, artefact sha256), decisions on overlapping files and the installer's version; it does not cover
prefixes, URLs, hosts, times, the glibc floor or the patch version.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from flowkiln._base import json

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.platforms import Platform

LOCK_SCHEMA = 1
INSTALLER_VERSION = 1
"""Part of every ``env_id``: raised when the installer would write other bytes for the same wheels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedSource:
    """The source that a wheel was built from, pinned: all that finding it again takes.

    * ``sdist``: ``url`` is the file on its index; ``archive``: a file that the request names.
    * ``git``: ``url`` is the repository, ``commit`` the full commit id, ``ref`` what was asked for.
    * ``folder``: ``url`` is a path relative to the declaring file's folder, with ``/``.

    ``sha256`` (hex) is that of the file; of a commit or folder, that of the archive that flowkiln makes of it.
    ``url`` carries no credentials; ``size`` is in bytes; ``base`` is the folder that a relative ``url`` starts at,
    where this machine has it.
    """

    kind: Literal["sdist", "archive", "git", "folder"]
    url: str
    sha256: str
    size: int | None = None
    commit: str | None = None
    ref: str | None = None
    subdirectory: str | None = None
    base: Path | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedBuild:
    """How a wheel of a lock came to be: its source, and what built it.

    ``key`` is the identity of the build (``sha256:...``); ``requires`` are the build requirements as locked
    (``setuptools==80.9.0``), sorted; ``python`` (``X.Y``) and ``platform`` are those that it was built with and on;
    ``where`` is the image that it was built in, with its digest, or ``host``.
    """

    source: LockedSource
    key: str
    python: str
    platform: Platform
    requires: tuple[str, ...] = ()
    where: str = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWheel:
    """One distribution of a platform's lock with the one wheel chosen for it.

    ``name`` is normalised (PEP 503); ``url`` carries no credentials; ``sha256`` is 64 hex digits; ``size`` is in
    bytes or None where the index does not say; ``index`` is the index URL it was found on, without credentials.
    ``requires`` are the normalised names of the distributions that it depends on, sorted: wheels of the lock and
    what its conda packages provide. A wheel that was built has ``build``, and its ``url`` is that of the source.
    """

    name: str
    version: str
    filename: str
    url: str
    sha256: str
    size: int | None = None
    index: str | None = None
    upload_time: str | None = None
    requires: tuple[str, ...] = ()
    build: LockedBuild | None = None

    @property
    def published(self) -> tuple[str, str] | None:
        """URL and sha256 of the file that others can have: the wheel, or the archive that it was built of.

        None for what was built of a repository or a folder, which is no file.
        """
        if self.build is None:
            return self.url, self.sha256
        source = self.build.source
        return (source.url, source.sha256) if source.kind in {"sdist", "archive"} else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedConda:
    """One conda package of a platform's lock.

    ``url`` carries no credentials; ``sha256`` and ``md5`` are hex digits, ``size`` is in bytes or None where the
    channel does not say. ``depends`` are match specs as the channel states them, virtual packages included.
    ``provides`` are the Python distributions inside: pairs of normalised name (PEP 503) and version, sorted.
    """

    name: str
    version: str
    build: str
    filename: str
    url: str
    sha256: str
    md5: str | None = None
    size: int | None = None
    depends: tuple[str, ...] = ()
    provides: tuple[tuple[str, str], ...] = ()

    @property
    def subdir(self) -> str:
        """The folder of its channel: ``linux-64``, ``noarch``."""
        return self.url.rsplit("/", 2)[-2]


LINKED = "flowkiln-linked-files"
"""The name of the package of :class:`LinkedFiles`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedFiles(LockedConda):
    """The files that link scripts of conda packages left, as a conda package of flowkiln's own.

    ``scripts`` are the packages whose scripts ran, in that order, ``replaces`` the paths at which a file of this
    package counts and not the one that another package brings. ``key`` is the identity of the work
    (``sha256:...``), ``where`` the image that the scripts ran in, with its digest. No server has the file: it is in
    the cache, kept by the team, or made again of ``before``, the environment without it.
    """

    key: str
    where: str
    scripts: tuple[str, ...]
    replaces: tuple[str, ...] = ()
    before: PlatformLock | None = field(default=None, compare=False, repr=False)


Locked = LockedWheel | LockedConda
"""A package of a lock, whichever side it is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLock:
    """One platform of a lock: wheels and conda packages, and the bounds within which they hold.

    ``python`` is ``X.Y``; ``glibc`` the floor as (major, minor) on Linux; ``python_minimum`` and
    ``python_below`` are full versions ``X.Y.Z`` recorded where a marker on the patch version decided something.
    ``winners`` maps a path owned by several distributions to the one whose file is installed. With conda packages
    the interpreter is one of them, and ``virtual`` are the virtual packages that they were solved for.
    ``link_scripts`` are the conda packages whose link scripts may run, and ``linked`` is what these left.
    """

    platform: Platform
    python: str
    wheels: tuple[LockedWheel, ...]
    glibc: tuple[int, int] | None = None
    python_minimum: str | None = None
    python_below: str | None = None
    winners: tuple[tuple[str, str], ...] = ()
    conda: tuple[LockedConda, ...] = ()
    virtual: tuple[tuple[str, str], ...] = ()
    link_scripts: tuple[str, ...] = ()
    linked: LinkedFiles | None = None

    @property
    def packages(self) -> tuple[Locked, ...]:
        """All that is installed: conda packages, what their scripts left, then wheels."""
        if self.linked is None:
            return (*self.conda, *self.wheels)
        return (*self.conda, replace(self.linked, before=self.before_linking), *self.wheels)

    @property
    def before_linking(self) -> PlatformLock:
        """This platform before link scripts ran."""
        return replace(self, linked=None)

    @property
    def chosen(self) -> tuple[tuple[str, str], ...]:
        """``winners``, with what link scripts left in the place of other files."""
        if self.linked is None:
            return self.winners
        return tuple({**dict(self.winners), **dict.fromkeys(self.linked.replaces, LINKED)}.items())

    @property
    def own_python(self) -> LockedConda | None:
        """The conda package that is the environment's interpreter; None where that comes from elsewhere."""
        return next((one for one in self.conda if one.name == "python"), None)

    @property
    def env_id(self) -> str:
        """Identity of the environment on this platform: ``sha256:...``."""
        conda = [[one.name, one.version, one.build, one.sha256] for one in sorted(self.conda, key=lambda c: c.name)]
        return json.digest(
            {
                **({"conda": conda} if conda else {}),
                **({"link_scripts": list(self.link_scripts)} if self.link_scripts else {}),
                **({"linked": self.linked.sha256} if self.linked is not None else {}),
                "schema": LOCK_SCHEMA,
                "os": self.platform.os,
                "arch": self.platform.arch,
                "libc": "glibc" if self.platform.os == "linux" else "system",
                "python": {"implementation": "cpython", "version": self.python, "abi": abi(self.python)},
                "packages": [[w.name, w.version, w.sha256] for w in sorted(self.wheels, key=lambda w: w.name)],
                "winners": [list(pair) for pair in sorted(self.winners)],
                "installer": INSTALLER_VERSION,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentPlatform:
    """A default platform on which the environment has no solution, with the reason in a few lines."""

    platform: Platform
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvLock:
    """An environment resolved for its platforms. ``spec_id`` is the request that it answers.

    ``channels`` are the URLs of the conda channels that were asked, best first, without credentials.
    """

    name: str
    spec_id: str
    python: str
    platforms: tuple[PlatformLock, ...]
    absent: tuple[AbsentPlatform, ...] = ()
    steps: tuple[str, ...] = field(default=())
    channels: tuple[str, ...] = ()

    @property
    def lock_id(self) -> str:
        """Identity of the whole lock: ``sha256:...`` over the platforms' ``env_id``."""
        return json.digest(
            {
                "schema": LOCK_SCHEMA,
                "platforms": {str(p.platform): p.env_id for p in self.platforms},
            }
        )

    def on(self, platform: Platform) -> PlatformLock | None:
        """The part for ``platform``, or None when the lock has none."""
        return next((part for part in self.platforms if part.platform == platform), None)


def abi(python: str) -> str:
    """The ABI tag of a GIL build of CPython ``X.Y``: ``cp311``."""
    return "cp" + python.replace(".", "")
