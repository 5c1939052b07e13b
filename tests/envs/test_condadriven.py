"""conda, mamba and micromamba as solvers: conda-lock is the real one, the programs are stand-ins that solve."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import paths
from flowkiln._base.command import Limits
from flowkiln.envs import channels
from flowkiln.envs.condaerrors import (
    ChannelDenied,
    CondaConflict,
    CondaLockUnusable,
    SolverFailed,
    SolverMissing,
    WrongAnswer,
)
from flowkiln.envs.condaquestion import CondaSolver, Driven
from flowkiln.envs.condasolve import ask
from flowkiln.envs.errors import LockTimeout, Offline
from tests.envs.condasolving import chosen, conda_solver, demo, made, question
from tests.envs.locking import AMD64, ARM64
from tests.services import condalock as judge
from tests.services.channel import Channel
from tests.services.condacases import dist_info
from tests.services.condapackages import package
from tests.services.standin import behave, calls, ended, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.condaquestion import CondaAnswer
    from flowkiln.envs.lock import LockedConda
    from tests.services.channel import ChannelServer
    from tests.services.home import Home

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return demo(tmp_path / "channel")


@pytest.fixture
def url(channel: Channel, channel_server: ChannelServer) -> str:
    return channel_server.mount("main", channel)


@pytest.fixture(params=["conda", "micromamba"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return stand_in(tmp_path / "bin" / request.param)


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    return stand_in(tmp_path / "bin" / "conda")


def driven(where: str | CondaSolver, program: Path, **environ: str) -> CondaSolver:
    """The solver that has ``program`` choose."""
    where = conda_solver(where) if isinstance(where, str) else where
    told = {**where.environ, "FLOWKILN_CONDA_LOCK": str(judge.python().with_name("conda-lock")), **environ}
    return replace(where, environ=told, driven=Driven(solver=program.name, program=program))


def solved(where: str | CondaSolver, program: Path, *specs: str, **options: Any) -> CondaAnswer:
    return ask(driven(where, program), question(*specs, **options))


CASES: list[tuple[tuple[str, ...], Platform, dict[str, Any]]] = [
    (("scikit-learn", "pandas >=2", "python >=3.11.2"), AMD64, {}),
    (("scikit-learn", "pip"), ARM64, {}),
    (("numpy",), AMD64, {"python": "3.13", "own": (("glibc", "2.40"),)}),
    (("series-29 1.*", "series-14", "constrains-old", "no-timestamp"), AMD64, {}),
    (("series-29", "series-28 <3|>=3.0", "wants-new"), ARM64, {}),
    (("series-29", "series-10"), AMD64, {"exclude_newer": "2024-07-01T00:00:00Z", "python": "3.11"}),
    (("needs-blas", "blas=*=openblas", "metapackage", "cycle-a"), AMD64, {}),
    (("needs-mkl", 'libblas[version=">=3.9", build_number=25]', "libblas !=3.8.*"), ARM64, {}),
    (("pytorch", "cuda-version <12.6"), AMD64, {"own": (("cuda", "12.4"),)}),
    (("pytorch-gpu", "needs-cuda", "needs-linux"), ARM64, {"own": (("cuda", "12.8"),)}),
    (("pytorch 2.5.* cpu*", "old-format", "two-in-one", "egg-file", "noarch-python"), AMD64, {}),
    (("needs-archspec", "needs-glibc"), AMD64, {"own": (("archspec", "x86_64_v3"), ("glibc", "2.34"))}),
]


@pytest.mark.parametrize(("specs", "platform", "options"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_the_packages_are_those_of_the_solver_that_is_built_in(
    specs: tuple[str, ...], platform: Platform, options: dict[str, Any], conda_channel: Channel, program: Path
) -> None:
    wanted = question(*specs, platform=platform, **options)
    solver = conda_solver(conda_channel.url)
    assert ask(driven(solver, program), wanted) == ask(solver, wanted)
    assert {one["arguments"][0] for one in calls(program)} == {"--version", "create"}


def test_what_cannot_be_chosen_is_not_in_both_solvers(conda_channel: Channel, conda: Path) -> None:
    solver = conda_solver(conda_channel.url)
    cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("no-timestamp",), {"exclude_newer": "2026-07-01T00:00:00Z"}),
        (("wants-old", "wants-new"), {}),
        (("needs-glibc",), {}),
        (("needs-cuda",), {}),
        (("wants-absent",), {}),
        (("python >=3.13",), {}),
        (("libblas[build_number=26]",), {}),
    ]
    for specs, options in cases:
        for one in (solver, driven(solver, conda)):
            with pytest.raises(CondaConflict):
                ask(one, question(*specs, **options))


def test_python_is_an_ordinary_build(tmp_path: Path, channel_server: ChannelServer, conda: Path) -> None:
    builds = {"3.13.1": "0_cp313", "3.13.2": "0_cp313t"}
    url = channel_server.mount("main", made(tmp_path / "channel", **builds))
    assert [one.version for one in solved(url, conda, python="3.13").packages] == ["3.13.1"]


def test_the_first_channel_that_has_a_package_decides(
    tmp_path: Path, url: str, channel_server: ChannelServer, conda: Path
) -> None:
    first = channel_server.mount("first", made(tmp_path / "first", ("leaf", "1.5")))
    other = channel_server.mount("other", made(tmp_path / "other", ("only", "1.0"), ("leaf", "9.0")))
    solver = conda_solver(first, url)
    assert chosen(solved(solver, conda, "leaf")) == {"leaf": "1.5"}
    with pytest.raises(CondaConflict):
        solved(solver, conda, "leaf >=2")
    directed = solved(solver, conda, f"{url}::leaf", f"{other}::only")
    assert [one.url for one in directed.packages if one.name == "leaf"] == [f"{url}/noarch/leaf-2.0-0.conda"]
    assert directed.channels == (first, url, other)


def test_packages_of_an_earlier_lock_are_kept_and_moved_by_name(url: str, program: Path) -> None:
    before = solved(url, program, "demo ==1.0", "leaf ==1.0").packages
    assert chosen(solved(url, program, "demo", "leaf", preferred=before)) == {"demo": "1.0", "leaf": "1.0"}
    every = solved(url, program, "demo", "leaf", preferred=before, upgrade=True)
    assert chosen(every) == {"demo": "2.0", "leaf": "2.0"}
    only_leaf = solved(url, program, "demo", "leaf", preferred=before, upgrade=frozenset({"leaf"}))
    assert chosen(only_leaf) == {"demo": "1.0", "leaf": "2.0"}
    verb = "install" if program.name == "conda" else "update"
    assert [one["arguments"][0] for one in calls(program)][-2:] == ["list", verb]
    # one that only others need, and one that takes another with it
    assert chosen(solved(url, program, "demo", preferred=before, upgrade=frozenset({"leaf"}))) == chosen(only_leaf)
    demo = solved(url, program, "demo", preferred=before, upgrade=frozenset({"demo"}))
    assert chosen(demo) == {"demo": "2.0", "leaf": "2.0"}
    changed = tuple(replace(one, sha256="0" * 64) for one in before)
    assert chosen(solved(url, program, "demo", "leaf", preferred=changed)) == {"demo": "2.0", "leaf": "2.0"}


def test_a_changed_request_moves_what_it_must(url: str, channel: Channel, conda: Path) -> None:
    for name in ("apart", "further"):
        package(channel.folder, name, "1.0")
    channel.index()
    before = solved(url, conda, "demo ==1.0", "apart").packages
    package(channel.folder, "apart", "2.0")
    channel.index()
    both = solved(url, conda, "demo", "apart", "further", preferred=before)
    assert chosen(both) == {"demo": "1.0", "leaf": chosen_of(before, "leaf"), "apart": "1.0", "further": "1.0"}
    moved = solved(url, conda, "demo >=2", "apart", preferred=before)
    assert chosen(moved) == {"demo": "2.0", "leaf": "2.0", "apart": "1.0"}
    removed = solved(url, conda, "demo", preferred=before, upgrade=frozenset({"demo"}))
    assert chosen(removed) == {"demo": "2.0", "leaf": "2.0"}


def chosen_of(packages: tuple[LockedConda, ...], name: str) -> str:
    return next(one.version for one in packages if one.name == name)


def test_versions_of_another_platform_are_taken_where_they_can_be(url: str, conda: Path) -> None:
    other = {"demo": "1.0", "absent": "1"}
    assert chosen(solved(url, conda, "demo", versions=other)) == {"demo": "1.0", "leaf": "2.0"}
    apart = {"demo": "2.0", "leaf": "1.0"}  # cannot be together; demo alone is asked for
    assert chosen(solved(url, conda, "demo", versions=apart)) == {"demo": "2.0", "leaf": "2.0"}
    assert chosen(solved(url, conda, "demo >=2", versions={"demo": "1.0"}))["demo"] == "2.0"


def test_the_program_is_told_of_the_platform_and_of_nothing_else(
    url: str, tmp_path: Path, conda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"CONDA_OVERRIDE_CUDA": "99", "CONDA_SUBDIR": "osx-64", "CONDA_CHANNELS": "x"}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(CondaConflict) as caught:
        solved(url, conda, "gpu", platform=ARM64)
    for part in ("fit", "linux/arm64", "train", "__cuda >=12", "__glibc 2.28 (glibc)", "__linux 5.10", url):
        assert part in caught.value.message
    assert "cuda=" in str(caught.value.hint)
    assert (caught.value.step, caught.value.exit_code) == ("train", 4)
    assert str(tmp_path) not in caught.value.message
    environ = calls(conda)[-1]["environ"]
    told = {name: text for name, text in environ.items() if name.startswith("CONDA_OVERRIDE_") and text}
    assert told == {
        "CONDA_OVERRIDE_ARCHSPEC": "aarch64",
        "CONDA_OVERRIDE_GLIBC": "2.28",
        "CONDA_OVERRIDE_LINUX": "5.10",
        "CONDA_OVERRIDE_UNIX": "0",
    }
    assert environ["CONDA_SUBDIR"] == "linux-aarch64"
    assert "CONDA_CHANNELS" not in environ
    assert (environ["CONDA_CHANNEL_PRIORITY"], environ["MAMBA_CHANNEL_PRIORITY"]) == ("strict", "strict")
    assert environ["HOME"] != os.environ["HOME"]


@pytest.mark.parametrize("how", ["password", "token", "netrc", "mirror"])
def test_no_login_reaches_the_program_or_a_file(
    how: str, home: Home, channel: Channel, channel_server: ChannelServer, tmp_path: Path, conda: Path
) -> None:
    package(channel.folder, "inside", files=dist_info("site-packages", "inside", "1.0"), depends=["python"])
    channel.index()
    url = told = channel_server.mount("main", channel)
    if how == "token":
        channel_server.require_token("hush")
        told = channel_server.url_with_token("hush", "main")
    else:
        channel_server.require("joe", "hush")
        if how == "password":
            told = channel_server.url_with("joe", "hush", "main")
    with pytest.raises(ChannelDenied):
        solved(url, conda, "inside")
    assert calls(conda) == []  # the channels are read before
    environ = {"HOME": str(tmp_path / "user"), "NETRC": str(tmp_path / "user" / "netrc")}
    (tmp_path / "user").mkdir()
    if how in ("netrc", "mirror"):
        (tmp_path / "user" / "netrc").write_text("machine 127.0.0.1 login joe password hush\n")
    if how == "mirror":
        (tmp_path / "user" / ".condarc").write_text(f"mirrored_channels: {{'{url}x': ['{url}']}}\n")
        told = url = f"{url}x"
    solver = replace(conda_solver(url), plan=channels.plan([told], environ=environ))
    answer = solved(solver, conda, "inside")
    assert answer == ask(solver, question("inside"))
    assert "hush" not in repr(answer)
    assert "hush" not in json.dumps(calls(conda))
    assert [path for path in home.root.rglob("*") if path.is_file() and b"hush" in path.read_bytes()] == []


def test_offline_uses_what_was_read_before(url: str, channel_server: ChannelServer, conda: Path) -> None:
    cold = conda_solver(url, offline=True)
    with pytest.raises(Offline):
        solved(cold, conda, "leaf")
    answer = solved(url, conda, "leaf")
    channel_server.forget_requests()
    assert solved(cold, conda, "leaf") == answer
    assert channel_server.total == 0
    with pytest.raises(CondaConflict, match="absent") as caught:
        solved(cold, conda, "absent")
    assert "--offline" in str(caught.value.hint)


def test_the_cut_off_is_read_alike(tmp_path: Path, conda: Path) -> None:
    built, indexed = 1_600_000_000_000, 1_800_000_000_000
    channel = made(tmp_path / "channel", ("one", "1", {"timestamp": built}), ("one", "2", {"timestamp": built}))
    for path in channel.folder.glob("*/python-*"):
        channel.state(path, timestamp=built)
    channel.state(channel.find("one", "2"), indexed_timestamp=indexed)
    channel.index()
    asked = question("one", exclude_newer="2026-01-01T00:00:00Z")
    solver = conda_solver(channel.url)
    assert chosen(ask(solver, asked)) == chosen(ask(driven(solver, conda), asked)) == {"one": "1"}


def test_offline_a_channel_with_nothing_for_the_platform_is_known(
    url: str, tmp_path: Path, channel_server: ChannelServer, conda: Path
) -> None:
    first = channel_server.mount("first", Channel(tmp_path / "first").index())
    answer = solved(conda_solver(first, url), conda, "leaf")
    assert solved(conda_solver(first, url, offline=True), conda, "leaf") == answer


def test_a_program_that_is_not_there(url: str, tmp_path: Path, conda: Path) -> None:
    absent = replace(driven(url, conda), driven=Driven(solver="mamba"), environ={"PATH": str(tmp_path)})
    with pytest.raises(SolverMissing, match="mamba") as caught:
        ask(absent, question("leaf"))
    assert "conda.program" in str(caught.value.hint)
    with pytest.raises(SolverMissing, match="none is not a program"):
        ask(replace(absent, driven=Driven(solver="mamba", program=tmp_path / "none")), question("leaf"))
    found = replace(absent, driven=Driven(solver="conda"), environ={**driven(url, conda).environ, "PATH": ""})
    with pytest.raises(SolverMissing, match="conda is to choose"):
        ask(found, question("leaf"))
    named = replace(found, environ={**found.environ, "CONDA_EXE": str(conda)})
    assert chosen(ask(named, question("leaf"))) == {"leaf": "2.0"}


def test_a_program_of_another_name_is_still_what_the_setting_says(url: str, tmp_path: Path) -> None:
    odd = stand_in(tmp_path / "bin" / "mm-2.0")
    solver = replace(driven(url, odd), driven=Driven(solver="micromamba", program=odd))
    before = ask(solver, question("leaf ==1.0")).packages
    assert chosen(ask(solver, question("leaf", preferred=before, upgrade=frozenset({"leaf"})))) == {"leaf": "2.0"}
    assert calls(odd)[-1]["arguments"][0] == "update"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'conda-lock, version 2.5.7'\n", r"conda-lock 2\.5\.7 .* is too old"),
        ("#!/bin/sh\necho 'something else'\n", "not a usable conda-lock"),
        ("", "not a usable conda-lock"),
    ],
)
def test_a_conda_lock_that_cannot_be_used(script: str, said: str, url: str, tmp_path: Path, conda: Path) -> None:
    program = tmp_path / "conda-lock"
    program.write_text(script)
    program.chmod(0o755)
    with pytest.raises(CondaLockUnusable, match=said) as caught:
        ask(driven(url, conda, FLOWKILN_CONDA_LOCK=str(program)), question("leaf"))
    assert "FLOWKILN_CONDA_LOCK" in str(caught.value.hint)


def test_a_program_that_fails_is_quoted_with_its_log(url: str, conda: Path) -> None:
    behave(conda, fail="OSError: [Errno 28] No space left on device")
    with pytest.raises(SolverFailed, match="No space left on device") as caught:
        solved(url, conda, "leaf")
    assert (caught.value.step, caught.value.exit_code) == ("train", 5)
    assert caught.value.log is not None
    assert "--virtual-package-spec" in (paths.cache_root() / "logs" / caught.value.log).read_text()


def test_an_answer_that_is_not_what_was_asked_for_locks_nothing(url: str, channel: Channel, conda: Path) -> None:
    behave(conda, instead={"leaf >=2": "leaf <2"})
    with pytest.raises(WrongAnswer, match="asked for was leaf >=2") as caught:
        solved(url, conda, "leaf >=2")
    assert caught.value.step == "train"


def test_moving_packages_that_answers_wrongly_gives_way_to_choosing_anew(url: str, conda: Path) -> None:
    before = solved(url, conda, "demo ==1.0", "leaf ==1.0").packages
    behave(conda, moves="demo")  # and leaves the leaf that it needs where it is
    found = solved(url, conda, "demo", preferred=before, upgrade=frozenset({"demo"}))
    assert chosen(found) == {"demo": "2.0", "leaf": "2.0"}
    assert [one["arguments"][0] for one in calls(conda)][-3:] == ["install", "--version", "create"]


def test_a_program_that_hangs_is_ended_at_the_limit(url: str, conda: Path) -> None:
    behave(conda, sleep=600)
    with pytest.raises(LockTimeout, match="conda chose no conda packages within 4 s") as caught:
        solved(conda_solver(url, limits=Limits(total=4, stall=4)), conda, "leaf")
    assert "FLOWKILN_LOCK_TIMEOUT" in str(caught.value.hint)
    assert ended(calls(conda)[-1]["pid"])
    assert scratch() == []


def test_an_interrupt_ends_the_program_and_leaves_nothing(url: str, conda: Path) -> None:
    behave(conda, sleep=600)

    def interrupt() -> None:
        while len(calls(conda)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        solved(url, conda, "leaf")
    thread.join()
    assert ended(calls(conda)[-1]["pid"])
    assert scratch() == []


def scratch() -> list[Path]:
    return list((paths.cache_root() / "scratch").iterdir())
