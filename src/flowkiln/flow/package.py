"""The code of a flow as one content-addressed package: the folder of the flow file, deterministic to the byte.

A package is an uncompressed tar archive, so that its digest depends on nothing but the files.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast

from flowkiln._base.files import put_folder, scratch_folder
from flowkiln._base.paths import cache_root
from flowkiln.envs.directerrors import CodeCollides
from flowkiln.flow.errors import CodeTooLarge
from flowkiln.store.errors import BlobDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flowkiln.store.interfaces import Blobs, BlobWriter

SUFFIXES = (".py", ".R", ".RDS")
SIZE_LIMIT = 100 * 1024 * 1024
"""Bytes of a package above which something is probably in it that is no code."""
COUNT_LIMIT = 20_000
_SHOWN = 10


def files_of(flow_file: Path, suffixes: Sequence[str] = ()) -> Iterator[tuple[str, Path, int]]:
    """The files of a flow's package as (path inside, path, size in bytes), sorted; the flow file is always one.

    Below the flow file's folder, those with one of ``SUFFIXES`` or ``suffixes``. Left out: hidden folders, lock
    folders, virtual environments, flowkiln's cache, folders of bytecode, and whatever a link leads back to.
    """
    wanted = (*SUFFIXES, *(suffix if suffix.startswith(".") else f".{suffix}" for suffix in suffixes))
    flow_file = flow_file.absolute()
    yield from _walk(flow_file.parent, "", wanted, flow_file.name, ())


def snapshot(
    flow_file: Path,
    blobs: Blobs,
    suffixes: Sequence[str] = (),
    *,
    limit: int = SIZE_LIMIT,
    beside: Mapping[str, tuple[Path, int]] | None = None,
) -> str:
    """Stores the package of a flow and returns its sha256 in hex: equal for equal files.

    ``beside`` are files from elsewhere that come to lie beside the flow file, with their sizes. Raises
    ``CodeCollides`` where a name is taken already, and ``CodeTooLarge`` above ``limit`` bytes.
    """
    found = []
    for one in files_of(flow_file, suffixes):
        found.append(one)
        if len(found) > COUNT_LIMIT:
            raise _too_many(flow_file)
    if beside:
        _check_names(found, beside)
        found = sorted([*found, *((inside, path, size) for inside, (path, size) in beside.items())])
    if sum(size for _, _, size in found) > limit:
        raise _too_large(flow_file, found, limit)
    with blobs.put_stream() as stream:
        _pack(found, stream)
    return stream.sha256


def unpack(digest: str, blobs: Blobs, cache: Path) -> Path:
    """The folder below ``cache`` that holds the package ``digest``, made once and safe to ask for at the same time.

    Its files are packed again to see that they are what they were, and unpacked anew where they are not. Raises
    ``BlobMissing`` and ``BlobDamaged``.
    """
    target = cache / digest

    def sound(folder: Path) -> bool:
        return _digest(folder) == digest

    if sound(target):
        with suppress(OSError):
            os.utime(target)  # used now, for garbage collection
        return target
    data = blobs.read(digest)
    with scratch_folder(cache) as scratch:
        _extract(data, scratch)
        put_folder(scratch, target, sound)
    return target


def is_unpacked(digest: str, folder: Path) -> bool:
    """Whether ``folder`` holds the package ``digest`` unchanged; bytecode beside its files is no change."""
    return _digest(folder) == digest


def members(digest: str, blobs: Blobs) -> list[str]:
    """The paths inside a stored package, sorted."""
    with _opened(blobs.read(digest)) as archive:
        return sorted(archive.getnames())


class _Hash:
    """A stream that keeps nothing but the sha256 of what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


def _digest(folder: Path) -> str | None:
    """The digest of the package that ``folder`` was unpacked from, if it still holds that and nothing else."""
    stream = _Hash()
    try:
        _pack(_walk(folder, "", ("",), "", ()), stream)
    except OSError:
        return None
    return stream.digest.hexdigest()


def _pack(files: Iterable[tuple[str, Path, int]], stream: BlobWriter | _Hash) -> None:
    writable = cast("IO[bytes]", stream)  # a tar stream asks for nothing but ``write``
    with tarfile.open(fileobj=writable, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for inside, path, _ in files:
            data = path.read_bytes()
            member = tarfile.TarInfo(inside)
            member.size = len(data)
            member.mode = 0o755 if os.access(path, os.X_OK) else 0o644
            archive.addfile(member, io.BytesIO(data))


def _extract(data: bytes, folder: Path) -> None:
    with _opened(data) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or path.is_absolute() or ".." in path.parts:
                message = f"the code package holds {member.name!r}, which is no plain file inside of it"
                raise BlobDamaged(message, hint="`flowkiln store check` lists all damage.")
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.read())
            place.chmod(0o755 if member.mode & 0o100 else 0o644)


def _opened(data: bytes) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=io.BytesIO(data), mode="r:")
    except tarfile.TarError as error:
        message = f"the code package is damaged: {error}"
        raise BlobDamaged(message, hint="`flowkiln store check` lists all damage.") from error


def _walk(
    folder: Path, inside: str, suffixes: tuple[str, ...], flow_file: str, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, Path, int]]:
    try:
        own = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return  # a folder that cannot be read holds no code that could run
    here = (own.st_dev, own.st_ino)
    if here in above:
        return
    for entry in entries:
        name = f"{inside}{entry.name}"
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue  # a link that leads nowhere
        if stat.S_ISDIR(mode):
            if not _skipped(entry):
                yield from _walk(folder / entry.name, f"{name}/", suffixes, "", (*above, here))
        elif stat.S_ISREG(mode) and (entry.name.endswith(suffixes) or entry.name == flow_file):
            yield name, folder / entry.name, entry.stat().st_size


def _skipped(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.endswith(".locks") or entry.name == "__pycache__":
        return True
    return Path(entry.path, "pyvenv.cfg").is_file() or Path(entry.path).absolute() == cache_root()


def _check_names(found: Sequence[tuple[str, Path, int]], beside: Mapping[str, tuple[Path, int]]) -> None:
    """Raises ``CodeCollides`` where a file, or a name that steps import, is there on both sides."""
    own = {name: path for inside, path, _ in found for name in (inside, _imported(inside)) if name}
    for inside, (path, _) in sorted(beside.items()):
        other = own.get(inside) or own.get(_imported(inside) or inside)
        if other is not None and other != path:
            message = f"{path} is to travel as code, and {other} beside the flow has the same name"
            raise CodeCollides(message, data={"paths": [str(path), str(other)]})


def _imported(inside: str) -> str | None:
    """What steps import a file at the top by, or a package's first file; None for other files."""
    name = inside.removesuffix("/__init__.py") if inside.endswith("/__init__.py") else inside.removesuffix(".py")
    return f"import {name}" if name != inside and "/" not in name else None


def _too_large(flow_file: Path, found: list[tuple[str, Path, int]], limit: int) -> CodeTooLarge:
    total = sum(size for _, _, size in found)
    largest = heapq.nlargest(_SHOWN, found, key=lambda one: one[2])
    lines = [
        f"the code of {flow_file} is {_megabytes(total)}, above the limit of {_megabytes(limit)}; largest files:"
    ]
    lines += [f"  {_megabytes(size):>10}  {inside}" for inside, _, size in largest]
    hint = "Move what is no code out of this folder, or narrow --package-suffixes."
    return CodeTooLarge("\n".join(lines), hint=hint, data={"bytes": total, "files": [one[0] for one in largest]})


def _too_many(flow_file: Path) -> CodeTooLarge:
    message = f"the folder {flow_file.absolute().parent} holds more than {COUNT_LIMIT} files of code"
    return CodeTooLarge(message, hint=f"Put {flow_file.name} into a folder of its own.")


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
