"""What link scripts left, as it stands in ``flowkiln.lock`` and travels in the record of the work.

The package itself is one archive, ``flowkiln-linked-files-1-0.tar.bz2``, whose bytes follow from the files alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from flowkiln._base import digests
from flowkiln._base import json as canonical
from flowkiln.envs.lock import LINKED, LinkedFiles
from flowkiln.envs.tomltext import quoted

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lock import PlatformLock

SCHEMA = 1
"""Part of every key: raised when the same scripts would leave another package."""
VERSION, BUILD = "1", "0"
FILENAME = f"{LINKED}-{VERSION}-{BUILD}.tar.bz2"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFiles:
    """Linked files, and the file of this machine that holds their package."""

    linked: LinkedFiles
    path: Path

    @property
    def key(self) -> str:
        """Identity of the work: ``sha256:...``."""
        return self.linked.key

    @property
    def filename(self) -> str:
        """The name of the package."""
        return self.linked.filename

    @property
    def sha256(self) -> str:
        """Of the package, in hex."""
        return self.linked.sha256

    @property
    def size(self) -> int:
        """Of the package, in bytes."""
        return self.linked.size or 0

    def to_json(self) -> JSONObject:
        """The record that travels with the package; no paths of this machine."""
        return {"schema": SCHEMA, "filename": self.filename, "linked": to_json(self.linked)}


def kept_from_json(document: dict[str, Any], path: Path) -> KeptFiles:
    """The linked files that a record tells of. Raises ``KeyError``, ``TypeError`` and ``ValueError``."""
    if document["schema"] != SCHEMA or document["filename"] != FILENAME:
        raise ValueError(document["schema"])
    return KeptFiles(linked=read(document["linked"]), path=path)


def key_of(before: PlatformLock, where: str) -> str:
    """Identity of running the link scripts of ``before`` in the image ``where``: ``sha256:...``."""
    return canonical.digest({"schema": SCHEMA, "linked": before.env_id, "where": where})


def linked(
    *,
    subdir: str,
    sha256: str,
    size: int,
    key: str,
    where: str,
    scripts: tuple[str, ...],
    replaces: tuple[str, ...],
) -> LinkedFiles:
    """The value that a lock has of such a package."""
    return LinkedFiles(
        name=LINKED,
        version=VERSION,
        build=BUILD,
        filename=FILENAME,
        url=f"flowkiln:linked-files/{subdir}/{FILENAME}",
        sha256=sha256,
        size=size,
        key=key,
        where=where,
        scripts=scripts,
        replaces=replaces,
    )


def to_json(one: LinkedFiles) -> JSONObject:
    """Linked files as a document."""
    return {
        "subdir": one.subdir,
        "sha256": one.sha256,
        "size": one.size,
        "key": one.key,
        "where": one.where,
        "scripts": list(one.scripts),
        "replaces": list(one.replaces),
    }


def read(document: dict[str, Any]) -> LinkedFiles:
    """The value of a document. Raises ``KeyError``, ``TypeError`` and ``ValueError``."""
    told = {name: document[name] for name in ("subdir", "sha256", "key", "where")}
    if not all(isinstance(value, str) and value for value in told.values()):
        raise TypeError(told)
    if not digests.is_digest(told["key"]) or not digests.is_digest(f"sha256:{told['sha256']}"):
        raise ValueError(told)
    lists = {name: document.get(name, []) for name in ("scripts", "replaces")}
    for values in lists.values():
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            raise TypeError(values)
    for path in lists["replaces"]:
        if path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise ValueError(path)
    return linked(
        **told,
        size=int(document["size"]),
        scripts=tuple(lists["scripts"]),
        replaces=tuple(lists["replaces"]),
    )


def lines(one: LinkedFiles) -> list[str]:
    """The table of linked files in the index, below their platform's."""
    found = ["[environments.platforms.linked]"]
    found.append(f"scripts = [{', '.join(map(quoted, one.scripts))}]")
    found += [f"{name} = {quoted(getattr(one, name))}" for name in ("subdir", "where", "key", "sha256")]
    found.append(f"size = {one.size}")
    if one.replaces:
        found += ["replaces = [", *(f"  {quoted(path)}," for path in one.replaces), "]"]
    return found
