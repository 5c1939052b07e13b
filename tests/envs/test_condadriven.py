"""conda, mamba and micromamba as solvers: conda-lock is the real one, the programs are stand-ins that solve."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs.condaquestion import CondaSolver, Driven
from flowkiln.envs.condasolve import ask
from tests.envs.condasolving import conda_solver, made, question
from tests.services import condalock as judge
from tests.services.standin import calls, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.channel import Channel, ChannelServer

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return made(
        tmp_path / "channel",
        ("demo", "1.0", {"depends": ["leaf >=1"], "timestamp": 1_600_000_000_000}),
        ("demo", "2.0", {"depends": ["leaf >=2"]}),
        ("leaf", "1.0", {"timestamp": 1_600_000_000_000}),
        ("leaf", "2.0"),
        ("gpu", "1.0", {"depends": ["__cuda >=12"]}),
        ("new", "1.0", {"depends": ["__glibc >=2.34"]}),
        ("old-leaf", "1.0", {"depends": ["leaf <2"]}),
    )


@pytest.fixture
def url(channel: Channel, channel_server: ChannelServer) -> str:
    return channel_server.mount("main", channel)


def driven(where: CondaSolver, program: Path) -> CondaSolver:
    environ = {**where.environ, "FLOWKILN_CONDA_LOCK": str(judge.python().with_name("conda-lock"))}
    return replace(where, environ=environ, driven=Driven(solver=program.name, program=program))


@pytest.mark.parametrize("name", ["conda", "mamba", "micromamba"])
def test_the_answer_is_that_of_the_solver_that_is_built_in(name: str, url: str, tmp_path: Path) -> None:
    program = stand_in(tmp_path / "bin" / name)
    wanted = question("demo", own=(("cuda", "12.4"),))
    assert ask(driven(conda_solver(url), program), wanted) == ask(conda_solver(url), wanted)
    assert {one["arguments"][0] for one in calls(program)} == {"--version", "create"}
