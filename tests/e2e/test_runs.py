from __future__ import annotations

import contextlib
import json
import re
import sqlite3

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


def test_linear_flow_runs_and_can_be_looked_at(project: Project) -> None:
    project.flow("linear")
    done = project.run("--alpha", "5", "--run-id-file", "id").ok()
    assert "total 10 kept" in done.out
    run = (project.folder / "id").read_text().strip()
    assert re.fullmatch(r"\d{16}", run)
    assert f"middle of {run} says none" in done.out
    shown = project.python("flow.py", "show").ok().out
    assert "Adds up." in shown
    assert "middle" in shown
    dumped = project.python("flow.py", "dump", f"{run}/end").ok().out
    assert "total" in dumped
    assert "_private" not in dumped
    assert "_private" in project.python("flow.py", "dump", "--private", f"{run}/end").ok().out
    logs = project.python("flow.py", "logs", f"{run}/middle").ok().out
    assert logs == f"middle of {run} says none\n"
    listed = project.flowkiln("run", "list", "--json").ok().json
    assert [entry["run"] for entry in listed["runs"]] == [run]


def test_the_store_is_that_of_the_flow_files_project(project: Project) -> None:
    project.flow("linear").rename(project.write("inner/pyproject.toml", "").parent / "flow.py")
    run = project.python("inner/flow.py", "run", "--alpha", "1", "--run-id-file", "id").ok()
    assert "total" in run.out
    assert (project.folder / "inner" / ".flowkiln").is_dir()
    assert not (project.folder / ".flowkiln").exists()
    number = (project.folder / "id").read_text().strip()
    assert "total" in project.python("inner/flow.py", "dump", f"{number}/end").ok().out
    project.python("inner/flow.py", "run", "--store", "s3://bucket/x").failed(2, "CFG001", "not a URL")
    assert not (project.folder / "s3:").exists()


def test_options_stand_on_either_side_of_the_verb(project: Project) -> None:
    project.flow("linear")
    first = project.python("flow.py", "--quiet", "run", "--alpha", "1").ok()
    second = project.python("flow.py", "run", "--quiet", "--alpha", "1").ok()
    assert first.err == second.err == ""


def test_parameters_come_from_the_environment_too(project: Project) -> None:
    project.flow("linear")
    assert "total 14 kept" in project.run(FLOWKILN_RUN_ALPHA="7").ok().out


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--alpha", "seven"], ["alpha", "seven"]),
        (["--gamma", "1"], ["--gamma"]),
        (["--max-workers", "0"], ["max-workers"]),
        (["--with", "retry:tiems=3"], ["tiems", "times"]),
        (["--with", "nothing"], ["nothing"]),
    ],
)
def test_bad_options_are_one_clear_line(project: Project, words: list[str], texts: list[str]) -> None:
    project.flow("linear")
    project.run(*words).failed(2, *texts)


def test_nested_foreach_branches_and_merges(project: Project) -> None:
    project.flow("nested")
    done = project.run().ok()
    assert "['A0', 'B0', 'B1', 'C0', 'C1', 'C2'] ['a', 'b', 'c'] 7 {'k': [1, 2]}" in done.out


def test_retry_timeout_and_catch(project: Project) -> None:
    project.flow("retries")
    done = project.run("--folder", str(project.folder)).ok()
    assert (project.folder / "tries").read_text() == "0\n1\n2\n"
    assert "Timeout" in done.out
    assert "|" in done.out


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_foreach_over_lists_and_generators(project: Project, kind: str) -> None:
    project.flow("widths")
    assert "total 9900" in project.run("--width", "100", "--kind", kind).ok().out


def test_foreach_over_nothing_names_step_and_attribute(project: Project) -> None:
    project.flow("widths")
    done = project.run("--width", "0").failed(1, "error[FLW041] step 'start': foreach='items'", "at least one item")
    assert "Traceback" not in done.out + done.err
    assert "EmptyForeach" not in done.out + done.err


def test_foreach_wider_than_allowed_names_both_numbers(project: Project) -> None:
    project.flow("widths")
    project.run("--width", "5", "--max-num-splits", "4").failed(1, "error[FLW042]", "4")


def test_more_of_a_traceback_is_shown_to_those_who_ask(project: Project) -> None:
    project.flow("widths")
    assert "transitions.py" in project.run("--width", "0", "--verbose").failed(1).out


def test_a_small_task_is_two_objects(project: Project) -> None:
    project.flow("widths")
    project.run("--width", "50").ok()
    stored = [path for path in (project.folder / ".flowkiln" / "r").glob("*/t/*/*/*") if path.is_file()]
    assert len(stored) <= 2 * (50 + 4)


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_foreach_over_a_hundred_thousand(project: Project) -> None:
    project.flow("widths")
    done = project.timed(2400, "flow.py", "--quiet", "run", "--width", "100000").ok()
    assert "total 9999900000" in done.out


def test_events_are_versioned_ndjson(project: Project) -> None:
    project.flow("linear")
    project.run("--events", "events.ndjson").ok()
    events = [json.loads(line) for line in (project.folder / "events.ndjson").read_text().splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "run-started"
    assert kinds[-1] == "run-ended"
    assert kinds.count("task-started") == kinds.count("task-ended") == 3
    assert all(event["schema"] == 1 for event in events)


def test_the_index_is_rebuilt_from_the_store(project: Project) -> None:
    project.flow("linear")
    project.run().ok()
    before = project.flowkiln("run", "list", "--json").ok().json["runs"]
    for path in (project.home / "cache").rglob("*.sqlite*"):
        path.unlink()
    project.flowkiln("store", "reindex").ok()
    assert project.flowkiln("run", "list", "--json").ok().json["runs"] == before
    project.flowkiln("store", "check").ok()


def test_a_run_is_in_the_index_without_a_look_at_the_store(project: Project) -> None:
    project.flow("linear")
    project.flowkiln("run", "list").ok()
    project.run("--run-id-file", "id").ok()
    (file,) = (project.home / "cache").rglob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as database:
        found = database.execute("SELECT run, status FROM runs").fetchall()
    assert found == [((project.folder / "id").read_text(), "ok")]


def test_an_unmanaged_flow_is_recorded_as_such(project: Project) -> None:
    project.flow("linear")
    project.run("--run-id-file", "id").ok()
    run = (project.folder / "id").read_text().strip()
    shown = project.flowkiln("run", "show", f"Linear/{run}", "--json").ok().json
    text = json.dumps(shown)
    assert "unmanaged" in text
    assert "sha256:" not in json.dumps([task.get("env_id") for task in shown["tasks"]])
