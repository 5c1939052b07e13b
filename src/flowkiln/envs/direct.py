"""Direct references: distributions asked for by where their source is, not by a version of an index (PEP 508)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowkiln._base import redact

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

Kind = Literal["git", "archive", "folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectReference:
    """A distribution of a request whose source is named.

    * ``git``: ``url`` is the repository, ``ref`` a branch, tag or commit as asked (None: the default branch).
    * ``archive``: ``url`` is that of a source archive or a wheel, ``sha256`` the hash that the request states.
    * ``folder``: ``url`` is the path as asked, with ``/``, relative to the declaring file's folder; ``content`` is
      the sha256 hex digest of the project's files, so that a changed file is another request.

    ``name`` is normalised (PEP 503). ``subdirectory`` is the folder of the project inside of the source.
    """

    name: str
    kind: Kind
    url: str
    ref: str | None = None
    subdirectory: str | None = None
    sha256: str | None = None
    content: str | None = None

    @property
    def identity(self) -> JSONObject:
        """What a request has of it in its own identity; no credentials."""
        told = {
            "name": self.name,
            "kind": self.kind,
            "url": redact.url(self.url),
            "ref": self.ref,
            "subdirectory": self.subdirectory,
            "sha256": self.sha256,
            "content": self.content,
        }
        return {key: value for key, value in told.items() if value is not None}
