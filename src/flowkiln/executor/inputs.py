"""The inputs of a join as one packed manifest, so that only the join's own process reads in proportion to width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.store import keys, packs
from flowkiln.store.errors import RecordDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.executor.driver import Store

INPUTS_SCHEMA = 1


def pack_inputs(store: Store, run: str, task: int, inputs: Iterable[tuple[str, int, int]]) -> None:
    """Makes the manifest of join ``task``: the outcomes of ``inputs``, which are (step, task, attempt) in order.

    The record holds ``pack`` (one outcome document per input), ``steps`` as [step, first item, count] and
    ``tasks``. A manifest that is there already is left as it is. Raises ``RecordDamaged``.
    """
    key = keys.inputs(run, task)
    if store.records.exists(key):
        return
    steps: list[list[str | int]] = []
    tasks: list[int] = []

    def outcomes() -> Iterator[bytes]:
        for step, number, attempt in inputs:
            if not steps or steps[-1][0] != step:
                steps.append([step, len(tasks), 0])
            steps[-1][2] = len(tasks) + 1 - int(steps[-1][1])
            tasks.append(number)
            found = store.records.read(keys.outcome(run, number, attempt))
            if found is None:
                message = f"the outcome of task {number} of run {run} was sealed and is gone"
                raise RecordDamaged(message, hint="`flowkiln store check` lists what is missing.")
            yield found

    pack = packs.write(outcomes(), store.blobs)
    document: JSONObject = {"schema": INPUTS_SCHEMA, "pack": pack.to_json(), "steps": steps, "tasks": tasks}
    store.records.create(key, json.compact(document))
