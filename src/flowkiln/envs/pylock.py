"""pylock.toml (PEP 751): our own serializer for locks and the readers of ours and uv's.

The text depends on the lock alone: packages sorted by name, one block each, one key per line, no tool version, no
command line, no host.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flowkiln._base import digests, redact
from flowkiln.envs import builtentries
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.spec import normal_name
from flowkiln.envs.tomltext import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

LOCK_VERSION = "1.0"
CREATED_BY = "flowkiln"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWheel:
    """One candidate wheel of a package in uv's answer."""

    filename: str
    url: str
    sha256: str | None
    size: int | None
    upload_time: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPackage:
    """One package of uv's answer, or of a lock: every wheel that may fit, and its source distribution."""

    name: str
    version: str
    wheels: tuple[FoundWheel, ...]
    index: str | None = None
    sdist: FoundWheel | None = None


def serialise(python: str, wheels: Iterable[LockedWheel]) -> str:
    """The text of a pylock file for ``wheels`` on Python ``X.Y``."""
    lines = [
        f"lock-version = {quoted(LOCK_VERSION)}",
        f"created-by = {quoted(CREATED_BY)}",
        f"requires-python = {quoted('==' + python + '.*')}",
        *([] if (wheels := sorted(wheels, key=lambda wheel: wheel.name)) else ["packages = []"]),
    ]
    names = {wheel.name for wheel in wheels}
    for wheel in wheels:
        lines += ["", *_block(wheel, names)]
    return "\n".join(lines) + "\n"


def preferences(python: str, wheels: Iterable[LockedWheel]) -> str:
    """What uv is told of versions to keep: those of indexes alone, for others it is handed a wheel."""
    return serialise(python, [one for one in wheels if one.build is None or one.build.source.kind == "sdist"])


def _block(wheel: LockedWheel, names: Collection[str]) -> list[str]:
    """The entry of a wheel in a file with packages ``names``: others that it needs are no dependencies there."""
    lines = [
        "[[packages]]",
        f"name = {quoted(wheel.name)}",
        f"version = {quoted(wheel.version)}",
    ]
    if wheel.index:
        lines.append(f"index = {quoted(wheel.index)}")
    own = [name for name in wheel.requires if name in names]
    if own:
        lines += ["dependencies = [", *(f"  {{ name = {quoted(name)} }}," for name in own), "]"]
    if wheel.build is not None:
        return [*lines, *builtentries.block(wheel, wheel.build), *_elsewhere(wheel, names)]
    lines += [
        "",
        "[[packages.wheels]]",
        f"name = {quoted(wheel.filename)}",
        *([f"upload-time = {wheel.upload_time}"] if wheel.upload_time else []),
        f"url = {quoted(wheel.url)}",
        *([f"size = {wheel.size}"] if wheel.size is not None else []),
        f"hashes = {{ sha256 = {quoted(wheel.sha256)} }}",
    ]
    return [*lines, *_elsewhere(wheel, names)]


def _elsewhere(wheel: LockedWheel, names: Collection[str]) -> list[str]:
    """The table of what ``wheel`` needs and the file has not: conda packages provide it."""
    needed = [name for name in wheel.requires if name not in names]
    if not needed:
        return []
    return ["", "[packages.tool.flowkiln.conda]", "provides = [", *(f"  {quoted(name)}," for name in needed), "]"]


def is_ours(text: str) -> bool:
    """Whether ``text`` is a file that flowkiln wrote, and may remove."""
    return f"created-by = {quoted(CREATED_BY)}" in text


def read_ours(text: str, path: Path) -> tuple[str, tuple[LockedWheel, ...]]:
    """``X.Y`` and the wheels of a pylock file that flowkiln wrote. Raises ``BadLockFile`` naming file and line."""
    document = load_toml(text, path)
    requires_python = str(document.get("requires-python", ""))
    match = re.fullmatch(r"==(3\.\d+)\.\*", requires_python)
    if document.get("lock-version") != LOCK_VERSION:
        raise bad_file(path, text, "lock-version", f"lock-version is not {LOCK_VERSION}")
    if document.get("created-by") != CREATED_BY or match is None:
        raise bad_file(path, text, "created-by", "this file was not written by flowkiln")
    wheels = []
    for entry in document.get("packages", []):
        try:
            wheels.append(_ours(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = str(entry.get("name", "?")) if isinstance(entry, dict) else "?"
            raise bad_file(path, text, f'name = "{name}"', f"the entry of {name!r} is not valid") from error
    return match[1], tuple(sorted(wheels, key=lambda wheel: wheel.name))


def _ours(entry: dict[str, Any]) -> LockedWheel:
    own = entry.get("tool", {}).get("flowkiln", {})
    needed = [one["name"] for one in entry.get("dependencies", [])] + own.get("conda", {}).get("provides", [])
    requires = tuple(sorted(map(_text, needed)))
    if "build" in own:
        return replace(builtentries.read(entry), requires=requires)
    (wheel,) = entry["wheels"]
    sha256 = wheel["hashes"]["sha256"]
    if not digests.is_digest(f"sha256:{sha256}"):
        raise ValueError(sha256)
    uploaded = wheel.get("upload-time")
    return LockedWheel(
        name=_text(entry["name"]),
        version=_text(entry["version"]),
        index=entry.get("index"),
        requires=requires,
        filename=_text(wheel["name"]),
        url=_text(wheel["url"]),
        sha256=sha256,
        size=int(wheel["size"]) if "size" in wheel else None,
        upload_time=_time(uploaded),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value


def read_uv(text: str) -> tuple[FoundPackage, ...]:
    """The packages of a pylock file that uv wrote, sorted by name. URLs are kept as they are."""
    document = tomllib.loads(text)
    return tuple(sorted((found(entry) for entry in document.get("packages", [])), key=lambda p: p.name))


def found(entry: dict[str, Any]) -> FoundPackage:
    """A package of anybody's pylock file. URLs are without credentials."""
    archive = entry.get("archive")
    listed = [archive] if archive and _place(archive).endswith(".whl") else []
    return FoundPackage(
        name=normal_name(entry["name"]),
        version=str(entry.get("version", "")),
        wheels=tuple(_file(wheel) for wheel in (*entry.get("wheels", []), *listed)),
        index=redact.url(entry["index"]) if entry.get("index") else None,
        sdist=_file(entry["sdist"]) if entry.get("sdist") else None,
    )


def _file(told: dict[str, Any]) -> FoundWheel:
    url = _place(told)
    return FoundWheel(
        filename=told.get("name") or unquote(urlsplit(url).path.rpartition("/")[2]),
        url=redact.url(url),
        sha256=told.get("hashes", {}).get("sha256"),
        size=told.get("size"),
        upload_time=_time(told.get("upload-time")),
    )


def _place(file: dict[str, Any]) -> str:
    return str(file.get("url") or file.get("path") or "")


def _time(value: object) -> str | None:
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def load_toml(text: str, path: Path) -> dict[str, Any]:
    """``text`` as a TOML document. Raises ``BadLockFile`` naming ``path`` and the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        refuse_conflict(text, path)
        message = f"{path} is not valid TOML: {error}"
        raise BadLockFile(message, hint=AGAIN) from error


AGAIN = "Take the file back from version control, or delete it and run `flowkiln env lock`."
"""What to do about a lock file that cannot be read."""


_UNMERGE = "Take one side of the merge as a whole, then run `flowkiln env lock`."


def refuse_conflict(text: str, path: Path) -> None:
    """Raises ``BadLockFile`` where git marks a conflict in the text of a file that cannot be read."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<<<<<<< "):
            raise BadLockFile(f"{path}, line {number}: the marks of a merge conflict", hint=_UNMERGE)


def bad_file(path: Path, text: str, near: str, what: str) -> BadLockFile:
    """The error for a lock file that is valid TOML and yet no lock; the line is that of ``near``."""
    line = next((number for number, one in enumerate(text.splitlines(), 1) if near in one), 1)
    return BadLockFile(f"{path}, line {line}: {what}", hint=AGAIN)
