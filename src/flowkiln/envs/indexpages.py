"""Pages of package indexes: the files of one package, in JSON (PEP 691) or HTML (PEP 503)."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from flowkiln._base import parallel
from flowkiln._base.errors import FlowkilnError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkiln.envs.indexes import IndexPlan

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_ANCHOR = re.compile(r"(?is)<a\s[^>]*href\s*=\s*[\"']([^\"']+)[\"'][^>]*>")
_REQUIRES = re.compile(r"(?is)data-requires-python\s*=\s*[\"']([^\"']+)[\"']")
_SOURCE = re.compile(r"\.(tar\.gz|zip|tar\.bz2|tar\.xz|tgz)$")
_STALL = 10.0
"""Seconds that an index may keep silent before a page counts as not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """A file of a package as its index tells of it. ``uploaded`` is RFC 3339; ``sha256`` hex, None untold."""

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None
    yanked: bool = False
    uploaded: str | None = None
    requires_python: str | None = None

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.name.endswith(".whl")

    @property
    def is_source(self) -> bool:
        """Whether it is a source distribution."""
        return _SOURCE.search(self.name) is not None

    @property
    def version(self) -> str:
        """The version in its name, as it stands there."""
        if self.is_wheel:
            return self.name.partition("-")[2].partition("-")[0]
        return _SOURCE.sub("", self.name).rpartition("-")[2]


def fetch(urls: Sequence[str], plan: IndexPlan) -> dict[str, str]:
    """The pages that could be read, by URL."""
    # Imported here because TLS takes longer to load than most locks have use for it.
    from flowkiln.envs.transport import Network, Transport  # noqa: PLC0415

    transport = Transport(Network(stall=_STALL, credentials=plan.credentials, renew=plan.renew))

    def one(url: str) -> str | None:
        try:
            answer = transport.get(url, {"Accept": _ACCEPT})
            try:
                body: bytes = answer.read(decode_content=True)
            finally:
                answer.release_conn()
        except (FlowkilnError, OSError):
            return None
        return body.decode(errors="replace") if answer.status == 200 else None

    try:
        pages = parallel.together(one, urls, at_once=4)
    finally:
        transport.close()
    return {url: page for url, page in zip(urls, pages, strict=True) if page is not None}


def files(page: str, url: str = "") -> Iterator[IndexFile]:
    """The files on the ``page`` at ``url``."""
    if not page.lstrip().startswith("{"):
        yield from _anchors(page, url)
        return
    try:
        entries: list[dict[str, Any]] = json.loads(page).get("files", [])
    except ValueError:
        return
    for entry in entries:
        hashes = entry.get("hashes") or {}
        yield IndexFile(
            name=str(entry.get("filename", "")),
            url=urljoin(url, str(entry.get("url", ""))),
            sha256=hashes.get("sha256"),
            size=entry.get("size"),
            yanked=bool(entry.get("yanked")),
            uploaded=entry.get("upload-time"),
            requires_python=entry.get("requires-python"),
        )


def _anchors(page: str, url: str) -> Iterator[IndexFile]:
    for match in _ANCHOR.finditer(page):
        target = urlsplit(urljoin(url, html.unescape(match[1])))
        requires = _REQUIRES.search(match[0])
        hashed = re.search(r"(?:^|&)sha256=([0-9a-f]{64})", target.fragment)
        yield IndexFile(
            name=unquote(target.path.rpartition("/")[2]),
            url=urlunsplit(target._replace(fragment="")),
            sha256=hashed[1] if hashed else None,
            yanked="data-yanked" in match[0].lower(),
            requires_python=html.unescape(requires[1]) if requires else None,
        )
