"""What is known of layers and images that were made before: small JSON files in the cache, by what they answer.

A record can be deleted at any time: it costs work, never a wrong image. One that cannot be read is as good as none.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flowkiln._base import digests, files
from flowkiln._base.json import compact
from flowkiln.images.libraries import Missing, Program

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from flowkiln._base.json import JSONObject

_SCHEMA = 1
_TOUCH = 24 * 3600.0
"""Seconds after which the use of a record is noted again."""
FRESH = 24 * 3600.0
"""Seconds for which a push is believed without asking the registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """A layer's bytes in numbers: ``diff_id`` and ``size`` of the tar, ``blobs`` by compression as (digest, size).

    A layer without content (a package without Python files has no bytecode) has a size of 0; images leave it out.
    """

    key: str
    diff_id: str
    size: int
    blobs: tuple[tuple[str, tuple[str, int]], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether images leave it out."""
        return self.size == 0

    def blob(self, compression: str) -> tuple[str, int] | None:
        """Digest and size of the compressed layer, None where it was never compressed so."""
        return dict(self.blobs).get(compression)

    def with_blob(self, compression: str, digest: str, size: int) -> LayerRecord:
        """The record with one more form."""
        return replace(self, blobs=tuple(sorted({**dict(self.blobs), compression: (digest, size)}.items())))

    def to_json(self) -> JSONObject:
        """As a versioned JSON object, the inverse of ``from_json``."""
        return {
            "schema": _SCHEMA,
            "key": self.key,
            "diff_id": self.diff_id,
            "size": self.size,
            "blobs": {kind: list(blob) for kind, blob in self.blobs},
        }

    @classmethod
    def from_json(cls, document: JSONObject) -> LayerRecord:
        """The value that ``to_json`` wrote. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for others."""
        if document["schema"] != _SCHEMA:
            message = f"schema {document['schema']}"
            raise ValueError(message)
        blobs = {str(kind): (str(digest), int(size)) for kind, (digest, size) in document["blobs"].items()}
        wrong = [one for one in (document["key"], document["diff_id"]) if not digests.is_digest(one)]
        wrong += [digest for digest, _ in blobs.values() if not digests.is_digest(digest)]
        if wrong:
            message = f"{wrong[0]!r} is no digest"
            raise ValueError(message)
        return cls(
            key=document["key"],
            diff_id=document["diff_id"],
            size=int(document["size"]),
            blobs=tuple(sorted(blobs.items())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image that a repository was seen to hold. ``seen`` is in seconds since the epoch."""

    image_key: str
    digest: str
    config: str
    tree_digest: str
    seen: float = field(default=0.0, compare=False)

    @property
    def fresh(self) -> bool:
        """Whether the repository need not be asked again."""
        return 0 <= time.time() - self.seen < FRESH


class Records:
    """The records of one cache folder. Safe for any number of processes: each is written whole."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "images"

    def layer(self, key: str) -> LayerRecord | None:
        """The record of a layer, None without one."""
        document = self._read(self._path("layers", key))
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            if document is not None:
                found = LayerRecord.from_json(document)
                return found if found.key == key else None
        return None

    def add_layer(self, record: LayerRecord) -> LayerRecord:
        """Keeps ``record`` beside the forms that are known already, and returns all of them."""
        known = self.layer(record.key)
        if known is not None and known.diff_id == record.diff_id:
            record = replace(record, blobs=tuple(sorted({**dict(known.blobs), **dict(record.blobs)}.items())))
        self._write(self._path("layers", record.key), record.to_json())
        return record

    def tree_digest(self, env_id: str) -> str | None:
        """The ``tree_digest`` of an environment, None where nobody has found it out here."""
        document = self._read(self._path("trees", env_id))
        found = None if document is None else document.get("tree_digest")
        return found if isinstance(found, str) and digests.is_digest(found) else None

    def add_tree(self, env_id: str, tree_digest: str) -> None:
        """Keeps the ``tree_digest`` of an environment."""
        self._write(self._path("trees", env_id), {"schema": _SCHEMA, "tree_digest": tree_digest})

    def libraries(self, base: str) -> frozenset[str] | None:
        """The names of the shared objects of a base, by its manifest; None where nobody has read it here."""
        document = self._read(self._path("libraries", base))
        found = None if document is None else document.get("libraries")
        return frozenset(map(str, found)) if isinstance(found, list) else None

    def add_libraries(self, base: str, names: Iterable[str]) -> None:
        """Keeps the names of the shared objects of a base."""
        self._write(self._path("libraries", base), {"schema": _SCHEMA, "libraries": sorted(names)})

    def programs(self, sha256: str) -> tuple[Program, ...] | None:
        """The programs and shared objects of a wheel, None where nobody has looked."""
        document = self._read(self._path("programs", sha256))
        with suppress(KeyError, TypeError, ValueError):
            if document is not None and document["schema"] == _SCHEMA:
                return tuple(map(Program.from_json, document["programs"]))
        return None

    def add_programs(self, sha256: str, programs: Iterable[Program]) -> None:
        """Keeps what the programs and shared objects of a wheel are."""
        rows = [one.to_json() for one in programs]
        self._write(self._path("programs", sha256), {"schema": _SCHEMA, "programs": rows})

    def missing(self, scan: str) -> tuple[Missing, ...] | None:
        """What a scan found, by its key; None where it was not made here."""
        document = self._read(self._path("scans", scan))
        with suppress(KeyError, TypeError, ValueError):
            if document is not None and document["schema"] == _SCHEMA:
                return tuple(Missing.from_json(row) for row in document["missing"])
        return None

    def add_missing(self, scan: str, missing: Iterable[Missing]) -> None:
        """Keeps what a scan found."""
        rows = [one.to_json() for one in missing]
        self._write(self._path("scans", scan), {"schema": _SCHEMA, "missing": rows})

    def image(self, repository: str, image_key: str) -> ImageRecord | None:
        """The record of an image in ``repository``, None without one."""
        document = self._read(self._image_path(repository, image_key))
        with suppress(KeyError, TypeError, ValueError):
            if document is not None and document.pop("schema") == _SCHEMA:
                return ImageRecord(**document)
        return None

    def add_image(self, repository: str, record: ImageRecord) -> None:
        """Keeps that ``repository`` holds the image now."""
        document = {"schema": _SCHEMA, "image_key": record.image_key, "digest": record.digest}
        document |= {"config": record.config, "tree_digest": record.tree_digest, "seen": time.time()}
        self._write(self._image_path(repository, record.image_key), document)

    def forget_image(self, repository: str, image_key: str) -> None:
        """Drops the record of an image that the repository turned out not to hold."""
        self._image_path(repository, image_key).unlink(missing_ok=True)

    def _image_path(self, repository: str, image_key: str) -> Path:
        place = digests.of_bytes(repository.encode())[7:23]
        return self._path(f"pushed/{place}", image_key)

    def _path(self, kind: str, digest: str) -> Path:
        return self.root / kind / f"{digest.removeprefix('sha256:')}.json"

    def use_image(self, image_key: str) -> None:
        """Notes that an image in an engine was used now, for garbage collection: engines do not say it."""
        self._write(self._path("used", image_key), {"schema": _SCHEMA})

    def image_used(self, image_key: str) -> float | None:
        """When an image in an engine was last used, in seconds since the epoch; None where that is not known."""
        try:
            return self._path("used", image_key).stat().st_mtime
        except OSError:
            return None

    def sizes(self) -> dict[str, int]:
        """The bytes of every layer that is known here, by its ``diff_id``."""
        found = {}
        for path in (self.root / "layers").glob("*.json"):
            document = self._read(path, touch=False)
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                if document is not None:
                    record = LayerRecord.from_json(document)
                    found[record.diff_id] = record.size
        return found

    def _read(self, path: Path, *, touch: bool = True) -> JSONObject | None:
        try:
            document = json.loads(path.read_bytes())
            if touch and time.time() - path.stat().st_mtime > _TOUCH:
                os.utime(path)  # used now, for garbage collection
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def _write(self, path: Path, document: JSONObject) -> None:
        files.write_atomic(path, compact(document))
