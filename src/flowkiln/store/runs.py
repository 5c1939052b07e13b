"""Runs as records: opened once, ended once, tagged any number of times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln._base import json
from flowkiln.store import formats, keys, references
from flowkiln.store.errors import BadKey, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flowkiln._base.json import JSONObject
    from flowkiln.store.interfaces import Records

_WIDTH = 16
_FLOWS = "flows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as the store knows it. ``ended`` is None until it was closed; ``tags`` are the present ones."""

    flow: str
    run: str
    opened: JSONObject
    ended: JSONObject | None
    tags: tuple[str, ...]

    @property
    def status(self) -> str:
        """What the ended record says, ``running`` while there is none."""
        return "running" if self.ended is None else str(self.ended["status"])


def new_run_id(microseconds: int) -> str:
    """The run id for a time since the epoch: 16 digits, so that ids sort as times until the year 2286."""
    return f"{microseconds:0{_WIDTH}d}"


def is_run_id(text: str) -> bool:
    """Whether ``text`` has the form of a run id."""
    return len(text) == _WIDTH and text.isascii() and text.isdecimal()


def open_run(records: Records, flow: str, document: JSONObject, *, clock: Callable[[], int] = time.time_ns) -> str:
    """Opens a run of ``flow`` and returns its id: the time in microseconds, or the next one that is free.

    Ids are unique among all flows of the store. ``clock`` gives nanoseconds. The stored document gets ``flow``,
    ``run`` and ``opened_us``. Tags in ``document["tags"]`` are the run's first ones. Raises ``BadKey``.
    """
    if not flow.isidentifier():
        message = f"not a flow's name: {flow!r}"
        raise BadKey(message, hint="A flow is named by its class.", data={"flow": flow})
    number = opened_us = clock() // 1000
    while not records.create(keys.claim(new_run_id(number)), flow.encode()):
        number += 1
        while records.exists(keys.claim(new_run_id(number))):  # much cheaper than trying to create it
            number += 1
    run = new_run_id(number)
    stored = {**document, "schema": formats.RECORD_SCHEMA, "flow": flow, "run": run, "opened_us": opened_us}
    records.create(keys.run_opened(flow, run), json.compact(stored))
    return run


def close_run(
    records: Records,
    flow: str,
    run: str,
    document: JSONObject,
    *,
    clock: Callable[[], int] = time.time_ns,
) -> bool:
    """Closes a run, for good and on disk; False when it was closed before. ``document`` needs a ``status``.

    The stored document gets ``flow``, ``run`` and ``ended_us``. Returns once it would survive a power loss, with
    the run's opening and the blobs that ``document`` refers to.
    """
    if not isinstance(document.get("status"), str):
        message = "a run ends with a status"
        raise TypeError(message)
    ended_us = clock() // 1000
    stored = {**document, "schema": formats.RECORD_SCHEMA, "flow": flow, "run": run, "ended_us": ended_us}
    records.sync(keys.blob(sha256) for sha256, _ in references.blobs_in(document))
    closed = records.create(keys.run_ended(flow, run), json.compact(stored))
    records.sync([keys.run_opened(flow, run), keys.run_ended(flow, run)])
    return closed


def read_run(records: Records, flow: str, run: str) -> Run:
    """The run. Raises ``RunNotFound``, ``RecordDamaged`` and ``FormatTooNew``."""
    opened = _document(records, keys.run_opened(flow, run)) if is_run_id(run) else None
    if opened is None:
        message = f"there is no run {run} of flow {flow}"
        raise RunNotFound(message, hint="`flowkiln run list` shows the runs.", data={"flow": flow, "run": run})
    ended = _document(records, keys.run_ended(flow, run))
    return Run(flow=flow, run=run, opened=opened, ended=ended, tags=_tags(records, flow, run, opened)[1])


def flow_of(records: Records, run: str) -> str:
    """The flow that the run belongs to. Raises ``RunNotFound``."""
    claimed = records.read(keys.claim(run)) if is_run_id(run) else None
    if claimed is None:
        message = f"there is no run {run}"
        raise RunNotFound(message, hint="`flowkiln run list` shows the runs.", data={"run": run})
    return claimed.decode()


def flows(records: Records) -> list[str]:
    """The flows that have runs, sorted by name."""
    return records.names(_FLOWS)


def run_ids(records: Records, flow: str) -> list[str]:
    """The ids of a flow's runs, newest first."""
    try:
        return [name for name in reversed(records.names(keys.opened_runs(flow))) if is_run_id(name)]
    except BadKey:
        return []


def runs(records: Records, flow: str | None = None) -> Iterator[Run]:
    """The runs of ``flow``, else of every flow, each flow's newest first."""
    for name in [flow] if flow is not None else flows(records):
        for run in run_ids(records, name):
            yield read_run(records, name, run)


def change_tags(
    records: Records, flow: str, run: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> tuple[str, ...]:
    """The run's tags after adding and removing some: sorted, no change of another writer lost.

    Raises ``RunNotFound``.
    """
    added, removed = frozenset(add), frozenset(remove)
    opened = read_run(records, flow, run).opened
    while True:
        number, present = _tags(records, flow, run, opened)
        wanted = tuple(sorted((set(present) | added) - removed))
        if wanted == present:
            return present
        document = json.compact({"schema": formats.RECORD_SCHEMA, "tags": wanted})
        if records.create(keys.tags(flow, run, number), document):
            return wanted


def _tags(records: Records, flow: str, run: str, opened: JSONObject) -> tuple[int, tuple[str, ...]]:
    """The number of the next set of tags and the present one."""
    for name in reversed(records.names(keys.tag_sets(flow, run))):
        document = _document(records, keys.tags(flow, run, int(name)))
        if document is not None:
            return int(name) + 1, tuple(document["tags"])
    return 0, tuple(sorted(set(opened.get("tags", ()))))


def _document(records: Records, key: str) -> JSONObject | None:
    data = records.read(key)
    return None if data is None else formats.document_of(data, formats.RECORD_SCHEMA, key)
