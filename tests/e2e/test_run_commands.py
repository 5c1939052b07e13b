"""``flowkiln run`` about runs that go on, and about runs whose launcher was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


def until(found: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if found():
            return
        time.sleep(0.1)
    pytest.fail(f"never: {what}")


def started(project: Project) -> str:
    """The id of a run whose first task waits, its first line kept where others can read it."""
    project.flow("talks")
    process = project.start("flow.py", "run", "--run-id-file", "id")
    shown = project.folder / ".flowkiln" / "tmp"
    until(lambda: any(shown.glob("log-*")) or process.poll() is not None, "a log of a running task")
    assert process.poll() is None, process.communicate()
    return (project.folder / "id").read_text()


def test_a_running_task_has_logs_and_says_that_it_is_running(project: Project) -> None:
    run = started(project)
    for words in ([f"{run}/start"], [f"{run}/start/1", "--attempt", "0"]):
        logs = project.flowkiln("run", "logs", *words).ok()
        assert logs.out == "before the wait\n"
        assert "start/1, attempt 0, is still running" in logs.err
    refused = project.flowkiln("run", "logs", f"{run}/start/1", "--attempt", "3").failed(2, "has no attempt 3")
    assert "Its last one is 0." in refused.err
    (project.folder / "go").touch()
    out, _ = project.started[0].communicate(timeout=60)
    assert "the end" in out
    assert project.flowkiln("run", "logs", f"{run}/start").ok().err == ""


def test_a_killed_launcher_is_seen_and_its_lines_are_kept(project: Project) -> None:
    run = started(project)
    listed = project.flowkiln("run", "list").ok().out
    assert "no driver" not in listed
    assert "running" in listed
    project.started[0].kill()
    project.started[0].communicate(timeout=60)
    until(lambda: "no driver since 20" in project.flowkiln("run", "list").ok().out, "a run without driver")
    assert f"run attach Talks/{run}" in project.flowkiln("run", "list").out
    shown = project.flowkiln("run", "show", run).ok().out
    assert "no driver since 20" in shown
    assert f"`flowkiln run attach Talks/{run}` goes on with it" in shown
    assert project.flowkiln("run", "show", run, "--json").ok().json["driver_gone_us"] > int(run)
    assert "left unfinished" in project.flowkiln("run", "logs", f"{run}/start").ok().err
    (project.folder / "go").touch()
    project.flowkiln("run", "attach", run).ok()
    first = project.flowkiln("run", "logs", f"{run}/start/1", "--attempt", "0").ok()
    assert (first.out, first.err) == ("before the wait\n", "")
    assert list((project.folder / ".flowkiln" / "tmp").glob("log-*")) == []
    assert project.flowkiln("run", "show", run, "--json").ok().json["driver_gone_us"] is None
    project.flowkiln("store", "check").ok()


def test_lists_say_where_they_looked_and_refuse_unknown_states(project: Project) -> None:
    project.flow("linear")
    assert f"no runs in {project.folder}/.flowkiln" in project.flowkiln("run", "list").ok().out
    assert "no such runs in" in project.flowkiln("run", "list", "--status", "interrupted").ok().out
    project.flowkiln("run", "list", "--status", "foo").failed(2, "foo", "interrupted")


def test_old_scratch_files_are_swept_when_a_run_starts(project: Project) -> None:
    project.flow("linear")
    old, young = (project.write(f".flowkiln/tmp/{name}", "x") for name in ("old", "young"))
    os.utime(old, (1, 1))
    project.run().ok()
    assert not old.exists()
    assert young.exists()
