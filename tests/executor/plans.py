"""Plans made from nested lists, with the tasks that a run of them must have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowkiln.executor.plan import Prefix, RunPlan, StepPlan

if TYPE_CHECKING:
    import random

PREFIX = Prefix(python="/usr/bin/python3", version="3.11.0", platform="linux/amd64")


@dataclass(slots=True)
class Line:
    """One step."""


@dataclass(slots=True)
class Split:
    """A split step, its branches, its join."""

    branches: list[list[Block]]


@dataclass(slots=True)
class Foreach:
    """A foreach step, its body, its join."""

    width: int
    body: list[Block]


Block = Line | Split | Foreach


@dataclass(slots=True)
class Draft:
    """Steps under construction, and what each must run."""

    steps: dict[str, StepPlan] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, kind: str, parents: list[str], times: int, **more: object) -> str:
        self.options[name] = {"kind": kind, **more}
        self.parents[name] = parents
        self.targets[name] = []
        for parent in parents:
            self.targets[parent].append(name)
        self.tasks[name] = times
        return name

    def sequence(self, blocks: list[Block], parents: list[str], times: int) -> str:
        last = parents
        for block in blocks:
            last = [self.block(block, last, times)]
        return last[0]

    def block(self, block: Block, parents: list[str], times: int) -> str:
        name = f"s{len(self.options):02d}"
        if isinstance(block, Line):
            return self.add(name, "linear", parents, times)
        if isinstance(block, Split):
            split = self.add(name, "split", parents, times)
            tails = [self.sequence(branch, [split], times) for branch in block.branches]
            return self.add(f"s{len(self.options):02d}", "join", tails, times, closes=split)
        fan = self.add(name, "foreach", parents, times, foreach="items")
        self.widths[fan] = block.width
        tail = self.sequence(block.body, [fan], times * block.width)
        return self.add(f"s{len(self.options):02d}", "join", [tail], times, closes=fan)


@dataclass(frozen=True, slots=True)
class Flow:
    """A plan, the width of each foreach step, and how many tasks each step has."""

    plan: RunPlan
    widths: dict[str, int]
    tasks: dict[str, int]


def flow(
    blocks: list[Block],
    *,
    workers: int = 4,
    splits: int = 1_000_000,
    steps: dict[str, dict[str, object]] | None = None,
) -> Flow:
    """start, the blocks, end. ``steps`` gives options of single steps."""
    draft = Draft()
    draft.add("start", "linear", [], 1)
    last = draft.sequence(blocks, ["start"], 1) if blocks else "start"
    draft.add("end", "end", [last], 1)
    made = []
    for name, options in draft.options.items():
        values = {**options, **(steps or {}).get(name, {})}
        made.append(
            StepPlan(
                name=name,
                prefix=PREFIX,
                targets=tuple(draft.targets[name]),
                parents=tuple(draft.parents[name]),
                **values,  # type: ignore[arg-type]
            )
        )
    plan = RunPlan(
        flow="F", steps=tuple(made), script="f.py", code="", user_folder="/", max_workers=workers, max_splits=splits
    )
    return Flow(plan, draft.widths, draft.tasks)


def random_blocks(rng: random.Random, depth: int = 0) -> list[Block]:
    """A small random flow."""
    blocks: list[Block] = []
    for _ in range(rng.randint(1, 2 if depth else 3)):
        kind = rng.random()
        if kind < 0.5 or depth >= 3:
            blocks.append(Line())
        elif kind < 0.72:
            blocks.append(Split([random_blocks(rng, depth + 1) for _ in range(rng.randint(2, 3))]))
        else:
            blocks.append(Foreach(rng.randint(1, 4), random_blocks(rng, depth + 1)))
    return blocks
