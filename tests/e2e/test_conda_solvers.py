"""The setting ``conda.solver`` through the command line: conda-lock is real, the solver a stand-in that solves."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.services import condalock as judge
from tests.services.standin import behave, calls, ended, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.project import Project
    from tests.services.channel import Channel, ChannelServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FLOW = """
from flowkiln import FlowSpec, conda, step


class Fitting(FlowSpec):
    @conda(python="3.11", packages={"series-05": "2.*", "noarch-python": "*"})
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self): ...


if __name__ == "__main__":
    Fitting()
"""


@pytest.fixture
def fitting(project: Project, channel_server: ChannelServer, conda_channel: Channel) -> Project:
    channel_server.require("joe", "hush")
    channel_server.mount("main", conda_channel)
    project.write("flow.py", FLOW)
    project.environ["FLOWKILN_CHANNELS"] = channel_server.url_with("joe", "hush", "main")
    project.environ["FLOWKILN_CONDA_LOCK"] = str(judge.python().with_name("conda-lock"))
    return project


def locks(project: Project) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / "flow.locks").iterdir()}


def using(project: Project, solver: str, program: Path) -> None:
    told = f'[tool.flowkiln.conda]\nsolver = "{solver}"\nprogram = "{program}"\n'
    project.write("pyproject.toml", told)


def test_the_lock_is_the_same_and_stays_fresh_whoever_solves(fitting: Project) -> None:
    fitting.flowkiln("env", "lock", "flow.py").ok()
    expected = locks(fitting)
    program = stand_in(fitting.home / "bin" / "micromamba")
    using(fitting, "micromamba", program)
    fitting.flowkiln("env", "lock", "flow.py", "--check").ok()
    fitting.flowkiln("env", "lock", "flow.py").ok()
    assert calls(program) == []
    for path in (fitting.folder / "flow.locks").iterdir():
        path.unlink()
    fitting.flowkiln("env", "lock", "flow.py").ok()
    assert locks(fitting) == expected
    assert {one["environ"]["CONDA_SUBDIR"] for one in calls(program) if "create" in one["arguments"]} == {
        "linux-64",
        "linux-aarch64",
    }
    shown = fitting.flowkiln("doctor", "--offline").ok().out
    assert str(program) in shown
    assert [path for path in fitting.home.rglob("*") if path.is_file() and b"hush" in path.read_bytes()] == []


def test_what_is_missing_is_named_and_nothing_is_written(fitting: Project, tmp_path: Path) -> None:
    using(fitting, "mamba", tmp_path / "no-such-mamba")
    fitting.flowkiln("env", "lock", "flow.py").failed(2, "[ENV090]", "no-such-mamba", "conda.program")
    assert fitting.flowkiln("doctor", "--offline").code == 2
    using(fitting, "conda", stand_in(tmp_path / "conda"))
    fitting.flowkiln("env", "lock", "flow.py", FLOWKILN_CONDA_LOCK="/bin/true").failed(2, "[ENV091]", "/bin/true")
    fitting.flowkiln("env", "lock", "flow.py", FLOWKILN_CONDA_SOLVER="pip").failed(2, "micromamba")
    assert not (fitting.folder / "flow.locks").exists() or locks(fitting) == {}


def test_an_interrupt_ends_the_solver_too(fitting: Project, tmp_path: Path) -> None:
    program = stand_in(tmp_path / "conda")
    using(fitting, "conda", program)
    behave(program, sleep=600)
    process = fitting.start("-m", "flowkiln", "env", "lock", "flow.py")
    for _ in range(1200):
        if any("create" in one["arguments"] for one in calls(program)):
            break
        time.sleep(0.05)
    solving = [one["pid"] for one in calls(program)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(map(ended, solving))
    assert list((fitting.home / "cache" / "scratch").iterdir()) == []
    assert not (fitting.folder / "flow.locks").exists() or locks(fitting) == {}
