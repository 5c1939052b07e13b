"""Conda packages made from a description, from a wheel, or from Debian's interpreter.

Each function writes ``FOLDER/SUBDIR/NAME-VERSION-BUILD.conda`` (or ``.tar.bz2``) and returns that path, so that
the folder of a :class:`tests.services.channel.Channel` can be given::

    package(channel.folder, "demo", "1.0", files={"lib/demo.txt": b"prefix=" + PLACEHOLDER.encode()},
            prefix_files={"lib/demo.txt": ("text", PLACEHOLDER)})
    channel.index()
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.services.condaarchive import Format, Link, Member, packed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

Noarch = Literal["python", "generic"]
FileMode = Literal["text", "binary"]

PLACEHOLDER = ("/flowkiln/made/by/tests/_prefix" + "_placehold" * 25)[:255]
"""The prefix that made packages were built for, of the usual length: a real prefix is never longer."""

TIMESTAMP = 1_704_067_200_000
"""When a package says that it was built, in milliseconds, unless told: the beginning of 2024."""

_ARCHITECTURES = {"64": "x86_64", "32": "x86", "aarch64": "aarch64", "arm64": "arm64", "ppc64le": "ppc64le"}


@dataclass(frozen=True)
class _Layout:
    """The members of one package and what ``info/`` says of them."""

    members: Sequence[Member]
    prefix_files: Mapping[str, tuple[FileMode, str]]
    no_link: Collection[str]

    def info(self, *, legacy: bool) -> dict[str, bytes]:
        listed = [member for member in self.members if member.listed]
        files = {"files": _lines(member.name for member in listed)}
        if not legacy:
            files["paths.json"] = _json({"paths": [self._entry(one) for one in listed], "paths_version": 1})
            return files
        if self.prefix_files:
            files["has_prefix"] = _lines(
                f'"{old}" {mode} "{path}"' for path, (mode, old) in self.prefix_files.items()
            )
        if self.no_link:
            files["no_link"] = _lines(self.no_link)
        return files

    def _entry(self, member: Member) -> dict[str, object]:
        soft = isinstance(member.data, Link) and not member.data.hard
        data = self._followed(member)
        entry: dict[str, object] = {
            "_path": member.name,
            "path_type": "softlink" if soft else "hardlink",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        if member.name in self.prefix_files:
            entry["file_mode"], entry["prefix_placeholder"] = self.prefix_files[member.name]
        if member.name in self.no_link:
            entry["no_link"] = True
        return entry

    def _followed(self, member: Member) -> bytes:
        """The contents that a path shows: a link's are those of its target, none if that is not in here."""
        by_name = {one.name: one for one in self.members}
        for _ in range(8):
            if not isinstance(member.data, Link):
                return member.data
            near = "" if member.data.hard else posixpath.dirname(member.name)
            target = posixpath.normpath(posixpath.join(near, member.data.target))
            if target not in by_name:
                return b""
            member = by_name[target]
        return b""


def package(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    build: str = "0",
    build_number: int = 0,
    subdir: str = "noarch",
    depends: Iterable[str] = (),
    constrains: Iterable[str] = (),
    files: Mapping[str, bytes | Link] | None = None,
    executable: Collection[str] = (),
    prefix_files: Mapping[str, tuple[FileMode, str]] | None = None,
    no_link: Collection[str] = (),
    noarch: Noarch | None = None,
    entry_points: Iterable[str] = (),
    members: Sequence[Member] = (),
    paths: Mapping[str, object] | None = None,
    index: Mapping[str, object] | None = None,
    format: Format = "conda",  # noqa: A002 - the word that conda uses
    legacy: bool = False,
    timestamp: int | None = TIMESTAMP,
    license: str = "MIT",  # noqa: A002 - the key in index.json
) -> Path:
    """The path of a package file.

    In ``noarch`` it is generic unless ``noarch="python"``: then files are below ``site-packages/`` and
    ``python-scripts/`` and ``entry_points`` are lines such as ``demo = demo.cli:main``. Scripts are files
    (``bin/.demo-post-link.sh``, ``executable``). ``members`` go in after the files, unchecked. ``paths``
    replaces ``info/paths.json``; ``index`` adds to ``info/index.json`` (None leaves a key out). ``legacy``
    writes ``info/has_prefix`` and ``info/no_link`` in place of ``info/paths.json``, as old packages have.
    """
    kind = noarch or ("generic" if subdir == "noarch" else None)
    contents = [
        Member(path, data, 0o775 if path in executable else 0o664) for path, data in sorted((files or {}).items())
    ]
    layout = _Layout([*contents, *members], prefix_files or {}, no_link)
    info = layout.info(legacy=legacy)
    if paths is not None:
        info["paths.json"] = _json(paths)
    document = _index(name, version, build, build_number, subdir, kind, timestamp, license)
    document |= {"depends": list(depends), "constrains": list(constrains), **(index or {})}
    info["index.json"] = _json({key: value for key, value in sorted(document.items()) if value is not None})
    info["about.json"] = _json({"license": license, "summary": f"{name}, made by the tests"})
    if kind is not None:
        info["link.json"] = _json(_link_json(kind, entry_points))
    stem = f"{name}-{version}-{build}"
    return _written(folder / subdir / f"{stem}.{format}", packed(stem, layout.members, info, format))


def _index(
    name: str,
    version: str,
    build: str,
    build_number: int,
    subdir: str,
    noarch: Noarch | None,
    timestamp: int | None,
    license_: str,
) -> dict[str, object]:
    system, _, architecture = subdir.partition("-")
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": build_number,
        "subdir": subdir,
        "noarch": noarch,
        "platform": system if architecture else None,
        "arch": _ARCHITECTURES.get(architecture),
        "license": license_,
        "timestamp": timestamp,
    }


def _link_json(kind: Noarch, entry_points: Iterable[str]) -> dict[str, object]:
    noarch: dict[str, object] = {"type": kind}
    if kind == "python":
        noarch["entry_points"] = list(entry_points)
    return {"noarch": noarch, "package_metadata_version": 1}


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{os.getpid()}-{path.name}.new")
    scratch.write_bytes(data)
    return scratch.replace(path)  # what was there may be linked to another channel's file


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
