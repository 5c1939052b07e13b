"""The static shape of a plan: which steps live at which foreach level, and where each one leads.

A region is the set of steps between a foreach step and the join that closes it, at one level; the outermost
region holds the start. Every step belongs to one region.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkiln.executor.plan import RunPlan, StepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A step's place: its ``position`` in its ``region`` and its ``depth``, the longest way from the start.

    ``within`` are the targets in the same region; ``leaves`` is the join outside that a foreach's tail leads
    to, as (region, position). ``branches`` are, for a join of a static split, its inputs in branch order.
    """

    plan: StepPlan
    region: int
    position: int
    depth: int
    within: tuple[int, ...] = ()
    leaves: int | None = None
    opens: int | None = None
    branches: tuple[int, ...] = ()
    parent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The steps of one level in topological order; ``tail`` is the position of the last one."""

    number: int
    nodes: tuple[Node, ...]
    opener: str | None = None
    outer: int | None = None

    @property
    def tail(self) -> int:
        """The position of the step that leads out of the region (the last one)."""
        leaving = [node.position for node in self.nodes if node.leaves is not None]
        return leaving[0] if leaving else len(self.nodes) - 1


@dataclass(slots=True)
class _Sketch:
    """What is known of the regions while the steps are walked in topological order."""

    region: dict[str, int] = field(default_factory=dict)
    members: list[list[str]] = field(default_factory=lambda: [[]])
    opener: list[str | None] = field(default_factory=lambda: [None])
    outer: list[int | None] = field(default_factory=lambda: [None])
    opened: dict[str, int] = field(default_factory=dict)
    depth: dict[str, int] = field(default_factory=dict)


def regions_of(plan: RunPlan) -> tuple[Region, ...]:
    """The regions of ``plan``, the outermost first. Raises ``KeyError`` for a plan with loose ends."""
    sketch = _walk(plan)
    position = {name: at for names in sketch.members for at, name in enumerate(names)}
    regions = []
    for number, names in enumerate(sketch.members):
        nodes = tuple(_node(plan, sketch, position, name) for name in names)
        opener, outer = sketch.opener[number], sketch.outer[number]
        regions.append(Region(number=number, nodes=nodes, opener=opener, outer=outer))
    return tuple(regions)


def _walk(plan: RunPlan) -> _Sketch:
    sketch = _Sketch()
    steps = {step.name: step for step in plan.steps}
    for step in plan.steps:
        region = _region(step, steps, sketch)
        sketch.region[step.name] = region
        sketch.members[region].append(step.name)
        sketch.depth[step.name] = 1 + max((sketch.depth[name] for name in step.parents), default=0)
        if step.foreach is not None:
            sketch.opened[step.name] = len(sketch.members)
            sketch.members.append([])
            sketch.opener.append(step.name)
            sketch.outer.append(region)
    return sketch


def _region(step: StepPlan, steps: dict[str, StepPlan], sketch: _Sketch) -> int:
    if not step.parents:
        return 0
    if step.closes is not None:
        return sketch.region[step.closes]
    parent = step.parents[0]
    return sketch.opened[parent] if steps[parent].foreach is not None else sketch.region[parent]


def _node(plan: RunPlan, sketch: _Sketch, position: dict[str, int], name: str) -> Node:
    step = plan.step(name)
    region = sketch.region[name]
    fans = step.foreach is not None
    within = [] if fans else [target for target in step.targets if sketch.region[target] == region]
    leaving = [] if fans else [target for target in step.targets if sketch.region[target] != region]
    branches: list[str] = []
    parent: int | None = None
    if step.closes is not None:
        if plan.step(step.closes).foreach is None:
            branches = _branch_order(plan, step)
    elif step.parents and sketch.region[step.parents[0]] == region:
        parent = position[step.parents[0]]
    return Node(
        plan=step,
        region=region,
        position=position[name],
        depth=sketch.depth[name],
        within=tuple(position[target] for target in within),
        leaves=position[leaving[0]] if leaving else None,
        opens=sketch.opened.get(name),
        branches=tuple(position[branch] for branch in branches),
        parent=parent,
    )


def _branch_order(plan: RunPlan, join: StepPlan) -> list[str]:
    """The parents of a static join in the order of the split's branches."""
    assert join.closes is not None
    found: list[str] = []
    for branch in plan.step(join.closes).targets:
        pending, seen = [branch], set[str]()
        while pending:
            name = pending.pop()
            if name in seen or name == join.name:
                continue
            seen.add(name)
            targets = plan.step(name).targets
            if join.name in targets and name not in found:
                found.append(name)
            pending.extend(targets)
    return found
