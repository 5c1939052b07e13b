"""The interpreters of this machine: the newest patch of X.Y that a lock holds for.

What was found is remembered in ``<cache>/interpreters.json`` together with what was looked at, so that the next
look-up starts no process: it holds as long as the folders that were searched and the executables are unchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flowkiln._base import files, platforms
from flowkiln._base.errors import BaseError, FlowkilnError
from flowkiln._base.report import Silent
from flowkiln.envs import interpreter as values
from flowkiln.envs.installerrors import InterpreterMissing
from flowkiln.envs.interpreter import Interpreter
from flowkiln.envs.spread import spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.report import Reporter
    from flowkiln.envs.lock import PlatformLock

Downloads = Literal["auto", "never"]
_SCHEMA = 1
_PROBE = """\
import json, os, platform, sys
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({
    "path": os.path.realpath(base),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "release": sys.version_info[3] == "final",
    "gil": "t" not in getattr(sys, "abiflags", ""),
    "system": sys.platform,
    "machine": platform.machine() if sys.maxsize > 2**32 else "32-bit",
}))
"""
_PROBE_SECONDS = 20.0


class Found(NamedTuple):
    """An interpreter on this machine, usable or not. ``path`` is the base executable's."""

    path: str
    version: str
    implementation: str
    release: bool
    gil: bool
    system: str
    machine: str
    size: int
    mtime: int

    def refusal(self) -> str | None:
        """Why environments cannot use it; None when they can."""
        if self.implementation != "cpython":
            return self.implementation
        if not self.release:
            return "a pre-release"
        if not self.gil:
            return "free-threaded"
        if values.numbers(self.version) < (3, 11):
            return "too old"
        try:
            built_for = platforms.from_system(self.system, self.machine)
        except ValueError:
            return f"built for {self.machine}"
        return None if built_for == platforms.host() else f"built for {built_for}"

    def interpreter(self) -> Interpreter:
        """As a value; only when there is no refusal."""
        return Interpreter(
            path=self.path, version=self.version, platform=platforms.from_system(self.system, self.machine)
        )

    def holds(self) -> bool:
        """Whether the executable is still the one that was asked."""
        try:
            seen = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return False
        return (seen.st_size, seen.st_mtime_ns) == (self.size, self.mtime)


class Interpreters:
    """Finds interpreters; remembers them in ``cache``. ``downloads`` says whether a missing one is installed."""

    def __init__(
        self,
        cache: Path,
        *,
        downloads: Downloads = "auto",
        mirror: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._file = cache / "interpreters.json"
        self._downloads = downloads
        self._mirror = mirror
        self._environ = dict(os.environ if environ is None else environ)

    def find(self, part: PlatformLock, reporter: Reporter | None = None) -> Interpreter:
        """The interpreter that ``part`` brings, else the newest that it holds for.

        Raises InterpreterMissing naming what was found, InterpreterNotInstalled when a download fails.
        """
        own = values.own(part)
        if own is not None:
            return own
        chosen = self._newest(self.all(), part)
        if chosen is None and self._downloads == "auto":
            self._install(part, reporter or Silent())
            chosen = self._newest(self._search(), part)
        if chosen is None:
            raise self._missing(part)
        return chosen

    def all(self) -> list[Found]:
        """Every interpreter of this machine, newest first; without a process when nothing has changed."""
        return self._remembered() or self._search()

    def _newest(self, found: list[Found], part: PlatformLock) -> Interpreter | None:
        for one in found:
            if one.refusal() is None and values.within(one.version, part):
                return one.interpreter()
        return None

    def _install(self, part: PlatformLock, reporter: Reporter) -> None:
        from flowkiln.envs import uvpython  # noqa: PLC0415  only where a process is started

        request = part.python
        if part.python_minimum or part.python_below:
            lower = part.python_minimum or part.python
            upper = part.python_below or f"{part.python}.999"
            request = f">={lower},<{upper}"
        uvpython.install(request, self._environ, self._mirror, reporter)

    def _missing(self, part: PlatformLock) -> InterpreterMissing:
        found = self.all()
        lines = [
            f"\n  {one.version}  {one.path}" + (f"  ({why})" if (why := one.refusal()) else "") for one in found
        ]
        message = f"no Python {values.bounds(part)} on this machine; found:" + "".join(lines or ["\n  none"])
        never = " or set `python.downloads = auto`" if self._downloads == "never" else ""
        return InterpreterMissing(
            message,
            hint=f"Run `uv python install {part.python}`{never}.",
            data={"python": part.python, "found": [one.version for one in found]},
        )

    # -- memory ----------------------------------------------------------------------------------------------

    def _remembered(self) -> list[Found]:
        try:
            document = json.loads(self._file.read_bytes())
            if document["schema"] != _SCHEMA or document["searched"] != self._searched():
                return []
            found = [Found(**one) for one in document["found"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return found if all(one.holds() for one in found) else []

    def _remember(self, found: list[Found], searched: list[Any]) -> None:
        document = {"schema": _SCHEMA, "searched": searched, "found": [one._asdict() for one in found]}
        # A cache that cannot be written makes it slower, not wrong.
        with contextlib.suppress(BaseError, OSError):
            files.write_atomic(self._file, json.dumps(document, indent=1).encode())

    def _searched(self) -> list[Any]:
        """What the answer depends on: the folders that are looked into, and their times."""
        return [sys.executable, [[str(folder), _mtime(folder)] for folder in self._folders()]]

    def _folders(self) -> list[Path]:
        home = Path(self._environ.get("HOME", "/nonexistent"))
        told = self._environ.get("UV_PYTHON_INSTALL_DIR")
        data = self._environ.get("XDG_DATA_HOME")
        installed = Path(told) if told else (Path(data) if data else home / ".local" / "share") / "uv" / "python"
        paths = [Path(part) for part in self._environ.get("PATH", "").split(os.pathsep) if part]
        return [*paths, installed, self._pyenv(home)]

    def _pyenv(self, home: Path) -> Path:
        return Path(self._environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"

    # -- search ----------------------------------------------------------------------------------------------

    def _search(self) -> list[Found]:
        """Asks every candidate who it is; those that do not answer are left out."""
        searched = self._searched()
        answers = [one for one in spread(self._ask, self._candidates(), threads=4) if one is not None]
        unique = {one.path: one for one in answers}
        found = sorted(unique.values(), key=lambda one: one.path)
        found.sort(key=lambda one: values.numbers(one.version), reverse=True)
        self._remember(found, searched)
        return found

    def _candidates(self) -> list[str]:
        from flowkiln.envs import uvpython  # noqa: PLC0415  only where a process is started

        told = [sys.executable]
        # Without uv the others are still there, and what needs uv says so itself.
        with contextlib.suppress(FlowkilnError):
            told += uvpython.listed(self._environ)
        pyenv = self._pyenv(Path(self._environ.get("HOME", "/nonexistent")))
        told += [str(path) for path in sorted(pyenv.glob("3.*/bin/python3"))]
        return list(dict.fromkeys(os.path.realpath(path) if "shims" not in path else path for path in told))

    def _ask(self, path: str) -> Found | None:
        from flowkiln._base import command  # noqa: PLC0415  only where a process is started

        limits = command.Limits(total=_PROBE_SECONDS, stall=_PROBE_SECONDS)
        try:
            finished = command.run([path, "-I", "-S", "-c", _PROBE], environment=self._environ, limits=limits)
            told = json.loads(finished.stdout) if finished.code == 0 else None
            seen = Path(told["path"]).stat() if told else None
        except (FlowkilnError, OSError, ValueError, KeyError, TypeError):
            return None
        if told is None or seen is None:
            return None
        return Found(**told, size=seen.st_size, mtime=seen.st_mtime_ns)


def _mtime(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0
