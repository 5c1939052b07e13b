"""What lies in each layer: from the plan and the description of the environment to the members of an archive.

A package layer also holds the description of its own files, ``.flowkiln/parts/<key>.json``, so that the whole is
described without a file that every change of a package would move: all parts together are what ``tree_digest`` is
the identity of.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flowkiln._base import json, relocate
from flowkiln.envs import glue, treefile
from flowkiln.images import archive, places
from flowkiln.images.bytecode import pyc_path
from flowkiln.images.compile_files import of_stdlib
from flowkiln.images.errors import ContentDamaged
from flowkiln.images.plan import python_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowkiln.envs.describing import Described
    from flowkiln.envs.installer import Entry, Launcher
    from flowkiln.images.archive import Member
    from flowkiln.images.bytecode import Compiler
    from flowkiln.images.layers import LayerSpec
    from flowkiln.images.plan import ImagePlan

PART_SCHEMA = 1
_PREFIX = places.PREFIX.lstrip("/")


_COMPILING = 10
"""How much longer a byte of source takes to compile than a byte of any file takes to pack."""
_STDLIB = 200_000_000
"""The effort of a standard library: its sources are found by reading all of the base."""


class Packages(Protocol):
    """Where the files of described packages lie."""

    def stored(self, sha256: str, path: str) -> str:
        """The path on disk of a stored file of a wheel."""


def package_members(layer: LayerSpec, described: Described, packages: Packages) -> list[Member]:
    """The files of the packages of ``layer`` below the prefix, with the description of these files."""
    rows: list[list[json.JSONValue]] = []
    members: dict[str, Member] = {}
    for entry, sha256 in _entries(layer, described):
        path = f"{_PREFIX}/{entry.path}"
        if path in members:  # equal files of two packages of one bucket
            continue
        members[path], row = _member(path, entry, sha256, packages)
        rows.append(row)
    name = f"{_PREFIX}/{treefile.FOLDER}/parts/{layer.key.removeprefix('sha256:')[:32]}.json"
    description = json.canonical({"schema": PART_SCHEMA, "files": sorted(rows)})
    return archive.complete([*members.values(), archive.made(name, description)])


def effort(layer: LayerSpec, described: Described | None) -> int:
    """About how long the layer takes to make, in bytes that are packed; only the order of work depends on it."""
    if layer.kind == "stdlib-bytecode":
        return _STDLIB
    if described is None or layer.kind not in ("packages", "bytecode"):
        return 0
    entries = [one for wheel in layer.wheels for one in described.packages[wheel.sha256].entries]
    if layer.kind == "packages":
        return sum(one.size for one in entries)
    return _COMPILING * sum(one.size for one in entries if one.path.endswith(".py"))


def _entries(layer: LayerSpec, described: Described) -> Iterable[tuple[Entry, str]]:
    """The entries of the layer's packages, without files that lose their path to another distribution."""
    launchers = {launcher.path for launcher, _ in described.tree.launchers}
    for wheel in layer.wheels:
        for entry in described.packages[wheel.sha256].entries:
            if entry.path not in launchers and layer.gives(wheel, entry.path):
                yield entry, wheel.sha256


def _member(path: str, entry: Entry, sha256: str, packages: Packages) -> tuple[Member, list[json.JSONValue]]:
    """A file of a package with its row: path, mode, sha256 as stored, size; where it was rewritten also how."""
    row: list[json.JSONValue] = [entry.path, entry.mode, entry.sha256, entry.size]
    if isinstance(entry.source, bytes):
        if entry.is_link:
            return archive.link(path, entry.source.decode()), row
        return archive.made(path, entry.source, entry.mode), row
    source = packages.stored(sha256, entry.source)
    if entry.relocation is None:
        return archive.Member(path, "file", entry.mode, entry.size, source, entry.sha256), row
    placeholder, kind = entry.relocation
    data, offsets = relocate.written(checked(source, entry.sha256), placeholder, places.PREFIX, kind)
    row[3] = len(data)
    return archive.made(path, data, entry.mode), [*row, kind, placeholder, [*map(list, offsets)]]


def bytecode_members(
    layer: LayerSpec, described: Described, packages: Packages, compiler: Compiler, python: str
) -> list[Member]:
    """The bytecode of the packages of ``layer``, compiled in one go: how files are grouped does not move them."""
    sources: dict[str, bytes] = {}
    for wheel in layer.wheels:
        for entry in described.packages[wheel.sha256].entries:
            if _imported(entry, python) and layer.gives(wheel, entry.path):
                sources.setdefault(f"{places.PREFIX}/{entry.path}", _source(entry, wheel.sha256, packages))
    members = compiled(compiler, list(sources.items()), python)
    return archive.complete(members) if members else []


def _imported(entry: Entry, python: str) -> bool:
    """Whether a file gets bytecode: a module of a package, or of the standard library that a package brings."""
    if not entry.path.endswith(".py") or entry.is_link:
        return False
    stdlib = f"lib/python{python}/"
    return "/site-packages/" in entry.path or (
        entry.path.startswith(stdlib) and of_stdlib(entry.path.removeprefix(stdlib))
    )


def _source(entry: Entry, sha256: str, packages: Packages) -> bytes:
    """The content of a file as it lies in the image."""
    if isinstance(entry.source, bytes):
        return entry.source
    data = checked(packages.stored(sha256, entry.source), entry.sha256)
    if entry.relocation is None:
        return data
    placeholder, kind = entry.relocation
    return relocate.written(data, placeholder, places.PREFIX, kind)[0]


def checked(path: str, sha256: str) -> bytes:
    """The content of a stored file. Raises ``ContentDamaged`` unless it is what was unpacked."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ContentDamaged(path) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ContentDamaged(path)
    return data


def compiled(compiler: Compiler, sources: Sequence[tuple[str, bytes]], python: str) -> list[Member]:
    """The bytecode of ``sources``, (final path, content), where ``pycache_prefix`` looks."""
    if not sources:
        return []
    made = compiler.compile(sorted(sources, key=lambda one: one[0]))
    tag = f"cpython-{python.replace('.', '')}"
    return [
        archive.made(f"{places.BYTECODE}{pyc_path(path, tag)}".lstrip("/"), data)
        for path, data in sorted(made.items())
    ]


def runtime_members(runtime_id: str, files: Mapping[str, bytes]) -> list[Member]:
    """flowkiln's own part: ``files`` are its files by path below the runtime's folder."""
    root = places.runtime(runtime_id).lstrip("/")
    return archive.complete(archive.made(f"{root}/{path}", data) for path, data in files.items())


def runtime_sources(runtime_id: str, files: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """The Python files of the runtime with the paths that they have in the image."""
    root = places.runtime(runtime_id)
    return [(f"{root}/{path}", data) for path, data in files.items() if path.endswith(".py")]


def glue_members(plan: ImagePlan, described: Described, packages: Packages) -> list[Member]:
    """Launchers, ``pyvenv.cfg``, interpreter links, and the marker that says which environment this is."""

    def reader(launcher: Launcher, sha256: str) -> Callable[[], bytes]:
        told = described.scripts.get((sha256, launcher.stored))
        if told is not None:
            return lambda: told
        return lambda: checked(packages.stored(sha256, launcher.stored), launcher.sha256)

    interpreter, version = python_of(plan.part, plan.base)
    launchers = [(one, reader(one, sha256)) for one, sha256 in described.tree.launchers]
    glued = glue.all_of(places.PREFIX, interpreter, version, launchers)
    members = [_glued(one) for one in glued]
    description = treefile.Description(
        env_id=plan.part.env_id,
        tree_digest=described.tree.tree_digest,
        platform=str(plan.part.platform),
        version=version,
        interpreter=interpreter,
        prefix=places.PREFIX,
        wheels=tuple(sorted(one.sha256 for one in plan.part.packages)),
        glue=treefile.glue_rows(glued),
    )
    marker = f"{_PREFIX}/{treefile.FOLDER}/tree.json"
    return archive.complete([*members, archive.made(marker, description.to_bytes())])


def _glued(one: glue.Glue) -> Member:
    path = f"{_PREFIX}/{one.path}"
    return archive.link(path, one.target) if one.target else archive.made(path, one.data, one.mode)
