"""Built wheels and their records: in ``<cache>/built/<key>/``, and as documents that travel.

A folder holds one wheel and ``build.json``, which says what it is and how it came to be. It is made in a scratch
folder and renamed into place: what has a name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from flowkiln._base import digests, files
from flowkiln._base import json as canonical
from flowkiln._base.platforms import Platform
from flowkiln.envs.lock import LockedBuild, LockedSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import LockedWheel

SCHEMA = 1
"""Part of every build's key: raised when builds would give other wheels."""
RECORD = "build.json"


class Kept(Protocol):
    """A file that was made here or by the team: found again by the key of the work, proved by its sha256 (hex)."""

    @property
    def key(self) -> str:
        """Identity of the work: ``sha256:...``."""

    @property
    def filename(self) -> str:
        """The file's name."""

    @property
    def sha256(self) -> str:
        """Of the file, in hex."""

    @property
    def size(self) -> int:
        """Of the file, in bytes."""

    @property
    def path(self) -> Path:
        """Where it is on this machine."""

    def to_json(self) -> JSONObject:
        """The record that travels with the file; no paths of this machine."""


K = TypeVar("K", bound=Kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltWheel:
    """A wheel that was built, and the file that holds it. ``size`` is in bytes, ``sha256`` in hex."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    build: LockedBuild
    path: Path

    @property
    def key(self) -> str:
        """Identity of the build: ``sha256:...``."""
        return self.build.key

    def to_json(self) -> JSONObject:
        """The record that travels with the wheel; no paths of this machine."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "filename": self.filename,
            "sha256": self.sha256,
            "size": self.size,
            "build": build_to_json(self.build),
        }


def key_of(source: LockedSource, *, python: str, platform: Platform, environment: str, where: str) -> str:
    """Identity of a build: ``sha256:...``. ``environment`` is the ``env_id`` of the build requirements."""
    return canonical.digest(
        {
            "schema": SCHEMA,
            "source": [source.sha256, source.subdirectory],
            "python": python,
            "platform": str(platform),
            "environment": environment,
            "where": where,
        }
    )


def build_to_json(build: LockedBuild) -> JSONObject:
    """A build as a document."""
    source = {
        name: value
        for name in ("kind", "url", "sha256", "size", "commit", "ref", "subdirectory")
        if (value := getattr(build.source, name)) is not None
    }
    return {
        "key": build.key,
        "python": build.python,
        "platform": str(build.platform),
        "where": build.where,
        "requires": list(build.requires),
        "source": source,
    }


def build_from_json(document: dict[str, Any]) -> LockedBuild:
    """The build that a document tells of. Raises ``KeyError``, ``TypeError`` and ``ValueError``."""
    told = dict(document["source"])
    unknown = told.keys() - {"kind", "url", "sha256", "size", "commit", "ref", "subdirectory"}
    if unknown or told["kind"] not in ("sdist", "archive", "git", "folder"):
        raise ValueError(told)
    if not digests.is_digest(str(document["key"])) or not digests.is_digest(f"sha256:{told['sha256']}"):
        raise ValueError(document["key"])
    return LockedBuild(
        source=LockedSource(**told),
        key=str(document["key"]),
        python=str(document["python"]),
        platform=Platform.parse(str(document["platform"])),
        where=str(document["where"]),
        requires=tuple(map(str, document["requires"])),
    )


def based(wheel: LockedWheel, base: Path) -> LockedWheel:
    """``wheel``, its source known to start at the folder ``base`` where it is relative."""
    if wheel.build is None or wheel.build.source.kind != "folder":
        return wheel
    source = replace(wheel.build.source, base=base)
    return replace(wheel, build=replace(wheel.build, source=source))


def from_json(document: dict[str, Any], path: Path) -> BuiltWheel:
    """The wheel that a record tells of, in the file ``path``. Raises as ``build_from_json``."""
    if document["schema"] != SCHEMA or os.path.basename(str(document["filename"])) != document["filename"]:  # noqa: PTH119
        raise ValueError(document["schema"])
    return BuiltWheel(
        name=str(document["name"]),
        version=str(document["version"]),
        filename=str(document["filename"]),
        sha256=str(document["sha256"]),
        size=int(document["size"]),
        build=build_from_json(document["build"]),
        path=path,
    )


class KeptFolder(Generic[K]):
    """The kept files of one kind in one cache folder; ``read`` makes one of its record and its path.

    Safe for any number of processes.
    """

    def __init__(self, cache: Path, read: Callable[[dict[str, Any], Path], K]) -> None:
        self.root = cache / "built"
        self._scratch = cache / "scratch"
        self._read = read

    def get(self, key: str) -> K | None:
        """What was made for ``key``, None when it is not here or damaged. Every byte is read."""
        folder = self._folder(key)
        try:
            document = json.loads((folder / RECORD).read_bytes())
            found = self._read(document, folder / str(document["filename"]))
            with found.path.open("rb") as stream:
                actual = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if found.key != key or actual != found.sha256:
            return None
        os.utime(folder)
        return found

    def add(self, made: K) -> K:
        """``made`` copied into the cache, and where it is there. Raises ``NoSpace`` and ``ReadOnly``."""
        folder = self._folder(made.key)
        with files.scratch_folder(self._scratch) as scratch, files.disk_errors(self.root):
            shutil.copyfile(made.path, scratch / made.filename)
            (scratch / RECORD).write_text(json.dumps(made.to_json(), indent=1), encoding="utf-8")
            self.root.mkdir(parents=True, exist_ok=True)
            files.put_folder(scratch, folder, lambda _: self.get(made.key) is not None)
        return self._read(made.to_json(), folder / made.filename)

    def _folder(self, key: str) -> Path:
        return self.root / digests.hexdigits(key)[:40]


class BuiltWheels(KeptFolder[BuiltWheel]):
    """The built wheels of one cache folder."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache, from_json)
