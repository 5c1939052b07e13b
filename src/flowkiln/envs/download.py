"""One attempt at a download, and the partial file that it goes on with."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import urllib3

from flowkiln._base import files, redact
from flowkiln.envs.installerrors import ArtefactGone, DownloadFailed, DownloadRefused, InstallError, Throttled
from flowkiln.envs.transport import translated

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from urllib3.response import BaseHTTPResponse

    from flowkiln.envs.artefact import Artefact
    from flowkiln.envs.transport import Transport

_BLOCK = 1 << 18


class Partial:
    """What was received of a file so far. ``size`` is in bytes. Hashes as it grows.

    Beside it lies ``<name>.json`` with the validator of the answer that its bytes are from.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(path.name + ".json")
        self._hash = hashlib.sha256()
        self.size = 0
        if path.exists():
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    self._hash.update(block)
                    self.size += len(block)

    def hexdigest(self) -> str:
        """The sha256 of what was received."""
        return self._hash.hexdigest()

    @property
    def validator(self) -> str | None:
        """The ETag or date of the answer that the bytes are from, if it had one."""
        try:
            found = json.loads(self._note.read_bytes())["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def restart(self, validator: str | None) -> None:
        """Drops the bytes; those that follow are from an answer with ``validator``."""
        self.path.unlink(missing_ok=True)
        if validator is None:
            self._note.unlink(missing_ok=True)
        else:
            files.write_atomic(self._note, json.dumps({"validator": validator}).encode())
        self._hash = hashlib.sha256()
        self.size = 0

    def append(self, descriptor: int, block: bytes) -> None:
        """Adds ``block`` to the file, open as ``descriptor``."""
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]
        self._hash.update(block)
        self.size += len(block)

    def finish(self) -> None:
        """The file is whole: its note is not needed any more."""
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes the file."""
        self.restart(None)


def receive(
    transport: Transport,
    stall: float,
    artefact: Artefact,
    partial: Partial,
    advance: Callable[[int], None],
    stopped: threading.Event,
) -> None:
    """Goes on with ``partial`` until the server says that the file ends, or ``stopped`` is set.

    Raises the download errors; ``retryable`` says whether another attempt may help.
    """
    if artefact.url.startswith("file:"):
        _copy(artefact, partial, advance)
        return
    headers = {}
    if partial.size:
        headers["Range"] = f"bytes={partial.size}-"
        validator = partial.validator
        if validator is not None:
            headers["If-Range"] = validator
    answer = transport.get(artefact.url, headers)
    try:
        expected = _prepare(answer, artefact, partial, advance)
        if expected is not None:
            _read(answer, partial, advance, stopped)
            if not stopped.is_set() and expected >= 0 and partial.size != expected:
                shown = redact.text(artefact.url)
                message = f"{shown}: the connection ended after {partial.size} of {expected} bytes"
                raise DownloadFailed(message, retryable=True)
    except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
        raise translated(artefact.url, error, stall) from error
    finally:
        # Not returned to the pool: an unread rest would have to be read first.
        answer.close()


def _prepare(
    answer: BaseHTTPResponse, artefact: Artefact, partial: Partial, advance: Callable[[int], None]
) -> int | None:
    """Makes ``partial`` fit the answer. The whole size (-1 = unknown), or None when nothing is left to read."""
    length = _number(answer.headers.get("Content-Length"))
    if answer.status == 206 and partial.size:
        start, whole = _content_range(answer.headers.get("Content-Range", ""))
        if start == partial.size:
            return whole if whole >= 0 else (partial.size + length if length >= 0 else -1)
    if answer.status == 200:
        advance(-partial.size)
        partial.restart(answer.headers.get("ETag") or answer.headers.get("Last-Modified"))
        return length
    if answer.status == 416 and partial.size:
        _, whole = _content_range(answer.headers.get("Content-Range", ""))
        if whole == partial.size:
            return None
    if answer.status in (206, 416):
        advance(-partial.size)
        partial.discard()
        message = f"{redact.text(artefact.url)}: the server cannot go on with a download"
        raise DownloadFailed(message, retryable=True)
    raise _refusal(answer, artefact)


def _read(
    answer: BaseHTTPResponse, partial: Partial, advance: Callable[[int], None], stopped: threading.Event
) -> None:
    descriptor = os.open(partial.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        while not stopped.is_set():
            # read1 gives what has arrived: bytes are kept, and counted, as they come.
            block = answer.read1(_BLOCK)
            if not block:
                return
            partial.append(descriptor, block)
            advance(len(block))
    finally:
        os.close(descriptor)


def _refusal(answer: BaseHTTPResponse, artefact: Artefact) -> InstallError:
    shown, status = redact.text(artefact.url), answer.status
    told = f"{shown}: {status} {answer.reason or ''}".rstrip()
    if status in (401, 403, 407):
        host = urlsplit(artefact.url).hostname
        hint = f"Give a login for {host} in ~/.netrc or in the index URL of your settings."
        return DownloadRefused(told, hint=hint)
    if status in (404, 410):
        return ArtefactGone(told, hint=f"`flowkiln env lock --upgrade {artefact.name}` locks a file that exists.")
    wait = _retry_after(answer.headers.get("Retry-After"))
    data = {} if wait is None else {"retry_after": wait}
    if status == 429:
        return Throttled(told, retryable=True, data=data, hint="Try again later.")
    return DownloadFailed(told, retryable=status >= 500 or status == 408, data=data)


def _copy(artefact: Artefact, partial: Partial, advance: Callable[[int], None]) -> None:
    """A ``file://`` URL: copied, never used in place, as its folder is not ours."""
    path = Path(unquote(urlsplit(artefact.url).path))
    advance(-partial.size)
    partial.restart(None)
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise ArtefactGone(f"{path} does not exist", hint="Restore it, or lock again.") from error
    except OSError as error:
        raise DownloadFailed(f"{path}: {error.strerror}") from error
    with stream:
        descriptor = os.open(partial.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            while block := stream.read(1 << 20):
                partial.append(descriptor, block)
                advance(len(block))
        finally:
            os.close(descriptor)


def _content_range(text: str) -> tuple[int, int]:
    """First byte and whole size of a Content-Range; -1 for what it does not say."""
    _, _, rest = text.partition(" ")
    span, _, whole = rest.partition("/")
    return _number(span.partition("-")[0]), _number(whole)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.strip().isdecimal() else -1


def _retry_after(text: str | None) -> int | None:
    """Whole seconds of a Retry-After, given as a number or as a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return int(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0, round((at - datetime.now(tz=UTC)).total_seconds())) if at.tzinfo else None
