"""Whether the files of an image are the environment that it says it holds, and the one that a lock names."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowkiln.envs import installer, treefile
from flowkiln.images.manifest import LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowkiln._base.json import JSONObject
    from flowkiln.images.inside import Found

    Rows = dict[str, tuple[int, str]]

_MARKER = f"{treefile.FOLDER}/tree.json"
_PARTS = f"{treefile.FOLDER}/parts/"
_WATCHED = re.compile(r"bin/.*|lib(?:64)?/python[^/]*/site-packages/.*")
BASE = "org.opencontainers.image.base.digest"
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What an image says of itself in its labels; None where it says nothing."""

    env_id: str | None
    lock_id: str | None
    tree_digest: str | None
    image_key: str | None
    base: str | None
    python: str | None
    bytecode: str | None

    @classmethod
    def of(cls, config: JSONObject) -> Claims:
        """The claims in an image's config."""
        labels: JSONObject = (config.get("config") or {}).get("Labels") or {}
        return cls(
            env_id=labels.get(f"{LABEL}.env-id"),
            lock_id=labels.get(f"{LABEL}.lock-id"),
            tree_digest=labels.get(f"{LABEL}.tree-digest"),
            image_key=labels.get(f"{LABEL}.image-key"),
            base=labels.get(BASE),
            python=labels.get(f"{LABEL}.python"),
            bytecode=labels.get(f"{LABEL}.bytecode"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """What a lock says of the environment. ``tree_digest`` and ``bases`` are None where it was not found out.

    ``bases`` are the manifests of the bases that the lock pins for the environment.
    """

    name: str
    env_id: str
    lock_id: str
    tree_digest: str | None = None
    bases: tuple[str, ...] | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was found: identities, the sentences that say what is wrong, and the files that are.

    ``env_id`` is that of the marker, ``tree_digest`` was computed from the bytes of the files. Sound when nothing
    is wrong.
    """

    env_id: str | None = None
    tree_digest: str | None = None
    files: int = 0
    problems: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether the image holds what it says, and what the lock says where there is one."""
        return not (self.problems or self.changed or self.missing or self.extra)

    def text(self) -> str:
        """What is wrong, for people; the first files of each kind."""
        lines = list(self.problems)
        for word, paths in (("changed", self.changed), ("missing", self.missing), ("extra", self.extra)):
            lines += [f"{word}: {path}" for path in paths[:_SHOWN]]
            if len(paths) > _SHOWN:
                lines.append(f"... and {len(paths) - _SHOWN} more {word}")
        return "\n".join(lines)


def judge(files: Mapping[str, Found], claims: Claims, locked: Locked | None = None) -> Verdict:
    """Whether ``files`` are the environment of the marker among them, of the labels, and of the lock if given."""
    verdict = Verdict()
    marker = _marker(files, verdict)
    if marker is None:
        return verdict
    verdict.env_id = marker.env_id
    listed = _listed(files, verdict)
    glue = {path: (mode, content) for path, (mode, content) in marker.glue.items()}
    _compare(files, {**listed, **glue}, verdict)
    found = [(path, files[path].mode, files[path].content) for path in listed if path in files]
    verdict.tree_digest = "sha256:" + hashlib.sha256(installer.document(found)).hexdigest()
    verdict.files = len(found)
    _differs(verdict, "the marker's tree", marker.tree_digest, "its files are", verdict.tree_digest)
    _differs(verdict, "the label's environment", claims.env_id, "the marker's is", marker.env_id)
    _differs(verdict, "the label's tree", claims.tree_digest, "the marker's is", marker.tree_digest)
    if locked is not None:
        _hold_against(locked, claims, verdict)
    return verdict


def _hold_against(locked: Locked, claims: Claims, verdict: Verdict) -> None:
    where = f"environment {locked.name!r} of the lock"
    _differs(verdict, f"{where} is", locked.env_id, "the image's is", verdict.env_id)
    _differs(verdict, f"the lock's id of {locked.name!r} is", locked.lock_id, "the image's is", claims.lock_id)
    if locked.tree_digest is not None:
        _differs(verdict, f"{where} installs the tree", locked.tree_digest, "its files are", verdict.tree_digest)
    if locked.bases is not None and claims.base not in locked.bases:
        pinned = ", ".join(locked.bases)
        verdict.problems.append(f"the lock pins the base {pinned}, the image is baked on {claims.base}")


def _differs(verdict: Verdict, what: str, expected: str | None, other: str, found: str | None) -> None:
    if expected != found:
        verdict.problems.append(f"{what} {expected or 'not told'}, {other} {found or 'not told'}")


def _marker(files: Mapping[str, Found], verdict: Verdict) -> treefile.Description | None:
    place = files.get(_MARKER)
    if place is None or place.data is None:
        verdict.problems.append("it holds no environment of flowkiln: there is no marker in it")
        return None
    found = treefile.parse(place.data)
    if found is None:
        verdict.problems.append("the marker of the environment was changed")
    return found


def _listed(files: Mapping[str, Found], verdict: Verdict) -> Rows:
    """The files that the layers of packages say they brought."""
    rows: dict[str, list[Any]] = {}
    for path in sorted(path for path in files if path.startswith(_PARTS)):
        try:
            rows.update((str(row[0]), row) for row in json.loads(files[path].data or b"")["files"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            verdict.problems.append(f"{path} cannot be read: {error}")
    return {path: (row[1], row[2]) for path, row in rows.items()}


def _compare(files: Mapping[str, Found], rows: Rows, verdict: Verdict) -> None:
    for path, (mode, content) in sorted(rows.items()):
        found = files.get(path)
        if found is None:
            verdict.missing.append(path)
        elif found.content != content or (not content.startswith("-> ") and found.mode != mode):
            verdict.changed.append(path)
    verdict.extra += sorted(path for path in files if path not in rows and _WATCHED.fullmatch(path))
