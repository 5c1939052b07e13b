"""What a run shows while it goes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from flowkiln.cli.live import Board, EventFile, Lines, LiveTable, row_texts
from flowkiln.executor.progress import RunEvent


def event(kind: Any, step: str | None = None, task: int | None = None, attempt: Any = 0, **data: Any) -> RunEvent:
    found = None if task is None else attempt
    return RunEvent(
        kind=kind, at_us=1_700_000_000_123_456, flow="F", run="17", step=step, task=task, attempt=found, data=data
    )


STORY = [
    event("run-started"),
    event("task-started", "start", 1),
    event("log", "start", 1, stream="stdout", text="hello"),
    event("foreach", "start", 1, width=2, targets=["fit"]),
    event("task-ended", "start", 1, status="ok"),
    event("task-started", "fit", 2),
    event("task-retrying", "fit", 2, cause="exception", text="ValueError: no", **{"class": "user"}),
    event("task-started", "fit", 2, 1),
    event("task-ended", "fit", 2, 1, status="failed", cause="timeout", text="too long", **{"class": "timeout"}),
    event("task-started", "fit", 3),
    event("task-ended", "fit", 3, status="ok"),
    event("run-ended", status="failed"),
]


def test_plain_lines_have_time_place_and_words() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    for item in STORY:
        lines.emit(item)
    shown = stream.getvalue().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.123 ", line) for line in shown)
    assert [line[24:] for line in shown] == [
        "Workflow starting (run-id 17):",
        "[17/start/1] Task is starting.",
        "[17/start/1] hello",
        "Foreach yields 2 child steps.",
        "[17/start/1] Task finished successfully.",
        "[17/fit/2] Task is starting.",
        "[17/fit/2] user failure (exception): ValueError: no",
        "[17/fit/2] Task failed.",
        "[17/fit/2] Task is starting (retry).",
        "[17/fit/2] timeout failure (timeout): too long",
        "[17/fit/2] Task failed.",
        "[17/fit/2] This failed task will not be retried.",
        "[17/fit/3] Task is starting.",
        "[17/fit/3] Task finished successfully.",
        "Workflow failed.",
    ]


def test_what_was_cancelled_is_one_line() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    data = {"class": "cancelled", "cause": "cancelled", "text": "cancelled", "status": "failed"}
    lines.emit(event("task-ended", "fit", 2, **data))
    lines.emit(event("run-ended", status="interrupted"))
    lines.emit(event("run-ended", status="cancelled"))
    shown = [line[24:] for line in stream.getvalue().splitlines()]
    assert shown == ["[17/fit/2] Task cancelled.", "Workflow interrupted.", "Workflow cancelled."]


def test_a_caught_failure_has_no_class() -> None:
    stream = io.StringIO()
    data = {"status": "ok", "caught": True, "class": None, "cause": "exception", "text": "ValueError: no"}
    Lines(stream).emit(event("task-ended", "fit", 2, **data))
    shown = [line[24:] for line in stream.getvalue().splitlines()]
    assert shown[0] == "[17/fit/2] failure (exception): ValueError: no"


def test_many_lines_cost_few_redraws_of_the_table() -> None:
    stream = io.StringIO()
    table = LiveTable([("start", "-")], Console(file=stream, force_terminal=True, width=100, highlight=False))
    texts = [f"line {number} [bold]" for number in range(3000)]
    for item in (*STORY[:2], *(event("log", "start", 1, stream="stdout", text=text) for text in texts)):
        table.emit(item)
    table.emit(event("task-ended", "start", 1, status="ok"))
    table.close()
    shown = stream.getvalue()
    assert re.findall(r"line \d+ \[bold\]", shown) == texts
    assert 0 < shown.count("ENVIRONMENT") < 300
    assert shown.rindex("ENVIRONMENT") > shown.rindex("[bold]")


def test_quiet_shows_only_what_steps_print() -> None:
    stream = io.StringIO()
    lines = Lines(stream, quiet=True)
    for item in STORY:
        lines.emit(item)
    assert len(stream.getvalue().splitlines()) == 1


def test_the_table_counts_by_step() -> None:
    board = Board([("start", "-"), ("fit", "sk")])
    for moment, item in enumerate(STORY):
        board.take(item, float(moment))
    assert row_texts(board.rows["start"], 20.0) == ["start", "-", "1", "", "", "1", "3.0 s"]
    assert row_texts(board.rows["fit"], 20.0) == ["fit", "sk", "1", "", "1", "2", "5.0 s"]


def test_the_event_file_holds_every_event_as_one_versioned_line(tmp_path: Path) -> None:
    target = EventFile(tmp_path / "events")
    for item in STORY:
        target.emit(item)
    target.close()
    read = [RunEvent.from_json(json.loads(line)) for line in (tmp_path / "events").read_text().splitlines()]
    assert read == STORY
