"""The description that a tree carries inside: ``<prefix>/.flowkiln/``.

``files.json`` is the canonical document whose sha256 is the ``tree_digest``; ``tree.json`` says what the tree is
and lists the glue, with its own digest in the first line; ``stamps.json`` is how the files look to ``stat``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.envs.installerrors import EnvironmentMismatch

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.relocate import Rewritten
    from flowkiln.envs.glue import Glue

FOLDER = ".flowkiln"
TREE_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a tree is. ``glue`` maps a path to ``[mode, sha256]``, or to ``[mode, "-> " + target]`` for a link.

    ``wheels`` are the sha256 of the packages that it was made of, sorted; ``interpreter`` is the base executable,
    empty where the environment has its own. ``rewritten`` maps the path of a file in which the prefix stands to how
    it came there: kind, placeholder, offsets (see ``_base.relocate``).
    """

    env_id: str
    tree_digest: str
    platform: str
    version: str
    interpreter: str
    prefix: str
    wheels: tuple[str, ...]
    glue: dict[str, tuple[int, str]] = field(hash=False)
    rewritten: dict[str, Rewritten] = field(hash=False, default_factory=dict)

    def to_bytes(self) -> bytes:
        """As the bytes of ``tree.json``."""
        body: JSONObject = {
            "schema": TREE_SCHEMA,
            "env_id": self.env_id,
            "tree_digest": self.tree_digest,
            "platform": self.platform,
            "version": self.version,
            "interpreter": self.interpreter,
            "prefix": self.prefix,
            "wheels": list(self.wheels),
            "glue": self.glue,
        }
        if self.rewritten:
            body["rewritten"] = self.rewritten
        data = json.dumps(body, sort_keys=True, indent=1).encode()
        return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def glue_rows(glue: tuple[Glue, ...]) -> dict[str, tuple[int, str]]:
    """``glue`` as the description lists it."""
    return {one.path: (one.mode, _content(one)) for one in glue}


def _content(one: Glue) -> str:
    return f"-> {one.target}" if one.target else hashlib.sha256(one.data).hexdigest()


def read(root: Path) -> Description | None:
    """The description of the tree at ``root``; None when there is no tree.

    Raises EnvironmentMismatch when there is one whose description is damaged.
    """
    try:
        data = (root / FOLDER / "tree.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = parse(data)
    if found is None:
        message = f"the environment at {root} has a damaged description"
        raise EnvironmentMismatch(message, hint="`flowkiln env verify --repair` makes it anew.")
    return found


def parse(data: bytes) -> Description | None:
    """The description that ``to_bytes`` wrote; None for bytes that are none, or were changed."""
    told, _, body = data.partition(b"\n")
    try:
        values = json.loads(body) if told.decode() == hashlib.sha256(body).hexdigest() else {}
        del values["schema"]
        values["wheels"] = tuple(values["wheels"])
        rewritten = values.get("rewritten", {})
        values["rewritten"] = {path: tuple(how) for path, how in rewritten.items()}
        values["glue"] = {path: (mode, content) for path, (mode, content) in values["glue"].items()}
        return Description(**values)
    except (ValueError, KeyError, TypeError):
        return None


def rows(root: Path, tree_digest: str) -> dict[str, tuple[int, str]]:
    """The files of the tree at ``root``: path -> (mode, sha256), without glue.

    Raises EnvironmentMismatch when the list is not the one that ``tree_digest`` names.
    """
    return parsed(listed(root, tree_digest))


def listed(root: Path, tree_digest: str) -> bytes:
    """The canonical document of the tree at ``root``, verified. Raises EnvironmentMismatch."""
    try:
        data = (root / FOLDER / "files.json").read_bytes()
    except OSError:
        data = b""
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if found != tree_digest:
        what = "is gone" if not data else "was changed"
        message = f"the list of files of the environment at {root} {what}"
        raise EnvironmentMismatch(
            message,
            hint="`flowkiln env verify --repair` makes it anew.",
            data={"root": str(root), "expected": tree_digest, "found": found},
        )
    return data


def parsed(data: bytes) -> dict[str, tuple[int, str]]:
    """The files that a canonical document lists: path -> (mode, sha256)."""
    return {path: (mode, sha256) for path, mode, sha256 in json.loads(data)["files"]}
