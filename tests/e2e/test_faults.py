from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.project import Project

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("raise", ["start", "no such luck"]),
        ("exit-zero", ["start", "without finishing"]),
        ("exit-three", ["start", "3"]),
        ("sys-exit", ["start", "4"]),
        ("segfault", ["start", "SIGSEGV"]),
        ("kill", ["start", "SIGKILL"]),
        ("unpicklable", ["error[STO005] step 'start'", "model['layers'][2]['lock']", "lock"]),
    ],
)
def test_a_step_that_fails_names_itself_and_its_cause(project: Project, kind: str, texts: list[str]) -> None:
    project.flow("faults")
    done = project.run("--kind", kind)
    shown = done.out + done.err
    assert done.code in (1, 5), shown
    for text in texts:
        assert text in shown, shown
    project.flowkiln("store", "check").ok()


@pytest.mark.parametrize("kind", ["none", "fork", "threads", "close"])
def test_a_step_that_does_odd_things_still_succeeds(project: Project, kind: str) -> None:
    project.flow("faults")
    assert "reached the end 1" in project.run("--kind", kind).ok().out


def test_a_step_that_prints_100_mb_keeps_every_line(project: Project) -> None:
    project.flow("faults")
    project.run("--kind", "print", "--run-id-file", "id").ok()
    run = (project.folder / "id").read_text().strip()
    logs = project.python("flow.py", "logs", f"{run}/start").ok().out
    assert logs.count("\n") == 100 * 1024
    assert len(logs) == 100 * 1024 * 1024


def _wait_for(path: Path, lines: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if path.exists() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.02)
    pytest.fail(f"{path} never had {lines} lines")


def _alive(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (
                    str((entry / "cwd").readlink()) == str(folder)
                    or str(folder).encode() in (entry / "cmdline").read_bytes()
                ):
                    found.append(entry.name)
            except OSError:
                continue
    return found


def test_ctrl_c_ends_what_it_started_and_says_so(project: Project) -> None:
    project.flow("sleeps")
    process = project.start(
        *("flow.py", "run", "--folder", str(project.folder), "--seconds", "5", "--max-workers", "2"),
        *("--run-id-file", "id"),
    )
    until = time.monotonic() + 60
    while not (project.folder / "id").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, out + err
    assert "cancel" in err.lower() or "interrupt" in err.lower(), err
    assert "Workflow interrupted." in out
    assert "Task cancelled." in out
    assert "failed" not in out
    assert _alive(project.folder) == []
    runs = project.flowkiln("run", "list", "--json").ok().json["runs"]
    assert runs[0]["status"] in ("interrupted", "cancelled")


def test_cancel_from_another_terminal(project: Project) -> None:
    project.flow("sleeps")
    process = project.start(
        *("flow.py", "run", "--folder", str(project.folder), "--seconds", "20", "--max-workers", "2"),
        *("--run-id-file", "id"),
    )
    until = time.monotonic() + 30
    while not (project.folder / "id").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    run = (project.folder / "id").read_text().strip()
    project.flowkiln("run", "cancel", f"Sleeps/{run}").ok()
    out, err = process.communicate(timeout=30)
    assert process.returncode != 0, out + err
    assert _alive(project.folder) == []
    assert project.flowkiln("run", "list", "--json").ok().json["runs"][0]["status"] == "cancelled"


@pytest.mark.parametrize("after", [1, 4, 7])
def test_attach_after_a_killed_launcher_gives_the_undisturbed_result(project: Project, after: int) -> None:
    project.flow("sleeps")
    process = project.start(
        *("flow.py", "run", "--folder", str(project.folder), "--max-workers", "2", "--run-id-file", "id")
    )
    _wait_for(project.folder / "done", after)
    process.kill()
    process.communicate(timeout=30)
    until = time.monotonic() + 20
    while _alive(project.folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert _alive(project.folder) == []
    run = (project.folder / "id").read_text().strip()
    done = project.flowkiln("run", "attach", f"Sleeps/{run}").ok()
    assert "executing" not in project.flowkiln("run", "attach", f"Sleeps/{run}").failed(2, "RUN008").err
    assert "squares [0, 1, 4, 9, 16, 25, 36, 49]" in done.out
    worked = (project.folder / "done").read_text().split()
    assert sorted(set(worked)) == [str(n) for n in range(8)]
    assert len(worked) <= 8 + 2
    project.flowkiln("store", "check").ok()


def test_two_hundred_starts_at_once_never_share_a_run_or_a_parameter(project: Project) -> None:
    project.flow("linear")
    for batch in range(10):
        processes = [
            project.start(
                "flow.py", "--quiet", "run", "--alpha", str(batch * 20 + n), "--run-id-file", f"ids/{batch}-{n}"
            )
            for n in range(20)
        ]
        for n, process in enumerate(processes):
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, out + err
            assert f"total {2 * (batch * 20 + n)} kept" in out
    ids = [path.read_text().strip() for path in (project.folder / "ids").iterdir()]
    assert len(set(ids)) == 200


def test_a_read_only_store_is_one_clear_error(project: Project) -> None:
    project.flow("linear")
    blocked = project.write("blocked", "not a folder")
    project.run(FLOWKILN_STORE=str(blocked / "store")).failed(19, "blocked")


def test_windows_is_told_about_wsl(project: Project) -> None:
    project.write("w.py", "import sys\nsys.platform = 'win32'\nimport flowkiln\nflowkiln.FlowSpec\n")
    done = project.python("w.py")
    assert done.code != 0
    assert "WSL" in done.err
    assert "fcntl" not in done.err
