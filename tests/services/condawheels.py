"""Conda packages out of wheels, laid out as conda-build leaves what pip installed."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass, field
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.services.condapackages import PLACEHOLDER, TIMESTAMP, package

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from packaging.tags import Tag

    from tests.services.wheels import Distribution

_MARKERS = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "platform_release": "",
    "platform_version": "",
    "extra": "",
}
_MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}


def from_wheel(
    folder: Path,
    wheel: Path | Distribution,
    *,
    subdir: str = "linux-64",
    conda_name: str | None = None,
    depends: Sequence[str] | None = None,
    noarch: bool | None = None,
    python: str = "3.11",
    names: Mapping[str, str] | None = None,
    build_number: int = 0,
    timestamp: int = TIMESTAMP,
) -> Path:
    """The path of a conda package with what ``wheel`` installs.

    A pure wheel becomes a ``noarch: python`` package unless ``noarch`` is False; others are for ``subdir`` and
    ``python``. ``depends`` replaces what the wheel's own requirements say; ``names`` are conda's names of
    distributions where they differ.
    """
    project, version, _, tags = parse_wheel_filename(wheel.name if isinstance(wheel, Path) else wheel.filename)
    pure = all(tag.platform == "any" for tag in tags) if noarch is None else noarch
    laid = _Laid("site-packages" if pure else f"lib/python{python}/site-packages", pure, python)
    metadata = laid.take(wheel if isinstance(wheel, Path) else io.BytesIO(wheel.data))
    wanted = _required(metadata, subdir, python, names or {}) if depends is None else list(depends)
    wanted = sorted({*wanted, *_python_of(metadata, pure), *_needed(tags, pure, python)})
    mark = hashlib.sha256(" ".join([*wanted, *([] if pure else [subdir])]).encode()).hexdigest()[:7]
    return package(
        folder,
        conda_name or (names or {}).get(project, project),
        str(version),
        build=f"{'pyh' if pure else 'py' + python.replace('.', '') + 'h'}{mark}_{build_number}",
        build_number=build_number,
        subdir="noarch" if pure else subdir,
        depends=wanted,
        files=laid.files,
        executable=laid.executable,
        prefix_files=dict.fromkeys(laid.scripts, ("text", PLACEHOLDER)),
        noarch="python" if pure else None,
        entry_points=[f"{name} = {target}" for name, target in laid.points.items()] if pure else (),
        timestamp=timestamp,
    )


@dataclass
class _Laid:
    """Where the files of a wheel go."""

    site: str
    pure: bool
    python: str
    files: dict[str, bytes] = field(default_factory=dict)
    executable: set[str] = field(default_factory=set)
    scripts: list[str] = field(default_factory=list)
    points: dict[str, str] = field(default_factory=dict)

    @property
    def _bin(self) -> str:
        return "python-scripts" if self.pure else "bin"

    def take(self, wheel: Path | io.BytesIO) -> bytes:
        """METADATA of ``wheel``, whose files are placed."""
        with zipfile.ZipFile(wheel) as archive:
            info = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA")).partition("/")[0]
            for entry in archive.infolist():
                if not entry.is_dir() and entry.filename != f"{info}/RECORD":
                    path = self._place(entry.filename)
                    data = archive.read(entry)
                    if path.startswith(f"{self._bin}/"):
                        self._script(path, re.sub(rb"\A#!pythonw?", _shebang(), data))
                    else:
                        self.files[path] = data
                        if entry.external_attr >> 16 & 0o111:
                            self.executable.add(path)
            metadata = archive.read(f"{info}/METADATA")
        self._entry_points(self.files.get(f"{self.site}/{info}/entry_points.txt", b"").decode())
        self.files[f"{self.site}/{info}/INSTALLER"] = b"conda\n"
        self.files[f"{self.site}/{info}/REQUESTED"] = b""
        self.files[f"{self.site}/{info}/RECORD"] = self._record(f"{self.site}/{info}/RECORD")
        return metadata

    def _place(self, name: str) -> str:
        top, _, below = name.partition("/")
        if not top.endswith(".data"):
            return f"{self.site}/{name}"
        scheme, _, rest = below.partition("/")
        project = top.partition("-")[0]
        base = {
            "purelib": self.site,
            "platlib": self.site,
            "scripts": self._bin,
            "headers": f"include/python{self.python}/{project}",
            "data": "",
        }[scheme]
        return f"{base}/{rest}".lstrip("/")

    def _script(self, path: str, data: bytes) -> None:
        self.files[path] = data
        self.executable.add(path)
        if PLACEHOLDER.encode() in data:
            self.scripts.append(path)

    def _entry_points(self, text: str) -> None:
        parser = _Points(delimiters=("=",), interpolation=None)
        parser.read_string(text)
        for section in ("console_scripts", "gui_scripts"):
            for name, target in parser.items(section) if parser.has_section(section) else ():
                self.points[name] = target.partition("[")[0].strip()
        if not self.pure:
            for name, target in self.points.items():
                self._script(f"bin/{name}", _started(target))

    def _record(self, own: str) -> bytes:
        """RECORD as pip wrote it where the package was built: seen from ``lib/pythonX.Y/site-packages``."""
        rows = {self._seen_from_site(own): ("", "")}
        if self.pure:  # the installer makes these programs; nobody knows their hashes yet
            rows |= {f"../../../bin/{name}": ("", "") for name in self.points}
        for path, data in self.files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows[self._seen_from_site(path)] = (f"sha256={digest}", str(len(data)))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows((name, *row) for name, row in sorted(rows.items()))
        return text.getvalue().encode()

    def _seen_from_site(self, path: str) -> str:
        if path.startswith(f"{self.site}/"):
            return path.removeprefix(f"{self.site}/")
        return "../../../" + (f"bin{path.removeprefix(self._bin)}" if path.startswith(f"{self._bin}/") else path)


class _Points(configparser.ConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr  # letter case counts


def _shebang() -> bytes:
    return f"#!{PLACEHOLDER}/bin/python".encode()


def _started(target: str) -> bytes:
    module, _, function = target.partition(":")
    first = function.partition(".")[0]
    lines = [_shebang().decode(), "import sys", f"from {module} import {first}", f"sys.exit({function}())"]
    return ("\n".join(lines) + "\n").encode()


def _required(metadata: bytes, subdir: str, python: str, names: Mapping[str, str]) -> list[str]:
    """What Requires-Dist says, in conda's words, for no extra."""
    environment = {
        **_MARKERS,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "platform_machine": _MACHINES.get(subdir, ""),
    }
    wanted = []
    for line in BytesParser().parsebytes(metadata).get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = str(canonicalize_name(requirement.name))
            wanted.append(f"{names.get(name, name)} {_spec(str(requirement.specifier))}".strip())
    return wanted


def _spec(specifier: str) -> str:
    """A version specifier in conda's words, lower bounds first: the order in a set of them says nothing."""
    parts = re.sub(r"==([^,]*\*)", r"\1", specifier.replace(" ", "")).split(",")
    order = (">", "=", "~", "", "<", "!")
    return ",".join(sorted(parts, key=lambda one: (order.index(one[:1] if one[:1] in order else ""), one)))


def _python_of(metadata: bytes, pure: bool) -> Iterable[str]:
    asked = BytesParser().parsebytes(metadata).get("Requires-Python")
    return [f"python {_spec(asked)}" if asked else "python"] if pure else []


def _needed(tags: Iterable[Tag], pure: bool, python: str) -> list[str]:
    """What the wheel's tags ask of interpreter and C library."""
    if pure:
        return []
    major, minor = python.split(".")
    found = [f"python >={python},<{major}.{int(minor) + 1}.0a0"]
    if any(tag.abi.startswith("cp") for tag in tags):
        found.append(f"python_abi {python}.* *_cp{major}{minor}")
    known = {match[1] for tag in tags if (match := re.match(r"manylinux_2_(\d+)_", tag.platform))}
    if known:
        found.append(f"__glibc >=2.{min(known, key=int)}")
    return found
