"""Two runs, or two tasks, side by side: whether their steps ran in the same environment, and what differs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from flowkiln.envs import lockdiff
from flowkiln.envs.errors import MissingLock
from flowkiln.store.errors import StoreError
from flowkiln.wiring import history

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.envs.lockdiff import Change
    from flowkiln.executor.outcome import Outcome
    from flowkiln.executor.plan import StepPlan
    from flowkiln.store.folder import FolderStore
    from flowkiln.wiring.history import Place

_COMPARED = (
    ("python", "python"),
    ("platform", "platform"),
    ("backend", "backend"),
    ("image", "image"),
    ("base", "base"),
    ("level", "level of proof"),
    ("vouched", "digest vouched by"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of where a step ran. None is unknown, or does not apply.

    ``level`` is the level at which the environment was proved, None where no task of the step has ended. ``image``
    is the digest of the image's config, ``vouched`` who said that it was the one that ran.
    """

    managed: bool
    env_id: str | None
    lock_id: str | None
    tree_digest: str | None
    python: str | None
    platform: str | None
    backend: str
    image: str | None = None
    base: str | None = None
    level: str | None = None
    vouched: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs; None where a side does not have it, or does not know it."""

    what: str
    a: str | None
    b: str | None

    def __str__(self) -> str:
        return f"{self.what}: {self.a or 'none'} -> {self.b or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A step on both sides. ``same`` is None where that is not known, as of the launcher's own interpreter.

    ``packages`` is None where the lock of a side is not known.
    """

    step: str
    a: Facts | None
    b: Facts | None
    same: bool | None
    why: str
    differences: tuple[Difference, ...] = ()
    packages: tuple[Change, ...] | None = ()

    def to_json(self) -> JSONObject:
        """As a row of ``env diff --json``."""
        return {
            "step": self.step,
            "a": None if self.a is None else asdict(self.a),
            "b": None if self.b is None else asdict(self.b),
            "same": self.same,
            "why": self.why,
            "differences": [asdict(one) for one in self.differences],
            "packages": None if self.packages is None else [change.to_json() for change in self.packages],
        }


def compare(store: FolderStore, a: Place, b: Place) -> list[Pair]:
    """The steps of two runs by name, in the order of the first; or two steps or tasks, whatever their names.

    Raises ``UnknownRun`` and the store's errors.
    """
    if a.step is not None and b.step is not None:
        name = a.step if a.step == b.step else f"{a.step} -> {b.step}"
        return [_pair(store, name, (a, a.step), (b, b.step))]
    names = [step.name for step in history.plan_of(a.run).steps]
    others = [step.name for step in history.plan_of(b.run).steps]
    found = []
    for name in dict.fromkeys([*names, *others]):
        if name in names and name in others:
            found.append(_pair(store, name, (a, name), (b, name)))
        else:
            one, side = (a, "a") if name in names else (b, "b")
            facts = facts_of(store, one, name)
            mine, yours = (facts, None) if side == "a" else (None, facts)
            found.append(Pair(step=name, a=mine, b=yours, same=False, why=f"only in {side}", packages=None))
    return found


def _pair(store: FolderStore, name: str, a: tuple[Place, str], b: tuple[Place, str]) -> Pair:
    one, other = facts_of(store, *a), facts_of(store, *b)
    same, why = judged(one, other)
    packages: tuple[Change, ...] | None = ()
    if one.env_id != other.env_id:
        packages = _packages(store, a, b)
    return Pair(
        step=name, a=one, b=other, same=same, why=why, differences=_differences(one, other), packages=packages
    )


def judged(a: Facts, b: Facts) -> tuple[bool | None, str]:
    """Whether two steps ran in the same environment, None where that is not known, and why."""
    if not a.managed and not b.managed:
        return None, "the launcher's own interpreter on both sides, which has no identity"
    if a.managed != b.managed:
        return False, "one of them ran in no locked environment"
    if a.env_id != b.env_id:
        why = "another environment"
        if a.lock_id == b.lock_id is not None:
            why = "the same lock, another platform"
        return False, why
    if a.tree_digest is None or b.tree_digest is None:
        return None, "the same locked environment; what was installed is not known"
    if a.tree_digest != b.tree_digest:
        return False, "the same locked environment, installed differently"
    unproved = [side for side, facts in (("a", a), ("b", b)) if facts.level is None]
    if unproved:
        return None, f"the same environment was planned; no task has proved it in {' and '.join(unproved)}"
    return True, "the same environment"


def facts_of(store: FolderStore, place: Place, step: str) -> Facts:
    """What the record of a run says of ``step``: what was planned, and what its tasks proved.

    Raises ``UnknownRun``.
    """
    rows = history.chosen(store, history.Place(place.run, step, place.task)) if _has(store, place, step) else []
    ended = [history.outcome(store, place.run.run, row.task, row.attempt) for row in rows]
    planned = history.plan_of(place.run).step(step)
    return _facts(planned, [one for one in ended if one is not None])


def _has(store: FolderStore, place: Place, step: str) -> bool:
    """Whether the step has tasks: a run that ended early never came to its last steps."""
    return place.task is not None or any(row.step == step for row in history.tasks(store, place.run))


def _facts(step: StepPlan, outcomes: list[Outcome]) -> Facts:
    prefix, image = step.prefix, step.image
    # What failed for its environment names what was expected, not what was there.
    sound = [one for one in outcomes if one.failure is None or one.failure.failure_class != "environment"]
    proofs = [one.environment for one in sound if one.environment]
    proof = proofs[-1] if proofs else {}
    return Facts(
        managed=prefix.managed,
        env_id=proof.get("env_id") or prefix.env_id,
        lock_id=proof.get("lock_id") or prefix.lock_id,
        tree_digest=proof.get("tree_digest") or prefix.tree_digest,
        python=proof.get("python") or prefix.version or None,
        platform=proof.get("platform") or prefix.platform,
        backend="docker" if image is not None else "process",
        image=image.config or image.reference if image is not None else None,
        base=image.base if image is not None else None,
        level="+".join(sorted({str(one["level"]) for one in proofs if one.get("level")})) or None,
        vouched=proof.get("vouched"),
    )


def _differences(a: Facts, b: Facts) -> tuple[Difference, ...]:
    found = []
    if a.env_id == b.env_id and a.tree_digest != b.tree_digest:
        found.append(Difference(what="tree", a=a.tree_digest, b=b.tree_digest))
    for name, what in _COMPARED:
        mine, yours = getattr(a, name), getattr(b, name)
        if mine != yours:
            found.append(Difference(what=what, a=mine, b=yours))
    return tuple(found)


def _packages(store: FolderStore, a: tuple[Place, str], b: tuple[Place, str]) -> tuple[Change, ...] | None:
    """What differs between the locks that both runs' records keep, None where one keeps none."""
    try:
        mine, yours = (history.lock_of(store, place.run, step)[0] for place, step in (a, b))
    except (MissingLock, StoreError):
        return None
    return lockdiff.diff(mine, yours)
