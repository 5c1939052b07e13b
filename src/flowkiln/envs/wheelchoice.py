"""One platform's wheels: what uv answers, one wheel chosen for each package, and proof that it fits.

What has no wheel is built on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flowkiln._base import redact
from flowkiln._base.errors import concerning
from flowkiln.envs import handing, provided, pylock, requirements, sourcebuilds
from flowkiln.envs.errors import EnvError, HashMismatch, NoWheel, UvUnusable
from flowkiln.envs.lock import LockedWheel
from flowkiln.envs.uv import Answer, Question, Solver, ask
from flowkiln.envs.wheels import tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowkiln.envs.pylock import FoundPackage, FoundWheel


def choose(
    solver: Solver, question: Question, standing: Mapping[str, LockedWheel]
) -> tuple[Question, tuple[LockedWheel, ...], Answer]:
    """The wheels that uv chooses, those that conda provides left out, with the question that this answers.

    What has no wheel is built, and kept as the lock that stands has it.
    """
    step = question.steps[0] if question.steps else None
    with concerning(step, f"environment {question.name!r} for {question.target.platform}", named=question.name):
        question = sourcebuilds.handed(solver, question, standing)
    while True:
        try:
            question, answer = _pinned(solver, question)
        except NoWheel as error:
            with concerning(step, f"environment {question.name!r} for {question.target.platform}"):
                more = sourcebuilds.lacking(solver, question, error, standing)
            if more is None:
                raise
            question = more
        else:
            break
    packages = [one for one in pylock.read_uv(answer.pylock) if not provided.is_stub(one.version)]
    if packages and not answer.trace.edges:
        message = "this uv does not tell what needs what, which locks record"
        raise UvUnusable(message, hint="Install another one: `pip install 'uv>=0.9,<0.14'`.")
    return question, tuple(_wheel(question, solver, answer, package, packages) for package in packages), answer


def _pinned(solver: Solver, question: Question) -> tuple[Question, Answer]:
    """The answer in which every pinned package comes from its index, with the question that it answers.

    uv pins what a request names; what only others need it takes from any index. So that is asked for by name.
    """
    while True:
        answer = ask(solver, question)
        asked = {*map(requirements.name_of, question.spec.requirements), *question.roots}
        found = {one.name for one in pylock.read_uv(answer.pylock) if not provided.is_stub(one.version)}
        missed = sorted(name for name, _ in solver.plan.pins if name in found - asked)
        if not missed:
            return question, answer
        question = replace(question, roots=(*question.roots, *missed))


def _wheel(
    question: Question, solver: Solver, answer: Answer, package: FoundPackage, packages: Sequence[FoundPackage]
) -> LockedWheel:
    """The one wheel of ``package``: the one whose metadata was used, if the target takes it. Proof that it fits."""
    used = answer.trace.chosen.get((package.name, package.version), "")
    names = {one.name for one in packages} | {name for name, _ in provided.of(question.conda)}
    requires = tuple(sorted(answer.trace.edges.get(package.name, set()) & names))
    for one in question.handed:
        if one.name == package.name and (one.direct or one.filename == used):
            return handing.locked(one, requires)
    allowed = dict(question.spec.hashes).get(package.name)
    fitting = {wheel.filename: wheel for wheel in package.wheels if question.target.rank(wheel.filename)}
    usable = {name: wheel for name, wheel in fitting.items() if allowed is None or (wheel.sha256 or "") in allowed}
    filename = used if used in usable else question.target.best(usable)
    if filename is None:
        raise _none_fits(question, package, fitting)
    chosen = usable[filename]
    if chosen.sha256 is None:
        message = f"environment {question.name!r}: the index states no sha256 for {filename}"
        raise HashMismatch(message, hint="Use an index that does: a lock without hashes proves nothing.")
    pinned = dict(solver.plan.pins).get(package.name)
    index = pinned.shown if pinned is not None else package.index or answer.trace.indexes.get(package.name)
    if index is None and len(solver.plan.indexes) == 1:
        index = solver.plan.indexes[0].shown
    return LockedWheel(
        name=package.name,
        version=package.version,
        filename=filename,
        url=chosen.url,
        sha256=chosen.sha256,
        size=chosen.size,
        index=redact.url(index).rstrip("/") if index else None,
        upload_time=chosen.upload_time,
        requires=requires,
    )


def _none_fits(question: Question, package: FoundPackage, fitting: Mapping[str, FoundWheel]) -> EnvError:
    what = f"environment {question.name!r} for {question.target.platform}: {package.name} {package.version}"
    if fitting:
        message = f"{what}: none of its wheels for the platform has a hash that the requirements allow"
        return HashMismatch(message, hint="Add the hash of the wheel, or lock without hashes.")
    tags = sorted({tags_of(wheel.filename) for wheel in package.wheels})
    message = f"{what} has no wheel that fits; its tags: {', '.join(tags) or 'none'}"
    return NoWheel(message, hint="Choose a version that has a wheel for it, or name only the platforms you need.")
