"""An unpacked wheel as a value: what installing it writes, whatever the prefix and the patch version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

WHEEL_SCHEMA = 1
Scheme = Literal["site", "scripts", "data", "headers"]
"""Where a file goes: ``site`` is site-packages, whether the wheel says purelib or platlib."""


class WheelFile(NamedTuple):
    """One file of a wheel that is installed.

    ``path`` is relative to its scheme's folder, ``stored`` to the wheel's root. ``launcher`` marks a script whose
    first line names the prefix's interpreter and is therefore written with the prefix.
    """

    scheme: Scheme
    path: str
    stored: str
    size: int
    sha256: str
    executable: bool
    launcher: bool


class EntryPoint(NamedTuple):
    """A console or gui script that a distribution declares: ``bin/name`` calls ``module:attr``."""

    name: str
    module: str
    attr: str
    gui: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A verified wheel: who it is, its files sorted by stored path, and its entry points sorted by name.

    ``sha256`` is the artefact's, ``name`` normalised, ``dist_info`` the name of its metadata folder. The files
    include INSTALLER, and RECORD where it does not depend on the Python.
    """

    sha256: str
    name: str
    version: str
    filename: str
    dist_info: str
    files: tuple[WheelFile, ...]
    entry_points: tuple[EntryPoint, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> JSONObject:
        """As a versioned JSON object, the inverse of ``from_json``."""
        return {
            "schema": WHEEL_SCHEMA,
            "sha256": self.sha256,
            "name": self.name,
            "version": self.version,
            "filename": self.filename,
            "dist_info": self.dist_info,
            "files": [list(file) for file in self.files],
            "entry_points": [list(point) for point in self.entry_points],
        }

    @classmethod
    def from_json(cls, document: JSONObject) -> Wheel:
        """The value that ``to_json`` wrote. Raises ``KeyError`` or ``TypeError`` for anything else."""
        return cls(
            sha256=document["sha256"],
            name=document["name"],
            version=document["version"],
            filename=document["filename"],
            dist_info=document["dist_info"],
            files=tuple(map(WheelFile._make, document["files"])),
            entry_points=tuple(map(EntryPoint._make, document["entry_points"])),
        )
