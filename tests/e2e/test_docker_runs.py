"""Launchers of docker runs come and go: attach, cancel, Ctrl-C, and looking at a run from elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.containers import Dock, docked, wait_for
from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


@pytest.fixture
def dock(project: Project) -> Iterator[Dock]:
    yield from docked(project)


class Waiting:
    """A run of the flow ``waits`` whose launcher can be ended while its tasks are waiting.

    ``everywhere`` puts all steps into containers, not only the one that waits.
    """

    def __init__(self, dock: Dock, width: int = 3, *, everywhere: bool = False) -> None:
        self.dock = dock
        self.out = dock.project.folder / "out"
        self.out.mkdir()
        dock.project.flow("waits")
        command = ["run", "--max-workers", "2", "--width", str(width), "--run-id-file", "id"]
        command += ["--with", "docker"] if everywhere else []
        self.launcher = dock.project.start("flow.py", *command)
        wait_for(lambda: len(self.notes()) == 2, self.launcher)
        self.run = (dock.project.folder / "id").read_text().strip()

    @property
    def name(self) -> str:
        return f"Waits/{self.run}"

    def notes(self) -> dict[str, str]:
        """What each task noted so far."""
        return {path.name: path.read_text() for path in self.out.iterdir() if path.name != "go"}

    def kill(self) -> None:
        os.killpg(self.launcher.pid, signal.SIGKILL)
        self.launcher.communicate()

    def go(self) -> None:
        """Lets the tasks end."""
        (self.out / "go").touch()


@pytest.mark.parametrize("everywhere", [True, False])
def test_j06_containers_outlive_a_killed_launcher_and_attach_goes_on(dock: Dock, everywhere: bool) -> None:
    """``everywhere`` or in one step alone, the others being processes."""
    waiting = Waiting(dock, everywhere=everywhere)
    running = {one["Id"] for one in dock.containers()}
    waiting.kill()
    assert {one["Id"] for one in dock.containers() if one["State"] == "running"} == running
    shown = dock.project.flowkiln("run", "show", waiting.name).ok().out
    assert "attach" in shown
    attaching = dock.project.start("-m", "flowkiln", "run", "attach", waiting.name, "--events", "events")
    events = dock.project.folder / "events"
    wait_for(lambda: events.exists() and "begins" in events.read_text(), attaching)
    waiting.go()
    out, err = attaching.communicate(timeout=60)
    assert attaching.returncode == 0, err
    assert "squares [0, 1, 4]" in out
    assert waiting.notes() == dict.fromkeys(["0", "1", "2"], "began\nended\n")
    assert dock.containers() == []


def test_containers_that_ended_while_nobody_watched_are_not_run_again(dock: Dock) -> None:
    waiting = Waiting(dock)
    waiting.kill()
    waiting.go()
    wait_for(lambda: all(one["State"] == "exited" for one in dock.containers()))
    done = dock.project.flowkiln("run", "attach", waiting.name).ok()
    assert "squares [0, 1, 4]" in done.out
    assert waiting.notes() == dict.fromkeys(["0", "1", "2"], "began\nended\n")
    assert dock.containers() == []


def test_j05_ctrl_c_leaves_no_container(dock: Dock) -> None:
    waiting = Waiting(dock)
    os.kill(waiting.launcher.pid, signal.SIGINT)
    out, err = waiting.launcher.communicate(timeout=60)
    assert waiting.launcher.returncode == 130, err
    assert "ending 2 running tasks" in out + err
    assert "Traceback" not in out + err
    assert dock.containers() == []
    assert set(waiting.notes().values()) == {"began\n"}


def test_j05_cancel_from_elsewhere_ends_the_containers_of_a_living_launcher(dock: Dock) -> None:
    waiting = Waiting(dock)
    listed = dock.project.flowkiln("run", "list", "--json").ok().json["runs"]
    assert [(one["run"], one["status"]) for one in listed] == [(waiting.run, "running")]
    done = dock.project.flowkiln("run", "cancel", waiting.name).ok()
    assert "nothing of it runs any more" in done.out
    waiting.launcher.communicate(timeout=60)
    assert waiting.launcher.returncode == 130
    assert dock.containers() == []


@pytest.mark.parametrize("everywhere", [True, False])
def test_j05_cancel_ends_the_containers_of_a_launcher_that_was_killed(dock: Dock, everywhere: bool) -> None:
    waiting = Waiting(dock, everywhere=everywhere)
    waiting.kill()
    done = dock.project.flowkiln("run", "cancel", waiting.name).ok()
    assert "cancelled; nothing of it runs any more" in done.out
    assert dock.containers() == []
    assert set(waiting.notes().values()) == {"began\n"}
    tasks = dock.project.flowkiln("run", "show", waiting.name, "--json").ok().json["tasks"]
    assert {one["failure"]["cause"] for one in tasks if one.get("failure")} == {"cancelled"}


def test_a_run_is_neither_cancelled_nor_gone_on_with_where_its_engine_is_unknown(
    dock: Dock, tmp_path: Path
) -> None:
    waiting = Waiting(dock)
    waiting.kill()
    other = Dock(Project(dock.project.folder, dock.project.home), "containerd").host
    for verb in ("cancel", "attach"):
        gone = f"unix://{tmp_path}/gone.sock"
        dock.project.flowkiln("run", verb, waiting.name, DOCKER_HOST=gone).failed(5, "ENG001", "gone.sock")
        refused = dock.project.flowkiln("run", verb, waiting.name, DOCKER_HOST=other)
        refused.failed(5, "RUN042", f"DOCKER_HOST={dock.host}")
    assert len([one for one in dock.containers() if one["State"] == "running"]) == 2
    dock.project.flowkiln("run", "cancel", waiting.name).ok()
    assert dock.containers() == []


def test_a_container_that_somebody_removed_is_lost_and_its_task_run_again(dock: Dock) -> None:
    waiting = Waiting(dock, 2)
    (victim, _) = dock.containers()
    subprocess.run(
        ["docker", "rm", "--force", victim["Id"]],
        check=True,
        capture_output=True,
        env={"DOCKER_HOST": dock.host, "PATH": os.environ["PATH"]},
    )
    wait_for(lambda: sum(text.count("began") for text in waiting.notes().values()) == 3, waiting.launcher)
    waiting.go()
    out, err = waiting.launcher.communicate(timeout=60)
    assert waiting.launcher.returncode == 0, err
    assert "squares [0, 1]" in out
    assert sorted(waiting.notes().values()) == ["began\nbegan\nended\n", "began\nended\n"]
    assert "infrastructure failure" in out


def test_a_docker_run_can_be_looked_at(dock: Dock) -> None:
    waiting = Waiting(dock, 2, everywhere=True)
    logs = ("run", "logs", f"{waiting.name}/work")
    live = wait_for(lambda: dock.project.flowkiln(*logs).ok().out)
    assert {line.partition("] ")[2] for line in live.splitlines()} <= {"begins 0", "begins 1"}
    waiting.go()
    waiting.launcher.communicate(timeout=60)
    whole = dock.project.flowkiln("run", "logs", waiting.name).ok().out
    assert sorted(line.partition("] ")[2] for line in whole.splitlines()) == [
        "begins 0",
        "begins 1",
        "squares [0, 1]",
    ]
    shown = dock.project.flowkiln("run", "show", waiting.name, "--json").ok().json
    images = [one["environment"]["image"] for one in shown["tasks"]]
    assert {one["base"] for one in images} == {dock.base}
    assert all(one["id"].startswith("sha256:") for one in images)
    assert json.dumps(shown).count('"vouched": "engine"') == 5
    text = dock.project.flowkiln("run", "show", f"{waiting.name}/start").ok().out
    assert f"image        {images[0]['reference']}\n" in text
    assert f"base         {dock.base}\n" in text
    assert "vouched by   engine\n" in text
