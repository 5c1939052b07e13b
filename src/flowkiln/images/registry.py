"""A registry of images: manifests, blobs, tags and referrers of one host.

What it answers is one of three things: it is there, it is definitely not there, or an error. An answer of success
is believed when the digest of its bytes says so.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin

from flowkiln._base import digests
from flowkiln.images import oci, refusals
from flowkiln.images.registryerrors import (
    ManifestUnknown,
    PushNotVerified,
    RegistryError,
    RegistryFailed,
    WrongContent,
)
from flowkiln.images.session import Session, deleting, pause, pulling, pushing
from flowkiln.images.uploads import Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from flowkiln._base.json import JSONObject
    from flowkiln.images.http import Answer, Http
    from flowkiln.images.login import Logins
    from flowkiln.images.oci import Descriptor, Document

_ACCEPT = {"Accept": ", ".join(oci.ACCEPTED)}
_LARGEST_MANIFEST = 8 << 20
_MOST_PAGES = 10_000
_NEXT = re.compile(r"<([^>]*)>\s*;\s*rel=\"?next\"?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A manifest or index as a registry gave it: ``digest`` is that of ``data``."""

    data: bytes = field(repr=False)
    media_type: str
    digest: str


def _nothing(_amount: int) -> None:
    """Nobody counts."""


class Registry:
    """The registry ``host`` (``docker.io`` for Docker Hub). Threads may share it.

    Requests that may be repeated are, ``retries`` times after waits that start at ``backoff`` seconds and grow.
    """

    def __init__(
        self,
        host: str,
        http: Http,
        logins: Logins,
        *,
        retries: int = 5,
        backoff: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = pause,
    ) -> None:
        self.host = host
        self._session = Session(host, http, logins, retries=retries, backoff=backoff, clock=clock, sleep=sleep)
        self._referring = threading.Lock()

    # -- manifests ---------------------------------------------------------------------------------------------

    def manifest(self, repository: str, version: str) -> Fetched | None:
        """The manifest or index at a tag or digest, its bytes checked; None when it is definitely not there.

        Raises the registry errors: an answer that is not known is not "no".
        """
        url = self._url(repository, f"manifests/{version}")
        answer = self._session.send("GET", url, pulling(repository), headers=_ACCEPT)
        if refusals.is_absent(answer):
            return None
        if answer.status != 200:
            raise self._session.refusal(repository, f"read the manifest {version}", answer)
        data = answer.read(_LARGEST_MANIFEST + 1)
        return self._checked(f"{self.host}/{repository}: the manifest {version}", version, data, answer)

    def exists(self, repository: str, version: str) -> str | None:
        """The digest of the manifest at a tag or digest; None when it is definitely not there."""
        url = self._url(repository, f"manifests/{version}")
        answer = self._session.send("HEAD", url, pulling(repository), headers=_ACCEPT)
        answer.close()
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and digests.is_digest(digest) and version in (digest, _tag(version)):
            return digest
        if answer.status == 404 and "Docker-Distribution-Api-Version" in answer.headers:
            return None
        if answer.status in refusals.TEMPORARY:
            raise self._session.refusal(repository, f"look for the manifest {version}", answer)
        # A HEAD has no words: what it leaves open, the body of a GET decides.
        found = self.manifest(repository, version)
        return None if found is None else found.digest

    def put_tag(self, repository: str, document: Document, tag: str) -> None:
        """Pushes a manifest under ``tag`` alone, without reading it back: for what may be lost."""
        self._put_manifest(repository, document, tag)

    def put_manifest(self, repository: str, document: Document, *, tag: str | None = None) -> str:
        """Pushes a manifest, under ``tag`` too, and returns its digest once it was read back by that digest.

        Raises PushNotVerified when it cannot be read back.
        """
        self._put_manifest(repository, document, document.digest)
        if tag is not None:
            self._put_manifest(repository, document, tag)
        for attempt in range(self._session.retries + 1):
            try:
                found = self.manifest(repository, document.digest)
            except WrongContent as error:
                raise PushNotVerified(error.message) from error
            if found is not None:
                return found.digest
            if attempt < self._session.retries:
                self._session.wait(attempt)
        message = f"{self.host}/{repository}: {document.digest} was accepted, but it is not there to be read"
        raise PushNotVerified(message, retryable=True)

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Removes a manifest; False when it was not there."""
        answer = self._session.send("DELETE", self._url(repository, f"manifests/{digest}"), deleting(repository))
        if answer.status in (200, 202, 204) and not refusals.problems(refusals.document(answer)):
            return True
        if refusals.is_absent(answer):
            return False
        raise self._session.refusal(repository, f"remove {digest}", answer)

    def tags(self, repository: str) -> list[str]:
        """Every tag, sorted; empty for a repository that does not exist."""
        found: set[str] = set()
        url: str | None = self._url(repository, "tags/list?n=1000")
        for _ in range(_MOST_PAGES):
            if url is None:
                break
            answer = self._session.send("GET", url, pulling(repository))
            if refusals.is_absent(answer):
                return []
            if answer.status != 200:
                raise self._session.refusal(repository, "list the tags", answer)
            page = _object(answer.read(_LARGEST_MANIFEST))
            names = page.get("tags") or []
            if not isinstance(names, list) or "tags" not in page:
                raise self._odd(repository, "list the tags", page)
            found.update(str(name) for name in names)
            following = _NEXT.search(answer.headers.get("Link") or "")
            url = urljoin(answer.url, following[1]) if following and names else None
        return sorted(found)

    def check_push(self, repository: str) -> None:
        """Returns when something may be pushed to the repository: to be asked before the work, not after it.

        Raises RepositoryUnknown, RegistryDenied, RegistryForbidden and the other registry errors.
        """
        scopes = pushing(repository)
        answer = self._session.send("POST", self._url(repository, "blobs/uploads/"), scopes)
        place = self._session.location(answer)
        if answer.status != 202 or place is None:
            raise self._session.refusal(repository, "begin an upload", answer)
        answer.close()
        self._session.send("DELETE", place, scopes).close()

    # -- blobs -------------------------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository holds a blob. Raises for every answer that is neither yes nor no."""
        answer = self._session.send("HEAD", self._url(repository, f"blobs/{digest}"), pulling(repository))
        answer.close()
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        if answer.status == 200 and not page and answer.headers.get("Docker-Content-Digest", digest) == digest:
            return True
        if answer.status == 404:
            return False
        raise self._session.refusal(repository, f"look for the blob {digest}", answer)

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Whether the blob of the repository ``source`` of this registry now is in ``repository`` too.

        False says that it has to be uploaded: the registry does not mount, or does not let you.
        """
        query = urlencode({"mount": digest, "from": source})
        scopes = pushing(repository) | pulling(source)
        try:
            answer = self._session.send("POST", self._url(repository, f"blobs/uploads/?{query}"), scopes)
        except RegistryError as error:
            if error.retryable:
                raise
            return False
        answer.close()
        place = self._session.location(answer)
        if answer.status == 201:
            return True
        if answer.status == 202 and place is not None:
            self._session.send("DELETE", place, scopes).close()
        elif answer.status in refusals.TEMPORARY:
            raise self._session.refusal(repository, f"mount the blob {digest}", answer)
        return False

    def put_blob(
        self,
        repository: str,
        digest: str,
        size: int,
        opened: Callable[[], BinaryIO],
        *,
        advance: Callable[[int], None] = _nothing,
    ) -> None:
        """Uploads ``size`` bytes with ``digest``; after a cut it goes on from where the registry is.

        ``opened`` gives the bytes from the start, again after a cut. ``advance`` gets what was sent, less than
        nothing for what has to be sent again. Raises UploadFailed and the other registry errors.
        """
        Upload(self._session, repository, digest, size, opened, advance).run()

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob as they come, after a cut from there on; their digest is checked at the end.

        Raises ManifestUnknown when it is not there and WrongContent when its bytes are others.
        """
        sha256, have, attempt = hashlib.sha256(), 0, 0
        while True:
            answer = self._opened_blob(repository, digest, have)
            skip = 0 if answer.status == 206 else have
            try:
                for block in answer.blocks():
                    fresh = block[skip:]
                    skip = max(0, skip - len(block))
                    if fresh:
                        attempt = 0
                        have += len(fresh)
                        sha256.update(fresh)
                        yield fresh
                break
            except RegistryError as error:
                if not error.retryable or attempt >= self._session.retries:
                    raise
                self._session.wait(attempt)
                attempt += 1
        if f"sha256:{sha256.hexdigest()}" != digest:
            message = f"{self.host}/{repository}: the blob {digest} has the sha256 {sha256.hexdigest()}"
            raise WrongContent(message)

    def read_blob(self, repository: str, digest: str, *, limit: int = 8 << 20) -> bytes:
        """The bytes of a small blob, such as a config. Raises RegistryFailed when it is larger than ``limit``."""
        parts, have = [], 0
        for block in self.blob(repository, digest):
            parts.append(block)
            have += len(block)
            if have > limit:
                message = f"{self.host}/{repository}: the blob {digest} is larger than {limit} bytes"
                raise RegistryFailed(message)
        return b"".join(parts)

    # -- referrers ---------------------------------------------------------------------------------------------

    def put_referrer(self, repository: str, subject: Descriptor, document: Document) -> None:
        """Pushes a manifest that refers to ``subject``, so that it is found from there.

        By the registry's own list of referrers, or where it keeps none, in the index under the tag that stands
        for it.
        """
        content = _object(document.data)
        if (content.get("subject") or {}).get("digest") != subject.digest:
            message = f"a referrer of {subject.digest} has to name it as its subject"
            raise ValueError(message)
        answer = self._put_manifest(repository, document, document.digest)
        if answer.headers.get("OCI-Subject") == subject.digest:
            return
        entry = document.descriptor.to_json()
        for name in ("artifactType", "annotations"):
            if content.get(name):
                entry[name] = content[name]
        tag = subject.digest.replace(":", "-", 1)
        with self._referring:
            self._list_referrer(repository, tag, entry)

    def _list_referrer(self, repository: str, tag: str, entry: JSONObject) -> None:
        """Adds ``entry`` to the index at ``tag``. Another machine may do the same: looked at again afterwards."""
        for attempt in range(self._session.retries + 1):
            found = self.manifest(repository, tag)
            if found is not None and found.media_type not in oci.INDEXES:
                message = f"{self.host}/{repository}:{tag} is not the index of referrers that its name says"
                raise PushNotVerified(message, hint="Remove that tag, then push again.")
            index = {} if found is None else _object(found.data)
            rows = [one for one in index.get("manifests") or [] if isinstance(one, dict)]
            if any(one.get("digest") == entry["digest"] for one in rows):
                return
            index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [*rows, entry]}
            document = oci.Document(media_type=oci.INDEX, data=json.dumps(index).encode())
            self.put_manifest(repository, document, tag=tag)
            if self.exists(repository, tag) == document.digest:
                return
            self._session.wait(attempt)
        message = f"{self.host}/{repository}: {tag} is changed by others all the time"
        raise PushNotVerified(message, retryable=True)

    # -- parts -------------------------------------------------------------------------------------------------

    def _url(self, repository: str, rest: str) -> str:
        return self._session.url(f"/v2/{repository}/{rest}")

    def _put_manifest(self, repository: str, document: Document, version: str) -> Answer:
        url = self._url(repository, f"manifests/{version}")
        headers = {"Content-Type": document.media_type}
        answer = self._session.send("PUT", url, pushing(repository), headers=headers, body=document.data)
        doing = f"push the manifest {version}"
        found = refusals.document(answer)
        if answer.status != 201 and (answer.status != 200 or refusals.problems(found)):
            raise self._session.refusal(repository, doing, answer)
        told = answer.headers.get("Docker-Content-Digest", document.digest)
        if told != document.digest:
            message = f"{self.host}/{repository}: {document.digest} was pushed, and the registry made {told} of it"
            raise PushNotVerified(message)
        return answer

    def _checked(self, told: str, version: str, data: bytes, answer: Answer) -> Fetched:
        if len(data) > _LARGEST_MANIFEST:
            message = f"{told} is larger than {_LARGEST_MANIFEST} bytes"
            raise RegistryFailed(message)
        digest = digests.of_bytes(data)
        document = _object(data)
        if problems := refusals.problems(document):
            code, text = problems[0]
            message = f"{told} was answered with success and the error {code}: {text}"
            raise RegistryFailed(message, retryable=True)
        claimed = answer.headers.get("Docker-Content-Digest", digest)
        if (digests.is_digest(version) and version != digest) or claimed != digest:
            wanted = version if digests.is_digest(version) else claimed
            message = f"{told} has bytes with the digest {digest} instead of {wanted}"
            raise WrongContent(message)
        media_type = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
        if media_type not in oci.ACCEPTED:
            media_type = str(document.get("mediaType") or media_type)
        if not (
            "manifests" in document or "layers" in document or "fsLayers" in document or "mediaType" in document
        ):
            message = f"{told} was answered with something that is no manifest"
            raise RegistryFailed(message)
        return Fetched(data=data, media_type=media_type, digest=digest)

    def _opened_blob(self, repository: str, digest: str, have: int) -> Answer:
        url = self._url(repository, f"blobs/{digest}")
        headers = {"Range": f"bytes={have}-"} if have else {}
        answer = self._session.send("GET", url, pulling(repository), headers=headers)
        if answer.status == 206 and have and _first(answer.headers.get("Content-Range", "")) == have:
            return answer
        if answer.status in (206, 416) and have:
            # it cannot go on: from the start, and what is known already is passed over
            answer.close()
            answer = self._session.send("GET", url, pulling(repository))
        if answer.status == 200:
            return answer
        if answer.status == 404:
            raise ManifestUnknown(f"{self.host}/{repository} holds no blob {digest}{refusals.said(answer)}")
        raise self._session.refusal(repository, f"read the blob {digest}", answer)

    def _odd(self, repository: str, doing: str, document: JSONObject) -> RegistryFailed:
        problems = refusals.problems(document)
        said = f"the error {problems[0][0]}: {problems[0][1]}" if problems else "something else"
        return RegistryFailed(f"{self.host}/{repository}: cannot {doing}: answered with success and {said}")


def _object(data: bytes) -> JSONObject:
    """The JSON object that ``data`` is; empty for anything else."""
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _tag(version: str) -> str | None:
    """``version`` where it is a tag."""
    return None if digests.is_digest(version) else version


def _first(text: str) -> int:
    """The first byte of a Content-Range, -1 when it does not say."""
    found = re.match(r"bytes (\d+)-", text)
    return int(found[1]) if found else -1
