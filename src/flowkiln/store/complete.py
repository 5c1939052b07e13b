"""Whether the records of runs are all there: what the run's opening, end and journal say must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkiln._base.errors import FlowkilnError
from flowkiln.store import keys, packs, references, runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.store.folder import FolderStore

_SEALED = {"ok", "failed"}
"""States in the list of tasks of an end record that only a sealed outcome leads to."""

Missing = tuple[str, str]
"""Where something is missing, and what the trouble is."""


def missing(store: FolderStore) -> Iterator[Missing]:
    """What records say is there and is not. Damaged records are passed over: they are told elsewhere."""
    known = set()
    for flow in runs.flows(store.records):
        for run in runs.run_ids(store.records, flow):
            if _there(store, keys.run_opened(flow, run)):
                known.add(run)
            opened = _document(store, keys.run_opened(flow, run))
            if opened is not None:
                yield from _missing_of(store, flow, run, opened)
    for run in store.records.names("r"):
        if run not in known and store.records.names(keys.journal_folder(run)):
            yield f"r/{run}", "the record that opened this run is missing"


def _missing_of(store: FolderStore, flow: str, run: str, opened: JSONObject) -> Iterator[Missing]:
    if not _there(store, keys.claim(run)):
        yield keys.claim(run), "the record of the run's id is missing"
    plan = opened.get("plan") or {}
    code = plan.get("code")
    if references.is_sha256(code) and not store.blobs.has(code):
        yield keys.run_opened(flow, run), f"refers to the code package {code}, which is not there"
    ended = _document(store, keys.run_ended(flow, run))
    if ended is None:
        return
    journal = keys.journal_folder(run)
    count = sum(_there(store, f"{journal}/{name}") for name in store.records.names(journal))
    if count < ended.get("entries", 0):
        yield journal, f"has {count} entries where the run's end tells of {ended['entries']}"
    kinds = {step["name"]: step["kind"] for step in plan.get("steps", ())}
    for task, step, _, attempt, state in _tasks(store, ended):
        if state in _SEALED:
            yield from _missing_of_task(store, run, task, attempt, join=kinds.get(step) == "join")


def _missing_of_task(store: FolderStore, run: str, task: int, attempt: int, *, join: bool) -> Iterator[Missing]:
    key = keys.outcome(run, task, attempt)
    if not _there(store, key):
        yield key, "is missing: the task has ended"
        return
    outcome = _document(store, key) or {}
    if outcome.get("status") != "ok" or outcome.get("execution", {}).get("kind") != "process":
        return  # only a process that ran to its end is sure to have left the others
    if not _there(store, keys.begin(run, task, attempt)):
        yield keys.begin(run, task, attempt), "is missing: the task has ended"
    if join and not _there(store, keys.inputs(run, task)):
        yield keys.inputs(run, task), "is missing: the join has ended"


def _tasks(store: FolderStore, ended: JSONObject) -> list[list[Any]]:
    try:
        pack = packs.Pack.from_json(ended["tasks"])
        found = [json.loads(item) for item in packs.iterate(pack, store.blobs)]
    except (FlowkilnError, ValueError, KeyError, TypeError):
        return []  # a damaged or missing blob, or a document that no driver wrote
    return [row for row in found if isinstance(row, list) and len(row) == 5]


def _there(store: FolderStore, key: str) -> bool:
    path = Path(store.root, key)
    return path.is_file() and path.stat().st_size > 0


def _document(store: FolderStore, key: str) -> JSONObject | None:
    try:
        data = store.records.read(key)
        document = None if data is None else json.loads(data)
    except (FlowkilnError, ValueError):
        return None
    return document if isinstance(document, dict) else None
