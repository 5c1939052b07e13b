"""Image references as people write them: ``[host[:port]/]repository[:tag][@digest]``.

Docker's grammar: a first part with a dot or a colon, or ``localhost``, is a host; without one it is Docker Hub,
where a repository of one part belongs to ``library/``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from flowkiln._base import digests
from flowkiln.images.errors import BadReference

HUB = "docker.io"
_OLD_HUB = "index.docker.io"
_LONGEST = 255
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_SHAPE = "it is no repository, which has letters, digits and single separators (. _ - /) between"
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a registry. ``host`` is as written (``docker.io`` when none was), never with a scheme."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """Host and repository: what ``docker push`` calls the repository."""
        return f"{self.host}/{self.repository}"

    @property
    def version(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        """The same repository at a digest, without the tag."""
        return replace(self, tag=None, digest=digest)

    def tagged(self, tag: str) -> Reference:
        """The same repository at a tag."""
        return replace(self, tag=tag, digest=None)


def parse(text: str) -> Reference:
    """The reference that ``text`` is. Raises ``BadReference``."""
    rest, at, digest = text.partition("@")
    if at and not digests.is_digest(digest):
        raise _bad(text, "what follows @ is no sha256 digest")
    first, slash, after = rest.partition("/")
    host, path = HUB, rest
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, after
        if not _HOST.fullmatch(host):
            raise _bad(text, f"{host!r} is no host")
        host = HUB if host == _OLD_HUB else host
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _bad(text, f"{tag!r} is no tag")
    if not _REPOSITORY.fullmatch(path):
        raise _bad(text, "it is no repository, which is in lower case" if path.lower() != path else _SHAPE)
    if host == HUB and re.fullmatch("[0-9a-f]{64}", path):
        raise _bad(text, "it may as well be the id of an image")
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    if len(host) + 1 + len(path) > _LONGEST:
        raise _bad(text, f"host and repository are longer than {_LONGEST} characters")
    return Reference(host, path, tag or None, digest or None)


def parse_repository(text: str, *, named: str) -> Reference:
    """The repository that ``text`` is, which ``named`` says. Raises ``BadReference``, for a tag or digest too."""
    found = parse(text)
    if found.tag or found.digest:
        hint = f"Write {found.name}: images are tagged by what they hold."
        raise BadReference(f"{named} {text!r} is one image, and images go to a repository", hint=hint)
    return found


def _bad(text: str, why: str) -> BadReference:
    return BadReference(f"{text!r} is no image reference: {why}")
