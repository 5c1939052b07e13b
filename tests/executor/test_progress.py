from __future__ import annotations

import json

from flowkiln.executor.progress import EVENT_SCHEMA, RunEvent


def test_an_event_is_a_versioned_line_and_comes_back() -> None:
    event = RunEvent(
        kind="task-ended",
        at_us=12,
        flow="F",
        run="1",
        step="a",
        task=4,
        attempt=1,
        indices=(2, 0),
        data={"status": "ok"},
    )
    document = json.loads(json.dumps(event.to_json()))
    assert document["schema"] == EVENT_SCHEMA
    assert RunEvent.from_json(document) == event


def test_what_does_not_apply_is_left_out() -> None:
    assert RunEvent(kind="note", at_us=1, flow="F", run="1").to_json() == {
        "schema": 1,
        "kind": "note",
        "at_us": 1,
        "flow": "F",
        "run": "1",
    }
