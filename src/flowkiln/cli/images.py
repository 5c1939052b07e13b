"""``flowkiln env verify`` of images: what they say of themselves, and whether that is so."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from flowkiln.cli import environments
from flowkiln.wiring.verifying import Candidate, Verifier

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.cli.output import Session
    from flowkiln.cli.targets import ImageTarget
    from flowkiln.wiring.verifying import Checked


def checked(target: ImageTarget, lock: str | None, speaker: Session, home: Path) -> list[Checked]:
    """Every platform of an image, held against the environments that ``lock`` names; None for no lock."""
    verifier = Verifier(speaker.settings(home), speaker.reporter)
    candidates = None if lock is None else _candidates(lock, speaker)
    if target.kind == "engine":
        return verifier.in_engine(target.reference, candidates)
    if target.path is not None:
        return verifier.in_layout(target.path, target.reference, candidates)
    return verifier.in_registry(target.reference, candidates)


def _candidates(lock: str, speaker: Session) -> list[Candidate]:
    named = environments.named(lock, speaker)
    return [Candidate(lock=environments.locked(one, lock), folder=one.folder) for one in named]


def document(one: Checked) -> JSONObject:
    """An image as the --json output shows it."""
    verdict = one.verdict
    return {
        "image": one.name,
        "platform": one.platform,
        "digest": one.digest,
        "config": one.config,
        "says": asdict(one.claims),
        "state": "ok" if verdict.sound else "changed",
        "env_id": verdict.env_id,
        "tree_digest": verdict.tree_digest,
        "files": verdict.files,
        "problems": verdict.problems,
        "changed": verdict.changed,
        "missing": verdict.missing,
        "extra": verdict.extra,
        "lock": None if one.locked is None else asdict(one.locked),
    }


def lines(one: Checked) -> list[str]:
    """An image for people; what is wrong with it belongs to the error."""
    claims, verdict = one.claims, one.verdict
    rows = [
        ("environment", verdict.env_id),
        ("tree", verdict.tree_digest and f"{verdict.tree_digest}, from {verdict.files} files"),
        ("lock", claims.lock_id),
        ("image key", claims.image_key),
        ("base", claims.base),
        ("python", claims.python),
        ("bytecode", claims.bytecode),
    ]
    if one.locked is not None:
        how = "its tree too" if one.locked.tree_digest is not None else "its tree could not be compared offline"
        rows.append(("held against", f"environment {one.locked.name!r} of the lock, {how}"))
    head = f"{one.name} ({one.platform}): {'ok' if verdict.sound else 'changed'}"
    return [head, *(f"  {name:12} {value}" for name, value in rows if value)]
