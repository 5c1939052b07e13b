"""Joins: the inputs of a step that closes a split or foreach, and merging what they agree on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn, overload

from flowkiln.flow.attributes import FOREACH_STACK, Attributes
from flowkiln.flow.errors import (
    JoinMisuse,
    MissingInMergeArtifactsException,
    NotAnArtifact,
    UnhandledInMergeArtifactsException,
)
from flowkiln.flow.task import Task, stored_frames
from flowkiln.store import packs
from flowkiln.store.packs import Pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flowkiln._base.json import JSONObject
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.flow.task import Reader

_KEPT = 1024
"""Up to this many inputs stay in memory once read, so that what was loaded from them is loaded once."""

_INTERNAL = frozenset({FOREACH_STACK, "_catch_exception"})


class Inputs:
    """The inputs of a join, in the order of branches or items: ``len``, iteration, ``inputs[i]``, ``inputs.STEP``.

    Each is a read-only flow, read from one packed manifest when it is used.
    """

    def __init__(self, flow: type[FlowSpec], manifest: JSONObject, reader: Reader, frozen: frozenset[str]) -> None:
        self._flow = flow
        self._pack = Pack.from_json(manifest["pack"])
        self._steps: list[tuple[str, int, int]] = [tuple(one) for one in manifest["steps"]]
        self._tasks = manifest["tasks"]
        self._reader = reader
        self._frozen = frozen
        self._kept: dict[int, FlowSpec] = {}

    def __len__(self) -> int:
        return self._pack.count

    @overload
    def __getitem__(self, position: int) -> FlowSpec: ...
    @overload
    def __getitem__(self, position: slice) -> list[FlowSpec]: ...
    def __getitem__(self, position: int | slice) -> FlowSpec | list[FlowSpec]:
        if isinstance(position, slice):
            return [self[one] for one in range(*position.indices(len(self)))]
        wanted = position + len(self) if position < 0 else position
        if not 0 <= wanted < len(self):
            message = f"this join has {len(self)} inputs; there is no inputs[{position}]"
            raise IndexError(message)
        if wanted in self._kept:
            return self._kept[wanted]
        return self._made(wanted, packs.read(self._pack, wanted, self._reader.store.blobs))

    def __iter__(self) -> Iterator[FlowSpec]:
        for position, data in enumerate(packs.iterate(self._pack, self._reader.store.blobs)):
            kept = self._kept.get(position)
            yield self._made(position, data) if kept is None else kept

    def __getattr__(self, name: str) -> FlowSpec:
        if name.startswith("_"):
            raise AttributeError(name)
        for step, first, count in self._steps:
            if step == name and count == 1:
                return self[first]
            if step == name:
                message = f"{count} inputs come from step {name!r}: use inputs[i] or iterate over inputs"
                raise AttributeError(message)
        known = ", ".join(step for step, _, _ in self._steps)
        message = f"this join has no input from a step {name!r}; its inputs come from {known}"
        raise AttributeError(message)

    def __getstate__(self) -> NoReturn:
        message = "the inputs of a join cannot be stored or sent as a value"
        raise NotAnArtifact(message, hint="Store the attributes that you need: `self.x = [i.x for i in inputs]`.")

    def _made(self, position: int, data: bytes) -> FlowSpec:
        table = json.loads(data)["artifacts"]
        step = next(name for name, first, count in self._steps if first <= position < first + count)
        number = self._tasks[position]
        owner = f"input {position} of the join, from step {step!r}"
        blobs = self._reader.store.blobs
        flow = self._flow.__new__(self._flow)
        attributes = Attributes(table, blobs, owner=owner, frozen=self._frozen, read_only=True)
        task = Task(
            step=step,
            number=number,
            reader=self._reader,
            attributes=attributes,
            frames=stored_frames(table, self._reader),
        )
        vars(flow)["_flowkiln"] = task
        if len(self) <= _KEPT:
            self._kept[position] = flow
        return flow


def merge(flow: FlowSpec, inputs: Iterable[FlowSpec], exclude: Sequence[str], include: Sequence[str]) -> None:
    """Takes over what ``inputs`` agree on, by hash, without loading anything; nothing when they disagree.

    Raises ``JoinMisuse``, ``UnhandledInMergeArtifactsException`` and ``MissingInMergeArtifactsException``.
    """
    target = flow._flowkiln  # noqa: SLF001  the flow's own state
    if target is None or target.plan is None or target.plan.kind != "join":
        message = "merge_artifacts is for joins: steps that take `inputs`"
        raise JoinMisuse(message, step=target.step if target else None)
    if exclude and include:
        message = "merge_artifacts takes exclude or include, not both"
        raise JoinMisuse(message, step=target.step)
    candidates = _candidates(flow, target, inputs, set(exclude), set(include))
    conflicts = sorted(name for name, found in candidates.items() if len(found) > 1)
    if conflicts:
        raise _conflict(target.step, conflicts, candidates)
    missing = sorted(set(include) - set(candidates) - set(vars(flow)) - set(target.attributes.table))
    if missing:
        message = f"step {target.step!r}: no input has {', '.join(missing)}, named in include"
        raise MissingInMergeArtifactsException(message, tuple(missing), hint="Check the spelling.")
    for name, found in candidates.items():
        document, _ = next(iter(found.values()))
        target.attributes.adopt(name, document)


_Found = dict[str, tuple["JSONObject", Task]]


def _candidates(
    flow: FlowSpec, target: Task, inputs: Iterable[FlowSpec], exclude: set[str], include: set[str]
) -> dict[str, _Found]:
    """For each name to merge, its distinct contents with the first input that has each."""
    settled = set(vars(flow)) | set(target.attributes.table) | set(target.attributes.frozen) | exclude
    found: dict[str, _Found] = {}
    for one in inputs:
        task = getattr(one, "_flowkiln", None)
        if not isinstance(task, Task) or task.plan is not None:
            message = f"merge_artifacts takes the inputs of this join, not {one!r}"
            raise JoinMisuse(message, step=target.step)
        for name, document in task.attributes.table.items():
            wanted = name in include if include else name not in _INTERNAL
            if wanted and name not in settled:
                found.setdefault(name, {}).setdefault(content(document), (document, task))
    return found


def content(document: JSONObject) -> str:
    """What identifies the bytes of a stored artifact."""
    return str(document.get("sha256") or f"inline:{document['inline']}")


def _conflict(step: str, names: list[str], candidates: dict[str, _Found]) -> UnhandledInMergeArtifactsException:
    lines = [f"step {step!r}: inputs of this join differ in {', '.join(names)}"]
    for name in names[:10]:
        (one, first), (other, second) = list(candidates[name].values())[:2]
        lines.append(f"  {name}: {_producer(one, first)} and {_producer(other, second)}")
    if len(names) > 10:
        lines.append(f"  and {len(names) - 10} more")
    hint = (
        "Set them before merging, or name them in exclude=. Stored bytes are compared, so that equal values "
        "written by different versions count as different."
    )
    return UnhandledInMergeArtifactsException("\n".join(lines), tuple(names), hint=hint)


def _producer(document: JSONObject, task: Task) -> str:
    written = ", ".join(filter(None, [document["type"], document.get("origin"), f"Python {document['python']}"]))
    place = f"[{','.join(str(frame.index) for frame in task.frames)}]" if task.frames else ""
    return f"from step {task.step}{place} ({written})"
