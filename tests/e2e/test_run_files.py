"""The files that a run is asked to write: its id, its events."""

from __future__ import annotations

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("option", ["--events", "--run-id-file"])
def test_a_file_that_cannot_be_written_is_a_clear_error_before_the_run_opens(project: Project, option: str) -> None:
    project.flow("linear")
    project.write("file", "not a folder")
    project.run(option, "file/below").failed(2, option, "file/below")
    assert project.flowkiln("run", "list", "--json").ok().json["runs"] == []


def test_folders_of_both_files_are_made(project: Project) -> None:
    project.flow("linear")
    project.run("--events", "a/b/events", "--run-id-file", "c/d/id").ok()
    assert (project.folder / "a/b/events").read_text()
    assert [path.name for path in (project.folder / "c/d").iterdir()] == ["id"]


def test_the_id_may_go_to_what_is_no_plain_file(project: Project) -> None:
    project.flow("linear")
    done = project.run("--run-id-file", "/dev/stderr").ok()
    run = project.flowkiln("run", "list", "--json").ok().json["runs"][0]["run"]
    assert run in done.err


def test_a_run_that_cannot_be_driven_is_closed(project: Project) -> None:
    project.flow("linear")
    project.write("place/code", "a file where the folder of unpacked code would be")
    assert project.run(FLOWKILN_CACHE=str(project.folder / "place")).code != 0
    runs = project.flowkiln("run", "list", "--json").ok().json["runs"]
    assert [one["status"] for one in runs] == ["failed"]
    project.flowkiln("run", "show", runs[0]["run"]).ok()
