"""What a conda package says of itself in ``info/``, read into values whose types hold. Nothing of it is trusted.

``index.json`` says who it is, ``paths.json`` lists its files (old packages have ``files`` and ``has_prefix``),
``link.json`` says where the files of a pure Python package go.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from flowkiln.envs.condapackage import Relocation
from flowkiln.envs.installerrors import CondaMismatch, CondaUnreadable, HostileConda
from flowkiln.envs.names import check_path, collision_key
from flowkiln.envs.wheel import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import LockedConda

_OLD_PLACEHOLDER = "/opt/anaconda1anaconda2anaconda3"
"""What packages stand for the prefix that do not say it."""
_INTERPRETER = re.compile(r"pythonw?(\d+(\.\d+)*)?t?")
_PYTHON_FOLDER = re.compile(r"bin|lib(/python\d+\.\d+t?(/site-packages)?)?")
_ENTRY_POINT = re.compile(r"\s*([^\s=]+)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?\s*")
_HAS_PREFIX = re.compile(r'(?:"([^"]+)"|(\S+))\s+(text|binary)\s+(?:"([^"]+)"|(.+))')
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("license", "noarch", "subdir", "track_features")
_LISTS = ("constrains", "depends")
_NUMBERS = ("build_number", "timestamp")
_KINDS = ("text", "binary")


class Told(NamedTuple):
    """What the list of files says of one: None where it does not say. A folder need not be in the archive."""

    size: int | None = None
    sha256: str | None = None
    relocation: Relocation | None = None
    is_folder: bool = False


class Info:
    """The metadata of one package. Raises HostileConda, CondaMismatch and CondaUnreadable."""

    def __init__(self, read: Mapping[str, bytes], locked: LockedConda) -> None:
        self._read = read
        self._locked = locked
        self._name = locked.filename
        index = self._json("index.json")
        self._check_identity(index)
        noarch = self._noarch()
        self.pure = noarch.get("type") == "python" or index.get("noarch") == "python"
        self.files = self._files()
        self._check_names()
        self.entry_points = self._entry_points(noarch.get("entry_points"))
        self.record = self._record(index)

    def refuse(self, path: str, reason: str) -> HostileConda:
        """The error about one of its files."""
        return HostileConda(f"{self._name}: {path!r}: {reason}", data={"package": self._name, "member": path})

    def unreadable(self, reason: str) -> CondaUnreadable:
        """The error about the package as a whole."""
        return CondaUnreadable(f"{self._name}: {reason}")

    def _json(self, name: str, *, needed: bool = True) -> dict[str, Any]:
        if name not in self._read:
            if needed:
                raise self.unreadable(f"has no info/{name}")
            return {}
        try:
            found = json.loads(self._read[name])
        except (ValueError, RecursionError) as error:
            raise self.unreadable(f"info/{name} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise self.unreadable(f"info/{name} is no JSON object")
        return found

    def _noarch(self) -> dict[str, Any]:
        """What ``link.json`` says of a package for every platform."""
        told = self._json("link.json", needed=False).get("noarch") or {}
        if isinstance(told, str):
            told = {"type": told}
        if not isinstance(told, dict):
            raise self.unreadable("info/link.json: its noarch is no object")
        return told

    def _check_identity(self, index: JSONObject) -> None:
        told = tuple(str(index.get(key)) for key in ("name", "version", "build"))
        locked = (self._locked.name, self._locked.version, self._locked.build)
        if told != locked:
            message = f"{self._name}: it says that it is {' '.join(told)}, locked is {' '.join(locked)}"
            raise CondaMismatch(message)

    def _record(self, index: JSONObject) -> JSONObject:
        """What is kept of ``index.json``, each value of the kind that readers of ``conda-meta`` take."""
        kinds: list[tuple[type, tuple[str, ...]]] = [(str, _TEXTS), (list, _LISTS), (int, _NUMBERS)]
        found: JSONObject = {}
        for kind, keys in kinds:
            for key in keys:
                value = index.get(key)
                if isinstance(value, bool) or not isinstance(value, (kind, type(None))):
                    raise self.unreadable(f"info/index.json: {key} is {value!r}")
                if isinstance(value, list) and not all(isinstance(one, str) for one in value):
                    raise self.unreadable(f"info/index.json: {key} is no list of texts")
                if value is not None:
                    found[key] = value
        return found

    # -- files -------------------------------------------------------------------------------------------------

    def _files(self) -> dict[str, Told]:
        if "paths.json" not in self._read:
            return self._old_files()
        rows = self._json("paths.json").get("paths")
        if not isinstance(rows, list):
            raise self.unreadable("info/paths.json has no list of paths")
        found: dict[str, Told] = {}
        for row in rows:
            path = row.get("_path") if isinstance(row, dict) else None
            if not isinstance(path, str):
                raise self.unreadable(f"info/paths.json: {row!r:.80} names no path")
            if path in found:
                raise self.refuse(path, "listed twice")
            found[path] = self._told(path, row)
        return found

    def _told(self, path: str, row: JSONObject) -> Told:
        """One row. A size or hash that is absent is nobody's loss: the package itself is locked by its hash."""
        size, sha256 = row.get("size_in_bytes"), row.get("sha256")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise self.unreadable(f"{path!r}: its size is {size!r:.80}")
        if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256.lower())):
            raise self.unreadable(f"{path!r}: its sha256 is {sha256!r:.80}")
        placeholder, kind = row.get("prefix_placeholder"), row.get("file_mode") or "text"
        relocation = None
        if placeholder is not None and placeholder != "":
            if not (isinstance(placeholder, str) and placeholder.isascii() and placeholder.isprintable()):
                raise self.unreadable(f"{path!r}: its placeholder is {placeholder!r:.80}")
            if kind not in _KINDS:
                raise self.unreadable(f"{path!r}: its prefix is replaced in a way that is not known: {kind!r:.80}")
            relocation = Relocation(placeholder, "binary" if kind == "binary" else "text")
        return Told(size, sha256 and sha256.lower(), relocation, row.get("path_type") == "directory")

    def _old_files(self) -> dict[str, Told]:
        """From ``info/files`` and ``info/has_prefix``, as packages of before 2016 have them."""
        found = {line: Told() for line in self._lines("files")}
        for line in self._lines("has_prefix"):
            match = _HAS_PREFIX.fullmatch(line)
            placeholder, kind, path = _OLD_PLACEHOLDER, "text", line
            if match is not None:
                placeholder, kind, path = match[1] or match[2], match[3], match[4] or match[5]
            found[path] = Told(relocation=Relocation(placeholder, "binary" if kind == "binary" else "text"))
        return found

    def _lines(self, name: str) -> list[str]:
        try:
            text = self._read.get(name, b"").decode()
        except UnicodeDecodeError as error:
            raise self.unreadable(f"info/{name} is no text: {error}") from error
        return [line for line in text.splitlines() if line.strip()]

    def _check_names(self) -> None:
        # Names that differ in case alone are common (terminfo), and are told apart where the file system does.
        for path, told in self.files.items():
            check_path(path, partial(self.refuse, path))
            self._check_claims(collision_key(path), path, told)
            parent = path.rpartition("/")[0]
            while parent:
                if parent in self.files and not self.files[parent].is_folder:
                    raise self.refuse(path, f"{parent!r} is a file and its folder")
                parent = parent.rpartition("/")[0]

    def _check_claims(self, key: str, path: str, told: Told) -> None:
        """Refuses files that would replace what makes the prefix an environment of ours."""
        top, _, rest = key.partition("/")
        python = self._locked.name == "python"
        claims = (
            key == "pyvenv.cfg"
            or top in (".flowkiln", "conda-meta")
            or (top == "bin" and _INTERPRETER.fullmatch(rest) and not python)
            or (top == "lib" and rest.endswith("/externally-managed") and rest.count("/") == 1)
            or (_PYTHON_FOLDER.fullmatch(key) and not told.is_folder and not (python and "/" in key))
        )
        if claims:
            raise self.refuse(path, "belongs to the environment")

    # -- entry points ------------------------------------------------------------------------------------------

    def _entry_points(self, told: object) -> tuple[EntryPoint, ...]:
        lines = [] if told is None else told
        if not isinstance(lines, list):
            raise self.unreadable("info/link.json: its entry points are no list")
        found: dict[str, EntryPoint] = {}
        for line in lines:
            match = _ENTRY_POINT.fullmatch(line) if isinstance(line, str) else None
            if match is None:
                raise self.unreadable(f"{line!r:.80} is no entry point")
            name = match[1]
            check_path(name, partial(self.refuse, "info/link.json"))
            if "/" in name or _INTERPRETER.fullmatch(name):
                raise self.refuse("info/link.json", f"a script may not be called {name!r}")
            found[name] = EntryPoint(name, match[2], match[3], False)
        return tuple(found[name] for name in sorted(found))
