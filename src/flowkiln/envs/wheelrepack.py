"""A built wheel in one form: the same files give the same bytes, whenever and wherever they were built.

Back ends write times, orders, modes and compressed bytes (of their zlib) into the zip. What is installed does not
depend on any of that, and neither must the hash in the lock.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
from typing import TYPE_CHECKING

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from flowkiln.envs.builderrors import BadBuild

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.version import Version

_TIME = (1980, 1, 1, 0, 0, 0)
_BLOCK = 1 << 20


def name_and_version(filename: str, label: str) -> tuple[str, Version]:
    """Normal name and version of a wheel by its file name. Raises ``BadBuild``."""
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise BadBuild(f"{label}: the build left {filename!r}, which is not the name of a wheel") from error
    return canonicalize_name(name), version


def is_pure(filename: str) -> bool:
    """Whether the wheel says of itself that it is the same on every platform."""
    return filename.endswith("-none-any.whl")


def repack(source: Path, target: Path, label: str) -> str:
    """Writes the wheel at ``source`` to ``target`` in its one form, and returns its sha256 (hex).

    Members are sorted, stored, dated 1980-01-01 and 0644 or 0755. Raises ``BadBuild``.
    """
    try:
        with zipfile.ZipFile(source) as found, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
            infos = sorted((one for one in found.infolist() if not one.is_dir()), key=lambda one: one.filename)
            if len({one.filename for one in infos}) < len(infos):
                raise BadBuild(f"{label}: the build left a wheel that holds a file twice")
            for info in infos:
                _copy(found, info, made)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadBuild(f"{label}: the build left a damaged wheel: {error}") from error
    with target.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(found: zipfile.ZipFile, info: zipfile.ZipInfo, made: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo(info.filename, _TIME)
    member.create_system = 3
    executable = bool((info.external_attr >> 16) & 0o111)
    member.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    member.file_size = info.file_size
    with found.open(info) as stream, made.open(member, "w", force_zip64=info.file_size >= 1 << 31) as target:
        while block := stream.read(_BLOCK):
            target.write(block)
