"""Builds on this machine itself, where the user allows them: in an environment and folders of their own.

What a build writes goes below its scratch folder: HOME, TMPDIR and the folder of the project lie there. Where the
kernel can (Landlock, Linux 5.13), it is held to that; else its code can do what the user can do.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flowkiln._base import command, files, redact
from flowkiln.envs import build_wheel, landlock
from flowkiln.envs.builderrors import BuildFailed, BuildTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.builds import Job

HOST = "host"
"""What a lock has for ``where`` of a wheel that was built on a machine itself."""
LINES = 20
"""Last lines of a failed build that a message has."""
_LACKING = re.compile(
    r"(?i)\b(?:gcc|cc|g\+\+|c\+\+|clang|gfortran|cmake|ninja|make|rustc|cargo)[':]*:? (?:command )?not found"
    r"|no such file or directory: '[^'\n]*(?:gcc|cc|\+\+|clang|gfortran|cmake|ninja|make|rustc|cargo)'"
    r"|command '[^'\n]*(?:gcc|cc|\+\+|clang)' failed: no such file|fatal error: [^\n]+\.h(?:pp)?: no such file"
    r"|unable to find [^\n]*compiler|can't find rust compiler|could not find compiler"
)
"""How builds say that a compiler, a tool or a header is missing."""
_SCRIPT = Path(build_wheel.__file__)
_DOWNLOADS = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


class HostRunner:
    """Runs builds with ``python_of(job)``, the interpreter of an environment of the build requirements.

    ``seconds`` is how long one may take; ``network`` leaves the user's proxies in its environment.
    """

    def __init__(self, python_of: Callable[[Job], str], *, seconds: float, network: bool) -> None:
        self._python_of = python_of
        self._seconds = seconds
        self._network = network

    def where(self, python: str, platform: Platform) -> str:
        """``host``."""
        del python, platform
        return HOST

    def run(self, job: Job, where: str) -> None:
        """As ``Runner.run``."""
        del where
        scratch = job.answer.parent
        for name in ("home", "tmp"):
            (scratch / name).mkdir(exist_ok=True)
        request = scratch / "request.json"
        request.write_text(
            json.dumps(request_of(job, job.root.as_posix(), job.answer.as_posix(), self._seconds)), encoding="utf-8"
        )
        python = self._python_of(job)
        finished = command.run(
            [*self._held(scratch), python, *SWITCHES, _SCRIPT, request],
            environment=self._variables(job, python, scratch),
            folder=job.root,
            limits=command.Limits(total=self._seconds, stall=self._seconds),
        )
        said = finished.stdout + finished.stderr
        log = written_log(job.log, said)
        if finished.ended != "exit":
            raise too_long(job, self._seconds, said, log)
        if finished.code != 0:
            raise failed(job, finished.code, said, log)

    def _held(self, scratch: Path) -> list[str | Path]:
        """What holds the build to its folder, nothing where the kernel cannot."""
        if not landlock.available():
            return []
        network = "yes" if self._network else "no"
        return [sys.executable, "-I", "-S", Path(landlock.__file__), scratch, network]

    def _variables(self, job: Job, python: str, scratch: Path) -> dict[str, str]:
        passed = {name: os.environ[name] for name in _DOWNLOADS if name in os.environ} if self._network else {}
        path = f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin"
        # Compilers write where a source lay into what they make: as if it were where containers have it.
        mapped = f"-ffile-prefix-map={scratch}=/flowkiln-build"
        passed |= {"CFLAGS": mapped, "CXXFLAGS": mapped}
        folders = {"HOME": str(scratch / "home"), "TMPDIR": str(scratch / "tmp"), "PATH": path}
        return {**passed, **variables_of(job), **folders}


SWITCHES = ("-s", "-P", "-B")
"""Switches of the Python that builds: nothing of the user's, nothing of the current folder."""


def request_of(job: Job, root: str, answer: str, seconds: float) -> Mapping[str, object]:
    """What ``build_wheel`` is asked, with the folders as the build sees them."""
    return {
        "root": root,
        "backend": job.system.backend,
        "backend_path": list(job.system.backend_path),
        "known": list(job.known),
        "seconds": int(seconds) + 30,
        "answer": answer,
    }


def variables_of(job: Job) -> dict[str, str]:
    """What makes builds alike, for every build: no time, no hash seed, no locale but these."""
    return {
        "SOURCE_DATE_EPOCH": "315532800",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **job.variables,
    }


def written_log(log: Path, said: str) -> Path | None:
    """``log``, which holds all that was said, None where it cannot be written."""
    try:
        files.write_atomic(log, redact.text(said).encode(), mode=0o600)
    except Exception:  # noqa: BLE001  a log that cannot be written is no reason for another error
        return None
    return log


def failed(job: Job, code: int, said: str, log: Path | None) -> BuildFailed:
    """The error of a build that ended with ``code``."""
    message = f"{job.label}: its build failed (exit code {code})" + _tail(said)
    return BuildFailed(message, log=str(log) if log else None, hint=_hint(said))


def too_long(job: Job, seconds: float, said: str, log: Path | None) -> BuildTimeout:
    """The error of a build that did not end."""
    message = f"{job.label}: its build was not done after {seconds:.0f} s and was ended" + _tail(said)
    hint = "Give it longer with the setting build.timeout, in seconds."
    return BuildTimeout(message, log=str(log) if log else None, hint=hint)


def _tail(said: str) -> str:
    lines = [line.rstrip() for line in redact.text(said).splitlines() if line.strip()][-LINES:]
    return ":\n" + "\n".join(lines) if lines else ", and it said nothing"


def _hint(said: str) -> str:
    if any(text in said for text in ("Temporary failure in name resolution", "Name or service not known")):
        return "Builds have no network. The setting build.network = true gives it to them."
    if _LACKING.search(said):
        return "The setting build.image names the image that wheels are built in: one that has what is missing."
    return "The log has all that the build said. A newer version of the package may have a wheel."
