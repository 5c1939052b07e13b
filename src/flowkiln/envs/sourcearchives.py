"""Sources found, pinned, and brought here as one archive each, which a build unpacks.

What was pinned or brought lies below ``sources`` in the cache under its sha256.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename

from flowkiln._base import digests, files, redact
from flowkiln.envs import sourcefolders
from flowkiln.envs.artefact import Artefact
from flowkiln.envs.directerrors import OtherSource
from flowkiln.envs.handing import HandedWheel
from flowkiln.envs.lock import LockedSource
from flowkiln.envs.repositories import Repository, public

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from flowkiln.envs.direct import DirectReference
    from flowkiln.envs.fetch import Fetcher


def pin(
    reference: DirectReference,
    *,
    previous: LockedSource | None,
    upgrade: bool,
    folder: Path,
    cache: Path,
    fetcher: Fetcher,
    environ: Mapping[str, str],
) -> LockedSource:
    """The source that ``reference`` is now, or still: a branch stays where ``previous`` has it unless ``upgrade``.

    ``folder`` is where relative paths start; ``fetcher`` knows whether the network may be used. Raises the errors
    of ``directerrors`` and of downloads.
    """
    if reference.kind == "folder":
        return _folder(reference, folder, cache, environ)
    source = _standing(reference, previous)
    if source is not None and not upgrade:
        return source
    if reference.kind == "archive":
        return _archive(reference, folder, cache, fetcher)
    repository = Repository(url=reference.url, cache=cache, environ=environ, offline=fetcher.offline)
    commit = repository.commit_of(reference.ref)
    sha256, size = _kept(cache, lambda stream: repository.archive(commit, reference.subdirectory, stream))
    return LockedSource(
        kind="git",
        url=repository.shown,
        sha256=sha256,
        size=size,
        commit=commit,
        ref=reference.ref,
        subdirectory=reference.subdirectory,
    )


def archive_of(
    source: LockedSource, *, name: str, folder: Path, cache: Path, fetcher: Fetcher, environ: Mapping[str, str]
) -> Path:
    """A file that stays, whose sha256 is ``source.sha256``: what was downloaded, or an archive of commit or folder.

    ``name`` is that of the distribution, for messages. Raises ``OtherSource`` where the folder or the server has
    another one now, the other errors of ``directerrors`` and those of downloads.
    """
    kept = _place(cache, source.sha256)
    if kept.is_file() and digests.of_file(kept) == f"sha256:{source.sha256}":
        os.utime(kept)  # used now, for garbage collection
        return kept
    if source.kind in {"sdist", "archive"}:
        artefact = Artefact(name=name, url=_whole(source.url, folder), sha256=source.sha256, size=source.size)
        return _fetched(artefact, cache, fetcher)
    if source.kind == "folder":
        sha256, _ = _kept(cache, lambda stream: sourcefolders.archive(folder / source.url, stream, environ=environ))
        what = f"the folder {source.url} has changed since it was locked"
    else:
        repository = Repository(url=source.url, cache=cache, environ=environ, offline=fetcher.offline)
        commit = source.commit or ""
        repository.fetch(commit)
        sha256, _ = _kept(cache, lambda stream: repository.archive(commit, source.subdirectory, stream))
        what = f"{source.url} at {commit[:12]} gives another archive than the locked one"
    if sha256 != source.sha256:
        message = f"{name}: {what}\n  locked {source.sha256}\n  found  {sha256}"
        hint = f"`flowkiln env lock --upgrade {name}` locks what is there now."
        raise OtherSource(message, hint=hint, data={"expected": source.sha256, "received": sha256})
    return kept


def is_wheel(source: LockedSource) -> bool:
    """Whether the archive of ``source`` is a wheel, which needs no build."""
    return source.kind == "archive" and filename(source).endswith(".whl")


def filename(source: LockedSource) -> str:
    """The name of the file that ``source`` is on its server."""
    return unquote(urlsplit(source.url).path.rpartition("/")[2])


def wheel_of_archive(name: str, source: LockedSource, path: Path) -> HandedWheel:
    """The wheel that ``source`` is, whose file lies at ``path``."""
    file = filename(source)
    return HandedWheel(
        name=name,
        version=str(parse_wheel_filename(file)[1]),
        filename=file,
        sha256=source.sha256,
        size=path.stat().st_size,
        path=path,
        url=source.url,
    )


def describe(source: LockedSource, *, cache: Path, fetcher: Fetcher, environ: Mapping[str, str]) -> str | None:
    """How git names the commit of ``source`` from its newest tag (``v1.2-3-gabc1234``); None where it cannot.

    Back ends that take the version from the history find none in an archive: it is for them.
    """
    if source.kind != "git" or source.commit is None:
        return None
    repository = Repository(url=source.url, cache=cache, environ=environ, offline=fetcher.offline)
    return repository.describe(source.commit)


def _standing(reference: DirectReference, previous: LockedSource | None) -> LockedSource | None:
    """``previous`` where it answers ``reference``."""
    if previous is None or previous.kind != reference.kind or previous.subdirectory != reference.subdirectory:
        return None
    if previous.url != public(reference.url) or previous.ref != reference.ref:
        return None
    return previous if reference.sha256 in {None, previous.sha256} else None


def _folder(reference: DirectReference, folder: Path, cache: Path, environ: Mapping[str, str]) -> LockedSource:
    place = folder / reference.url
    sha256, size = _kept(cache, lambda stream: sourcefolders.archive(place, stream, environ=environ))
    if reference.content not in {None, sha256}:
        message = f"{reference.name}: the folder {reference.url} was changed while it was being locked"
        raise OtherSource(message, hint="Run the same command again.")
    return LockedSource(
        kind="folder", url=reference.url, sha256=sha256, size=size, subdirectory=reference.subdirectory
    )


def _archive(reference: DirectReference, folder: Path, cache: Path, fetcher: Fetcher) -> LockedSource:
    """A file by its URL: with the hash that the request states, else with that of what is there now."""
    shown, url = redact.url(reference.url), _whole(reference.url, folder)
    if reference.sha256 is None:
        with files.locked(_lock(_place(cache, digests.hexdigits(digests.of_bytes(shown.encode()))))):
            path, sha256 = fetcher.fetch_any(reference.name, url, cache / "partial")
            size = path.stat().st_size
            _keep(path, _place(cache, sha256))
    else:
        artefact = Artefact(name=reference.name, url=url, sha256=reference.sha256)
        path = _fetched(artefact, cache, fetcher)
        sha256, size = reference.sha256, path.stat().st_size
    return LockedSource(kind="archive", url=shown, sha256=sha256, size=size, subdirectory=reference.subdirectory)


def _whole(url: str, folder: Path) -> str:
    """``url``, or that of a file that is named by its path."""
    return url if "://" in url else Path(os.path.normpath(folder.absolute() / url)).as_uri()


def _fetched(artefact: Artefact, cache: Path, fetcher: Fetcher) -> Path:
    target = _place(cache, artefact.sha256)
    with files.locked(_lock(target)):
        if not target.is_file() or digests.of_file(target) != f"sha256:{artefact.sha256}":
            _keep(fetcher.fetch(artefact, cache / "partial"), target)
    return target


def _kept(cache: Path, write: Callable[[IO[bytes]], tuple[str, int]]) -> tuple[str, int]:
    """The sha256 and the size of what ``write`` writes, which lies in its place afterwards."""
    with files.scratch_folder(cache / "scratch") as scratch, files.disk_errors(cache):
        made = scratch / "archive.tar"
        with made.open("wb") as stream:
            sha256, size = write(stream)
        _keep(made, _place(cache, sha256))
    return sha256, size


def _keep(path: Path, target: Path) -> None:
    with files.disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o644)
        path.replace(target)


def _place(cache: Path, sha256: str) -> Path:
    return cache / "sources" / "archives" / sha256


def _lock(place: Path) -> Path:
    return place.with_name(f".{place.name}.lock")
