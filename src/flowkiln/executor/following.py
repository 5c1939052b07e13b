"""Whether a success can be followed: it must lead where the plan says, as wide as the plan allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.executor.vocabulary import Verdict

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.plan import StepPlan


def unfollowable(step: StepPlan, verdict: Verdict, max_splits: int) -> Verdict | None:
    """Why the run cannot go on after the success ``verdict``, as the failure that takes its place."""
    if not verdict.caught and verdict.targets != step.targets:
        went = ", ".join(verdict.targets) or "nowhere"
        text = f"step {step.name} went to {went}, but its code says {', '.join(step.targets) or 'nowhere'}"
        return Verdict(ok=False, failure_class="user", cause="transition", text=text)
    if step.foreach is None:
        return None
    width = verdict.width
    if width is None or width < 1:
        text = f"step {step.name} has a foreach over {step.foreach!r}, which is empty"
        return Verdict(ok=False, failure_class="user", cause="foreach-width", text=text)
    if width > max_splits:
        text = f"the foreach over {step.foreach!r} is {width} wide, more than the limit of {max_splits}"
        return Verdict(ok=False, failure_class="user", cause="foreach-width", text=text)
    return None


def why(verdict: Verdict) -> JSONObject:
    """A failure as the data of a progress event."""
    return {"class": verdict.failure_class, "cause": verdict.cause, "text": verdict.text}
