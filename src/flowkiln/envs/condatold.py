"""What a conda package says of itself in ``info/``, read from JSON that anybody may have written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flowkiln.envs.installerrors import CondaUnreadable, HostileConda
from flowkiln.envs.names import check_path
from flowkiln.envs.wheel import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.json import JSONObject

INTERPRETER = re.compile(r"pythonw?(\d+(\.\d+)*)?t?")
_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What packages stand for the prefix that do not say it."""
_PLACEHOLDER = re.compile(r"(?:/|[A-Za-z]:[\\/])[^\x00-\x1f\x7f]{4,}")
_ENTRY_POINT = re.compile(r"\s*([^\s=]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?\s*")
_HAS_PREFIX = re.compile(r'(?:"([^"]+)"|(\S+))\s+(text|binary)\s+(?:"([^"]+)"|(.+))')
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_LARGEST = 1 << 63
Type = Literal["", "hardlink", "softlink", "directory"]
_TYPES: tuple[Type, ...] = ("", "hardlink", "softlink", "directory")


class ToldFile(NamedTuple):
    """One path as it is listed. What is not said is empty, a size None; ``mode`` is ``text`` or ``binary``."""

    type: Type = ""
    sha256: str = ""
    size: int | None = None
    placeholder: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A package by its own words. ``pure`` ones have their Python code where the prefix's Python wants it.

    ``record`` is what ``conda-meta`` says of an installed package beside its identity and its files.
    """

    identity: tuple[str, str, str]
    files: Mapping[str, ToldFile]
    pure: bool
    entry_points: tuple[EntryPoint, ...]
    record: JSONObject


def read(info: Mapping[str, bytes], name: str) -> Told:
    """What the files of ``info`` say of the package ``name``. Raises CondaUnreadable, HostileConda."""
    return _Reading(info, name).told()


class _Reading:
    def __init__(self, info: Mapping[str, bytes], name: str) -> None:
        self._info = info
        self._name = name

    def told(self) -> Told:
        index, link = self._object("index.json"), self._object("link.json", needed=False)
        noarch = link.get("noarch")
        noarch = self._is(noarch if noarch is not None else {}, dict, "info/link.json: noarch")
        kinds = (noarch.get("type"), index.get("noarch"))
        for kind in kinds:
            if kind not in (None, True, False, "python", "generic"):
                raise self._unreadable(f"it is noarch in a way that is not known: {kind!r}")
        return Told(
            identity=tuple(self._text(index.get(key), key) for key in ("name", "version", "build")),  # type: ignore[arg-type]
            files=self._listed() if "paths.json" in self._info else self._old(),
            pure="python" in kinds,
            entry_points=self._entry_points(noarch.get("entry_points")),
            record=self._record(index),
        )

    def _unreadable(self, reason: str) -> CondaUnreadable:
        return CondaUnreadable(f"{self._name}: {reason}")

    def _is(self, value: object, kind: type, what: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._unreadable(f"{what} is {str(value)[:60]!r}, which cannot be")
        return value

    def _text(self, value: object, what: str) -> str:
        text: str = self._is(value, str, what)
        return text

    def _number(self, value: object, what: str) -> int:
        number: int = self._is(value, int, what)
        if not 0 <= number < _LARGEST:
            raise self._unreadable(f"{what} is {number}")
        return number

    def _object(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        if name not in self._info:
            if needed:
                raise self._unreadable(f"has no info/{name}")
            return {}
        try:
            text = self._info[name].decode("utf-8-sig")
            found = json.loads(text)
            if "\\u" in text:  # halves of a letter, which no file and no output can have
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            message = f"info/{name} is no JSON: {error}"
            raise self._unreadable(message) from error
        document: dict[str, Any] = self._is(found, dict, f"info/{name}")
        return document

    # -- files -------------------------------------------------------------------------------------------------

    def _listed(self) -> dict[str, ToldFile]:
        document = self._object("paths.json")
        version = document.get("paths_version", 1)
        if version != 1:
            raise self._unreadable(f"info/paths.json has a version that is not known: {version!r}")
        found: dict[str, ToldFile] = {}
        for row in self._is(document.get("paths"), list, "info/paths.json: paths"):
            path = self._text(self._is(row, dict, "info/paths.json: a row").get("_path"), "info/paths.json: _path")
            if path in found:
                raise self._unreadable(f"info/paths.json lists {path!r} twice")
            found[path] = self._row(path, row)
        return found

    def _row(self, path: str, row: dict[str, Any]) -> ToldFile:
        kind, sha256, size = row.get("path_type"), row.get("sha256"), row.get("size_in_bytes")
        if kind is not None and kind not in _TYPES:
            raise self._unreadable(f"{path!r} is of a type that is not known: {kind!r}")
        if sha256 is not None and not _SHA256.fullmatch(self._text(sha256, f"{path!r}: sha256")):
            raise self._unreadable(f"{path!r}: {sha256!r} is no sha256")
        if size is not None:
            size = self._number(size, f"{path!r}: size_in_bytes")
        placeholder, mode = row.get("prefix_placeholder"), row.get("file_mode")
        if not placeholder:
            placeholder, mode = self._text(placeholder or "", f"{path!r}: prefix_placeholder"), ""
        else:
            self._check_placeholder(path, placeholder, mode := mode if mode is not None else "text")
        return ToldFile(kind or "", (sha256 or "").lower(), size, placeholder, mode)

    def _check_placeholder(self, path: str, placeholder: object, mode: object) -> None:
        if not _PLACEHOLDER.fullmatch(self._text(placeholder, f"{path!r}: prefix_placeholder")):
            raise self._unreadable(f"{path!r}: {placeholder!r} stands for no prefix")
        if mode not in ("text", "binary"):
            raise self._unreadable(f"{path!r}: its prefix is replaced in a way that is not known: {mode!r}")

    def _old(self) -> dict[str, ToldFile]:
        """From ``info/files`` and ``info/has_prefix``, as packages of before 2016 have them."""
        found = dict.fromkeys(self._lines("files"), ToldFile())
        for line in self._lines("has_prefix"):
            match = _HAS_PREFIX.fullmatch(line)
            placeholder, mode, path = _OLD_PLACEHOLDER, "text", line
            if match is not None:
                placeholder, mode, path = match[1] or match[2], match[3], match[4] or match[5]
            self._check_placeholder(path, placeholder, mode)
            found[path] = ToldFile(placeholder=placeholder, mode=mode)
        return found

    def _lines(self, name: str) -> list[str]:
        try:
            text = self._info.get(name, b"").decode()
        except UnicodeDecodeError as error:
            message = f"info/{name} is no UTF-8"
            raise self._unreadable(message) from error
        return [line for line in text.splitlines() if line.strip()]

    # -- the rest ----------------------------------------------------------------------------------------------

    def _record(self, index: dict[str, Any]) -> JSONObject:
        record: JSONObject = {}
        for key in ("build_number", "timestamp"):
            if index.get(key) is not None:
                record[key] = self._number(index[key], key)
        for key in ("license", "subdir"):
            if index.get(key) is not None:
                record[key] = self._text(index[key], key)
        for key in ("constrains", "depends", "track_features"):
            value = index.get(key)
            if value is not None and not (key == "track_features" and isinstance(value, str)):
                value = [self._text(one, key) for one in self._is(value, list, key)]
            if value is not None:
                record[key] = value
        if index.get("noarch") in ("python", "generic"):
            record["noarch"] = index["noarch"]
        return record

    def _entry_points(self, told: object) -> tuple[EntryPoint, ...]:
        found: dict[str, EntryPoint] = {}
        for line in self._is(told if told is not None else [], list, "info/link.json: entry_points"):
            match = _ENTRY_POINT.fullmatch(self._text(line, "info/link.json: an entry point"))
            if match is None:
                raise self._unreadable(f"{line!r} is no entry point")
            name = match[1]
            check_path(name, self._refuse)
            if "/" in name or INTERPRETER.fullmatch(name):
                raise self._refuse(f"a script may not be called {name!r}")
            found[name] = EntryPoint(name, match[2], match[3], False)
        return tuple(found[name] for name in sorted(found))

    def _refuse(self, reason: str) -> HostileConda:
        member = "info/link.json"
        return HostileConda(f"{self._name}: {member!r}: {reason}", data={"package": self._name, "member": member})
