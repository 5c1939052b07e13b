"""``flowkiln.lock``, schema 1: which environments a lock folder has, for which steps, platforms and bounds.

The bases that images are baked on stand at its end; a lock without them is written as it was before there were any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkiln._base import digests
from flowkiln._base.errors import FormatTooNew
from flowkiln._base.platforms import Platform
from flowkiln.envs import linkedfiles, lockbases, pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import LOCK_SCHEMA, AbsentPlatform
from flowkiln.envs.pylock import AGAIN
from flowkiln.envs.tomltext import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lock import EnvLock, LinkedFiles, PlatformLock

CONDA = "conda"
"""The ``interpreter`` of a platform whose Python is a conda package; other platforms have none of their own."""
_HEADER = "# Written by flowkiln. Belongs in version control; `flowkiln env lock` changes it."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformEntry:
    """What the index records of one platform.

    ``conda`` tells that the interpreter and others come from the environment's conda-lock.yml; ``pylock`` that
    there is a file for its wheels, which a platform with conda packages alone has not. ``linked`` is what link
    scripts left: no file beside the index has it, as no tool but flowkiln could fetch it.
    """

    platform: Platform
    env_id: str
    glibc: tuple[int, int] | None
    python_minimum: str | None
    python_below: str | None
    winners: tuple[tuple[str, str], ...]
    virtual: tuple[tuple[str, str], ...] = ()
    conda: bool = False
    pylock: bool = True
    linked: LinkedFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the index records of one environment."""

    name: str
    steps: tuple[str, ...]
    spec_id: str
    lock_id: str
    python: str
    platforms: tuple[PlatformEntry, ...]
    absent: tuple[AbsentPlatform, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What an index says: its environments, and the bases that are pinned, by reference and platform."""

    entries: tuple[Entry, ...]
    bases: tuple[BasePin, ...]


EMPTY = f"{_HEADER}\nschema = {LOCK_SCHEMA}\n"
"""The index of a folder without environments and bases."""


def serialise(locks: Iterable[EnvLock], bases: Iterable[BasePin] = ()) -> str:
    """The text of the index; a function of the locks and bases alone."""
    lines = EMPTY.splitlines()
    for lock in sorted(locks, key=lambda one: one.name):
        lines += ["", "[[environments]]", f"name = {quoted(lock.name)}"]
        lines += [f"steps = [{', '.join(quoted(step) for step in sorted(lock.steps))}]"]
        lines += [f"spec_id = {quoted(lock.spec_id)}", f"lock_id = {quoted(lock.lock_id)}"]
        lines += [f"python = {quoted(lock.python)}"]
        for part in sorted(lock.platforms, key=lambda one: one.platform):
            lines += ["", *_platform_lines(part)]
        for absent in sorted(lock.absent, key=lambda one: one.platform):
            lines += ["", "[[environments.absent]]", f"platform = {quoted(str(absent.platform))}"]
            lines += ["reason = [", *(f"  {quoted(line)}," for line in absent.reason.splitlines()), "]"]
    return "\n".join([*lines, *lockbases.lines(bases)]) + "\n"


def _platform_lines(part: PlatformLock) -> list[str]:
    lines = ["[[environments.platforms]]", f"platform = {quoted(str(part.platform))}"]
    lines.append(f"env_id = {quoted(part.env_id)}")
    if part.glibc is not None:
        lines.append(f'glibc = "{part.glibc[0]}.{part.glibc[1]}"')
    if part.python_minimum is not None:
        lines.append(f"python_minimum = {quoted(part.python_minimum)}")
    if part.python_below is not None:
        lines.append(f"python_below = {quoted(part.python_below)}")
    if part.virtual:
        lines.append(
            f"virtual = [{', '.join(quoted(f'{name} {version}') for name, version in sorted(part.virtual))}]"
        )
    if part.conda:
        lines.append(f"interpreter = {quoted(CONDA)}")
        lines += [] if has_pylock(part) else ["pylock = false"]
    if part.winners:
        lines += ["winners = [", *(f"  [{quoted(a)}, {quoted(b)}]," for a, b in sorted(part.winners)), "]"]
    return lines if part.linked is None else [*lines, "", *linkedfiles.lines(part.linked)]


def has_pylock(part: PlatformLock) -> bool:
    """Whether a platform has a pylock file: always, unless all that it has comes from conda."""
    return bool(part.wheels) or not part.conda


def parse(text: str, path: Path) -> Index:
    """What an index says. Raises ``BadLockFile`` naming file and line, ``FormatTooNew``."""
    document = pylock.load_toml(text, path)
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise pylock.bad_file(path, text, "schema", "no schema number; this is not a flowkiln.lock")
    if schema > LOCK_SCHEMA:
        message = f"{path} has schema {schema}; this flowkiln reads up to {LOCK_SCHEMA}"
        raise FormatTooNew(message, hint="Upgrade flowkiln: `pip install --upgrade flowkiln`.")
    entries = []
    for table in document.get("environments", []):
        try:
            entries.append(_entry(table))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = str(table.get("name", "?")) if isinstance(table, dict) else "?"
            what = f"the entry of environment {name!r} is not valid ({error})"
            raise pylock.bad_file(path, text, f'name = "{name}"', what) from error
    if len({entry.name for entry in entries}) != len(entries):
        raise BadLockFile(f"{path}: an environment is listed twice", hint=AGAIN)
    return Index(entries=tuple(entries), bases=lockbases.parse(document, text, path))


def _entry(table: dict[str, Any]) -> Entry:
    return Entry(
        name=_string(table, "name"),
        steps=tuple(str(step) for step in table.get("steps", [])),
        spec_id=_digest(table, "spec_id"),
        lock_id=_digest(table, "lock_id"),
        python=_string(table, "python"),
        platforms=tuple(_platform(one) for one in table.get("platforms", [])),
        absent=tuple(
            AbsentPlatform(platform=Platform.parse(one["platform"]), reason="\n".join(map(str, one["reason"])))
            for one in table.get("absent", [])
        ),
    )


def _platform(table: dict[str, Any]) -> PlatformEntry:
    glibc = table.get("glibc")
    winners = tuple((str(path), str(name)) for path, name in table.get("winners", []))
    interpreter, wheels = table.get("interpreter"), table.get("pylock", True)
    if interpreter not in (None, CONDA) or not isinstance(wheels, bool) or not (wheels or interpreter):
        message = "interpreter and pylock do not fit"
        raise ValueError(message)
    return PlatformEntry(
        platform=Platform.parse(_string(table, "platform")),
        env_id=_digest(table, "env_id"),
        glibc=version_pair(glibc) if glibc is not None else None,
        python_minimum=_string(table, "python_minimum") if "python_minimum" in table else None,
        python_below=_string(table, "python_below") if "python_below" in table else None,
        winners=winners,
        virtual=tuple(_virtual(one) for one in table.get("virtual", [])),
        conda=interpreter == CONDA,
        linked=linkedfiles.read(table["linked"]) if "linked" in table else None,
        pylock=wheels,
    )


def _virtual(text: str) -> tuple[str, str]:
    name, _, version = text.partition(" ")
    if not name or not version:
        message = f"{text!r} is no virtual package with its version"
        raise ValueError(message)
    return name, version


def version_pair(text: str) -> tuple[int, int]:
    """``"2.28"`` as ``(2, 28)``. Raises ``ValueError``."""
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _string(table: dict[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        message = f"{key} is not a text"
        raise TypeError(message)
    return value


def _digest(table: dict[str, Any], key: str) -> str:
    value = _string(table, key)
    if not digests.is_digest(value):
        message = f"{key} is not a digest"
        raise ValueError(message)
    return value
