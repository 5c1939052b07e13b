"""The pinned bases of images in ``flowkiln.lock``: one ``[[bases]]`` table for each reference and platform."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast, get_args

from flowkiln._base import digests
from flowkiln._base.platforms import Platform
from flowkiln.envs.basepin import BaseFacts, BasePin, Libc
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.pylock import AGAIN
from flowkiln.envs.tomltext import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NO_BYTECODE = "none"
_HEADER = "[[bases]]"
_OWN = re.compile(r"\[{1,2}bases[\].]")
_VERSION = re.compile(r"3\.\d+\.\d+")
_LIBC = re.compile(r"(\d+)\.(\d+)")


def lines(pins: Iterable[BasePin]) -> list[str]:
    """The lines of ``pins`` at the end of an index, by reference and platform; none for none."""
    found: list[str] = []
    for pin in sorted(pins, key=lambda one: (one.reference, one.platform)):
        found += ["", _HEADER, f"reference = {quoted(pin.reference)}", f"platform = {quoted(str(pin.platform))}"]
        found += [f"manifest = {quoted(pin.manifest)}", f"config = {quoted(pin.config)}"]
        found += [f"bytecode = {quoted(pin.bytecode or _NO_BYTECODE)}"]
        if pin.environments:
            found.append(f"environments = [{', '.join(map(quoted, sorted(pin.environments)))}]")
        if pin.without_bytecode:
            found.append(f"without_bytecode = [{', '.join(map(quoted, sorted(pin.without_bytecode)))}]")
        found += ["", "[bases.facts]"]
        found += _facts_lines(pin.facts)
    return found


def _facts_lines(facts: BaseFacts) -> list[str]:
    texts = {"python": facts.python, "interpreter": facts.interpreter, "stdlib": facts.stdlib}
    found = [f"{key} = {quoted(value)}" for key, value in texts.items() if value is not None]
    found.append(f"stdlib_bytecode = {str(facts.stdlib_bytecode).lower()}")
    found.append(f"libc = {quoted(facts.libc)}")
    if facts.glibc is not None:
        found.append(f'glibc = "{facts.glibc[0]}.{facts.glibc[1]}"')
    found += [f"path = {quoted(facts.path)}", f"user = {quoted(facts.user)}"]
    return [*found, f"entrypoint = [{', '.join(map(quoted, facts.entrypoint))}]"]


def replaced(text: str, pins: Iterable[BasePin]) -> str:
    """The index ``text`` with ``pins`` in place of those it has; every other line stays as it is."""
    kept: list[str] = []
    ours = False
    for line in text.split("\n"):  # a quoted text may hold other characters that end lines
        if line.startswith("["):
            ours = _OWN.match(line) is not None
        if not ours:
            kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return "\n".join([*kept, *lines(pins)]) + "\n"


def parse(document: dict[str, Any], text: str, path: Path) -> tuple[BasePin, ...]:
    """The pins in the index ``document``, whose text is ``text``. Raises ``BadLockFile`` naming file and line."""
    tables = document.get("bases", [])
    if not isinstance(tables, list):
        raise _bad(path, text, 0, "bases are no list of tables")
    pins: dict[tuple[str, Platform], BasePin] = {}
    for number, table in enumerate(tables):
        try:
            pin = _pin(table)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = str(table.get("reference", "?")) if isinstance(table, dict) else "?"
            raise _bad(path, text, number, f"the entry of base {name!r} is not valid ({error})") from error
        if (pin.reference, pin.platform) in pins:
            raise _bad(path, text, number, f"base {pin.reference!r} is listed twice for {pin.platform}")
        pins[pin.reference, pin.platform] = pin
    return tuple(sorted(pins.values(), key=lambda one: (one.reference, one.platform)))


def _bad(path: Path, text: str, number: int, what: str) -> BadLockFile:
    """The error for the table of that number, at the line where it begins."""
    begins = [line for line, one in enumerate(text.split("\n"), 1) if one.strip() == _HEADER]
    line = begins[number] if number < len(begins) else 1
    return BadLockFile(f"{path}, line {line}: {what}", hint=AGAIN)


def _pin(table: dict[str, Any]) -> BasePin:
    bytecode = _text(table, "bytecode")
    return BasePin(
        reference=_text(table, "reference"),
        platform=Platform.parse(_text(table, "platform")),
        manifest=_digest(table, "manifest"),
        config=_digest(table, "config"),
        facts=_facts(table["facts"]),
        bytecode=None if bytecode == _NO_BYTECODE else _version(table, "bytecode"),
        environments=_names("environments", table),
        without_bytecode=_names("without_bytecode", table),
    )


def _names(key: str, table: dict[str, Any]) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        message = f"{key} is no list of names"
        raise TypeError(message)
    return tuple(sorted(value))


def _facts(table: dict[str, Any]) -> BaseFacts:
    libc = _text(table, "libc")
    glibc = _LIBC.fullmatch(_text(table, "glibc")) if "glibc" in table else None
    if libc not in get_args(Libc) or ("glibc" in table and (glibc is None or libc != "glibc")):
        message = "libc and glibc do not fit"
        raise ValueError(message)
    if ("python" in table) != ("interpreter" in table):
        message = "python and interpreter come together"
        raise ValueError(message)
    entrypoint, bytecode = table["entrypoint"], table["stdlib_bytecode"]
    if not isinstance(entrypoint, list) or not all(isinstance(word, str) for word in entrypoint):
        message = "entrypoint is no list of texts"
        raise TypeError(message)
    if not isinstance(bytecode, bool):
        message = "stdlib_bytecode is neither true nor false"
        raise TypeError(message)
    return BaseFacts(
        python=_version(table, "python") if "python" in table else None,
        interpreter=_text(table, "interpreter") if "interpreter" in table else None,
        libc=cast("Libc", libc),
        glibc=(int(glibc[1]), int(glibc[2])) if glibc else None,
        path=_text(table, "path", empty=True),
        user=_text(table, "user", empty=True),
        entrypoint=tuple(entrypoint),
        stdlib=_text(table, "stdlib") if "stdlib" in table else None,
        stdlib_bytecode=bytecode,
    )


def _text(table: dict[str, Any], key: str, *, empty: bool = False) -> str:
    value = table[key]
    if not isinstance(value, str) or not (value or empty):
        message = f"{key} is not a text"
        raise TypeError(message)
    return value


def _digest(table: dict[str, Any], key: str) -> str:
    value = _text(table, key)
    if not digests.is_digest(value):
        message = f"{key} is not a digest"
        raise ValueError(message)
    return value


def _version(table: dict[str, Any], key: str) -> str:
    value = _text(table, key)
    if not _VERSION.fullmatch(value):
        message = f"{key} is no version X.Y.Z"
        raise ValueError(message)
    return value
