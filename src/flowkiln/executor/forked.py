"""An attempt of the process backend: one that a template serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln.executor.supervisor import Attempt

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.plan import StepPlan
    from flowkiln.executor.templates import Template


class Forked(Attempt):
    """An attempt whose process ``template`` makes, signals and waits for."""

    def __init__(
        self,
        number: int,
        assignment: Assignment,
        step: StepPlan,
        template: Template,
        *,
        grace: float,
        drain: float,
    ) -> None:
        super().__init__(number, assignment, step, grace=grace, drain=drain)
        self.template = template

    def proof(self, level: str) -> JSONObject:
        """What the environment was proved to be, by verification of ``level``, and how the process was made."""
        prefix, ready = self.step.prefix, self.template.ready or {}
        proof: JSONObject = {"python": ready.get("python", prefix.version), "platform": prefix.platform}
        if prefix.managed:
            proof |= {"env_id": prefix.env_id, "lock_id": prefix.lock_id, "tree_digest": prefix.tree_digest}
            proof |= {"name": prefix.name, "level": level, "other_platform": prefix.other_platform}
        if self.template.activation is not None:
            proof["activation"] = self.template.activation
        proof["unmanaged"] = not prefix.managed
        if ready:
            proof["isolation"] = ready["isolation"]
            if ready["reason"]:
                proof["reason"] = ready["reason"]
        return proof
