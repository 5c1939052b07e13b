"""One blob on its way into a registry: one request where all goes well, and from where it was cut where not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from flowkiln._base import digests, parallel
from flowkiln.images import refusals
from flowkiln.images.http import BLOCK
from flowkiln.images.registryerrors import (
    RegistryDenied,
    RegistryError,
    RegistryFailed,
    RegistryForbidden,
    UploadFailed,
)
from flowkiln.images.session import pulling, pushing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from flowkiln.images.http import Answer
    from flowkiln.images.session import Session

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


class Upload:
    """The upload of ``size`` bytes with ``digest``. Use it once, from one thread."""

    def __init__(
        self,
        session: Session,
        repository: str,
        digest: str,
        size: int,
        opened: Callable[[], BinaryIO],
        advance: Callable[[int], None],
    ) -> None:
        self._session = session
        self._repository = repository
        self._digest = digest
        self._size = size
        self._opened = opened
        self._advance = advance
        self._scopes = pushing(repository)
        self._doing = f"upload the blob {digest}"
        self._place: str | None = None
        self._offset = 0
        """What the registry has, as far as it said."""
        self._counted = 0
        """What ``advance`` was told."""

    def run(self) -> None:
        """Returns when the registry has the whole blob. Raises the registry errors."""
        failures = furthest = 0
        while True:
            if self._place is None:
                self._begin()
            error, asked = self._attempt()
            if error is None:
                return
            if failures >= self._session.retries:
                raise error
            if not isinstance(error, (RegistryDenied, RegistryForbidden)):
                self._session.wait(failures, asked)
            if self._recovered():
                return
            failures = 0 if self._offset > furthest else failures + 1
            furthest = max(furthest, self._offset)

    def _attempt(self) -> tuple[RegistryError | None, float | None]:
        """Sends once. No error when the blob is there; else one that passes, and the wait that was asked for."""
        try:
            answer, used = self._send()
            if answer.status == 201:
                self._finished(answer)
                return None, None
            return self._setback(answer, used), refusals.retry_after(answer)
        except RegistryError as error:
            if not error.retryable:
                raise
            return error, error.data.get("retry_after")

    # -- requests ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._offset = 0
        url = self._session.url(f"/v2/{self._repository}/blobs/uploads/")
        answer = self._session.send("POST", url, self._scopes)
        if answer.status != 202:
            raise self._session.refusal(self._repository, self._doing, answer)
        answer.close()
        self._place = self._located(answer)

    def _send(self) -> tuple[Answer, str | None]:
        """The answer to what finishes the upload: all bytes at once, or after a cut the rest and then the end."""
        assert self._place is not None
        if self._offset:
            if self._offset < self._size:
                answer, used = self._stream("PATCH", self._place)
                if answer.status not in (202, 204):
                    return answer, used
                answer.close()
                self._place = self._located(answer)
                self._offset = self._size
            return self._session.stream("PUT", self._final(), self._scopes, body=b"")
        return self._stream("PUT", self._final())

    def _stream(self, method: str, url: str) -> tuple[Answer, str | None]:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._size - self._offset),
        }
        if method == "PATCH":
            headers["Content-Range"] = f"{self._offset}-{self._size - 1}"
        return self._session.stream(method, url, self._scopes, headers=headers, body=self._blocks())

    def _blocks(self) -> Iterator[bytes]:
        """The bytes from the offset on. Raises UploadFailed when they cannot be read or are fewer than was said."""
        done = 0
        try:
            with self._opened() as stream:
                while done < self._size:
                    if parallel.stopped():
                        raise KeyboardInterrupt
                    # what the registry has already is read and passed over
                    known = done < self._offset
                    block = stream.read(min((self._offset if known else self._size) - done, BLOCK))
                    if not block:
                        message = f"the bytes of {self._digest} end after {done} of {self._size}"
                        raise UploadFailed(message, hint="The file was changed meanwhile: bake again.")
                    done += len(block)
                    if not known:
                        yield block
                        self._count(done)
        except OSError as error:
            # not left to the code that sends, which would take it for an error of the connection
            message = f"the bytes of {self._digest} cannot be read: {error}"
            raise UploadFailed(message) from error

    # -- when it does not go well ------------------------------------------------------------------------------

    def _setback(self, answer: Answer, used: str | None) -> RegistryError:
        """The error that an answer is, if it is one that passes; otherwise raises it."""
        if answer.status == 401:
            self._session.renew(answer, used, self._scopes)
            return self._session.denied(answer, self._scopes)
        error = self._session.refusal(self._repository, self._doing, answer)
        if answer.status != 416 and not error.retryable:
            raise error
        return error

    def _recovered(self) -> bool:
        """Finds out where the registry is: sets the place and offset to go on with, None to start anew.

        True when it has the whole blob, although its answer to that was lost.
        """
        if self._place is None:
            return False
        before = self._offset
        if self._is_there():
            return True
        answer = self._session.send("GET", self._place, self._scopes)
        answer.close()
        found = _RANGE.fullmatch((answer.headers.get("Range") or "").strip())
        if answer.status != 204 or found is None:
            self._place = None
            return False
        end = int(found[1])
        # "0-0" is what registries say of nothing as well as of one byte
        self._offset = end + 1 if end else 0
        self._place = self._session.location(answer) or self._place
        if self._offset > self._size or (self._offset == before and before):
            self._place = None  # no progress with that one: another upload
        return False

    def _is_there(self) -> bool:
        url = self._session.url(f"/v2/{self._repository}/blobs/{self._digest}")
        answer = self._session.send("HEAD", url, pulling(self._repository))
        answer.close()
        return answer.status == 200

    # -- parts -------------------------------------------------------------------------------------------------

    def _finished(self, answer: Answer) -> None:
        answer.close()
        self._count(self._size)
        told = answer.headers.get("Docker-Content-Digest", self._digest)
        if digests.is_digest(told) and told != self._digest:
            message = f"{self._session.host}/{self._repository}: {self._digest} was uploaded and {told} arrived"
            raise UploadFailed(message)

    def _located(self, answer: Answer) -> str:
        place = self._session.location(answer)
        if place is None:
            message = f"{self._session.host}/{self._repository}: cannot {self._doing}: no Location to upload to"
            raise RegistryFailed(message)
        return place

    def _final(self) -> str:
        assert self._place is not None
        return f"{self._place}{'&' if '?' in self._place else '?'}digest={quote(self._digest, safe='')}"

    def _count(self, sent: int) -> None:
        if sent != self._counted:
            self._advance(sent - self._counted)
            self._counted = sent
