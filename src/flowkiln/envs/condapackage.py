"""An unpacked conda package as a value: what installing it writes, whatever the prefix.

conda's ``info/`` says it: ``index.json`` who the package is, ``paths.json`` its files and the placeholder that
stands in them for a prefix, ``link.json`` where the files of a pure Python package go and which scripts it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from flowkiln.envs.wheel import EntryPoint

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln._base.relocate import Kind

CONDA_SCHEMA = 2
"""Of descriptions and in the keys of layers: raised when conda packages are described or installed otherwise."""
Place = Literal["prefix", "site", "scripts"]
"""Where a file goes: below the prefix, or where the Python in it has its modules and its programs."""


class Relocation(NamedTuple):
    """What stands in a file for the prefix, and how it is replaced."""

    placeholder: str
    kind: Kind


class CondaFile(NamedTuple):
    """One file or link that is installed.

    ``path`` is relative to its place, ``stored`` to the package's root. ``target`` is a link's, else empty;
    ``sha256`` and ``size`` are of the stored bytes, of a link's target as a text. ``placeholder`` with its ``kind``
    is empty for a file that names no prefix.
    """

    place: Place
    path: str
    stored: str
    size: int
    sha256: str
    executable: bool
    target: str = ""
    placeholder: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaPackage:
    """A verified conda package: who it is, its files sorted by stored path, its entry points by name.

    ``sha256`` is the artefact's. ``scripts`` are the link scripts that it brings, such as ``post-link``. ``record``
    holds what its ``index.json`` says besides: build number, dependencies, licence.
    """

    sha256: str
    name: str
    version: str
    build: str
    filename: str
    files: tuple[CondaFile, ...]
    entry_points: tuple[EntryPoint, ...]
    scripts: tuple[str, ...]
    record: JSONObject

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def link_scripts(self) -> tuple[str, ...]:
        """Those of ``scripts`` that belong to installing the package, in the order in which they run."""
        return tuple(one for one in ("pre-link", "post-link") if one in self.scripts)

    def to_json(self) -> JSONObject:
        """As a versioned JSON object, the inverse of ``from_json``."""
        return {
            "schema": CONDA_SCHEMA,
            "manager": "conda",
            "sha256": self.sha256,
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "filename": self.filename,
            "files": [list(file) for file in self.files],
            "entry_points": [list(point) for point in self.entry_points],
            "scripts": list(self.scripts),
            "record": self.record,
        }

    @classmethod
    def from_json(cls, document: JSONObject) -> CondaPackage:
        """The value that ``to_json`` wrote. Raises ``KeyError`` or ``TypeError`` for anything else."""
        if document["schema"] != CONDA_SCHEMA:
            raise KeyError(document["schema"])
        return cls(
            sha256=document["sha256"],
            name=document["name"],
            version=document["version"],
            build=document["build"],
            filename=document["filename"],
            files=tuple(map(CondaFile._make, document["files"])),
            entry_points=tuple(map(EntryPoint._make, document["entry_points"])),
            scripts=tuple(document["scripts"]),
            record=document["record"],
        )
