"""A factory of wheels and sdists: any name, version, tag, content and metadata, good or deliberately broken.

Everything is made in memory and deterministic: equal arguments give equal bytes.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

RecordFault = Literal["good", "missing", "wrong-hash", "wrong-size", "omits", "ghost", "no-hash", "malformed"]
"""How RECORD lies: absent, a wrong hash or size for the first file, the first file left out, a file that is
not there, a row without a hash, or rows that are not CSV triples."""

_EPOCH = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True)
class Distribution:
    """A wheel or sdist as bytes; ``metadata`` is its METADATA file (PKG-INFO for an sdist)."""

    name: str
    version: str
    filename: str
    data: bytes
    metadata: bytes
    requires_python: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self.data)

    def write(self, folder: Path) -> Path:
        """Writes the file into ``folder``, made if missing, in one go: others may read it; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.filename
        scratch = folder / f".{os.getpid()}-{self.filename}"
        scratch.write_bytes(self.data)
        return scratch.replace(path)


@dataclass(frozen=True)
class Member:
    """A member put into the archive as told: any name, mode, a link's target as data, duplicates included.

    It appears in RECORD unless ``recorded`` is False.
    """

    name: str
    data: bytes = b""
    mode: int = 0o100644
    recorded: bool = True


def link(name: str, target: str) -> Member:
    """A symbolic link inside the archive."""
    return Member(name, target.encode(), stat.S_IFLNK | 0o777)


def escaping(name: str = "evil", version: str = "1.0", path: str = "../../escaped.txt") -> Distribution:
    """A wheel with a member whose path leaves the folder that it is unpacked into."""
    return wheel(name, version, members=[Member(path, b"out of bounds\n")])


def wheel(
    name: str,
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    build: str | None = None,
    files: Mapping[str, bytes | str] | None = None,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    extras: Mapping[str, Sequence[str]] | None = None,
    console: Mapping[str, str] | None = None,
    entry_points: str | None = None,
    executable: Iterable[str] = (),
    purelib: bool | None = None,
    record: RecordFault = "good",
    members: Sequence[Member] = (),
    metadata: bytes | None = None,
    wheel_file: bytes | None = None,
) -> Distribution:
    """A wheel. Without ``files`` it holds one module named after it with ``__version__``.

    ``tag`` may compress (``cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64``). ``files`` may hold a
    ``NAME-VERSION.data/`` folder; :func:`data_folder` gives its name. ``executable`` names files of mode
    0755. ``members`` go in after the files, unchecked. ``metadata`` and ``wheel_file`` replace those files.
    """
    module = escape(name).lower()
    info = f"{escape(name)}-{escape_version(version)}.dist-info"
    meta = metadata if metadata is not None else _metadata(name, version, requires, requires_python, extras or {})
    body = {
        path: _bytes(content)
        for path, content in (files if files is not None else _module(module, version)).items()
    }
    body[f"{info}/METADATA"] = meta
    pure = tag.endswith("-any") if purelib is None else purelib
    body[f"{info}/WHEEL"] = wheel_file if wheel_file is not None else _wheel_file(tag, build, pure=pure)
    points = _entry_points(console or {}) + (entry_points or "")
    if points:
        body[f"{info}/entry_points.txt"] = points.encode()
    runnable = frozenset(executable)
    contents = [Member(path, data, 0o100755 if path in runnable else 0o100644) for path, data in body.items()]
    contents += members
    if record != "missing":
        contents.append(Member(f"{info}/RECORD", _record(contents, f"{info}/RECORD", record)))
    return Distribution(
        name=name,
        version=version,
        filename=f"{escape(name)}-{escape_version(version)}{'-' + build if build else ''}-{tag}.whl",
        data=_archive(contents),
        metadata=meta,
        requires_python=requires_python,
    )


def sdist(
    name: str, version: str = "1.0", *, requires: Iterable[str] = (), requires_python: str | None = None
) -> Distribution:
    """A source distribution that fails loudly when anybody builds it."""
    folder = f"{escape(name).lower()}-{version}"
    metadata = _metadata(name, version, requires, requires_python, {})
    sources = {
        "PKG-INFO": metadata,
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": b'raise SystemExit("this sdist must never be built")\n',
    }
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, content in sources.items():
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return Distribution(name, version, f"{folder}.tar.gz", raw.getvalue(), metadata, requires_python)


def understated(original: Distribution, member: str, declared: int) -> Distribution:
    """``original`` with ``member``'s unpacked size declared as ``declared`` bytes in both zip headers."""
    data = bytearray(original.data)
    name = member.encode()
    for signature, size_at, name_at in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = data.find(signature)
        while at >= 0:
            if data[at + name_at : at + name_at + len(name)] == name:
                struct.pack_into("<I", data, at + size_at, declared)
            at = data.find(signature, at + 4)
    return Distribution(
        original.name,
        original.version,
        original.filename,
        bytes(data),
        original.metadata,
        original.requires_python,
    )


def data_folder(name: str, version: str = "1.0") -> str:
    """The name of the ``.data`` folder of such a wheel."""
    return f"{escape(name)}-{escape_version(version)}.data"


def normalise(name: str) -> str:
    """``name`` as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def escape(name: str) -> str:
    """``name`` as file names of wheels spell it; letter case is kept, as older build tools did."""
    return re.sub(r"[-_.]+", "_", name)


def escape_version(version: str) -> str:
    """``version`` as file names of wheels spell it."""
    return version.replace("-", "_")


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _module(module: str, version: str) -> dict[str, str]:
    return {f"{module}/__init__.py": f'"""A made package."""\n\n__version__ = "{version}"\n'}


def _metadata(
    name: str,
    version: str,
    requires: Iterable[str],
    requires_python: str | None,
    extras: Mapping[str, Sequence[str]],
) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Summary: made by the tests"]
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    for extra, wanted in extras.items():
        lines.append(f"Provides-Extra: {extra}")
        for requirement in wanted:
            base, _, marker = requirement.partition(";")
            condition = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {base.strip()} ; {condition}")
    return ("\n".join(lines) + "\n").encode()


def _wheel_file(tag: str, build: str | None, *, pure: bool) -> bytes:
    interpreters, abis, platforms = tag.split("-")
    lines = ["Wheel-Version: 1.0", "Generator: flowkiln-tests", f"Root-Is-Purelib: {str(pure).lower()}"]
    lines += [
        f"Tag: {interpreter}-{abi}-{platform}"
        for interpreter in interpreters.split(".")
        for abi in abis.split(".")
        for platform in platforms.split(".")
    ]
    if build:
        lines.append(f"Build: {build}")
    return ("\n".join(lines) + "\n").encode()


def _entry_points(console: Mapping[str, str]) -> str:
    if not console:
        return ""
    return "[console_scripts]\n" + "".join(f"{command} = {target}\n" for command, target in console.items())


def _record(contents: Sequence[Member], own: str, fault: RecordFault) -> bytes:
    if fault == "malformed":
        return b'one\ntwo,"sha256\n'
    rows: list[tuple[str, str, str]] = []
    for member in contents:
        if member.recorded:
            digest = base64.urlsafe_b64encode(hashlib.sha256(member.data).digest()).rstrip(b"=").decode()
            rows.append((member.name, f"sha256={digest}", str(len(member.data))))
    name, digest, size = rows[0]
    wrong = base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode()
    changed: dict[str, list[tuple[str, str, str]]] = {
        "wrong-hash": [(name, f"sha256={wrong}", size)],
        "wrong-size": [(name, digest, str(int(size) + 1))],
        "no-hash": [(name, "", "")],
        "omits": [],
        "ghost": [rows[0], ("ghost/__init__.py", f"sha256={wrong}", "0")],
    }
    rows[0:1] = changed.get(fault, [rows[0]])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*rows, (own, "", "")])
    return text.getvalue().encode()


def _archive(contents: Sequence[Member]) -> bytes:
    raw = io.BytesIO()
    seen: set[str] = set()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in contents:
            entry = zipfile.ZipInfo(member.name, _EPOCH)
            entry.external_attr = member.mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            if member.name in seen:
                archive.NameToInfo.pop(member.name)  # a second member of that name is meant: no warning
            seen.add(member.name)
            archive.writestr(entry, member.data)
    return raw.getvalue()
