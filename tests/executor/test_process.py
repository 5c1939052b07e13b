"""The process backend with real processes: what a step may do to itself, and what becomes of its attempt."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor.vocabulary import Began, Sealed
from flowkiln.store.errors import RecordDamaged

from .bench import HOST, RUN, Bench

Make = Callable[..., Bench]


def version_of(python: str) -> list[str]:
    """The numbers of an interpreter's version, none when it does not work."""
    ran = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return ran.stdout.removeprefix("Python ").split(".") if ran.returncode == 0 else []


def test_an_attempt_runs_and_is_sealed(bench: Make) -> None:
    run = bench("print('hello'); return assignment.task * 10")
    outcome = run.run_one()
    assert outcome.ok
    assert outcome.artifacts == {"value": {"v": 10}}
    assert run.log(outcome) == ["hello"]
    assert [type(event) for event in run.events] == [Began, Sealed]
    assert outcome.environment["isolation"] == "fork", outcome.environment
    assert sorted(run.store.records.names(f"r/{RUN}/t/1/0")) == ["begin", "outcome"]


def test_that_an_attempt_began_is_told_before_its_lines(bench: Make) -> None:
    run = bench("print('hello')")
    run.run_one()
    run.lines.clear()
    run.submit()
    time.sleep(0.2)  # time for the line to be there already
    assert [type(event) for event in run.backend.poll(5)] == [Began]
    assert run.lines == []
    run.poll_until(Sealed)
    assert len(run.lines) == 1


INTERPRETERS = sorted(
    {
        (int(version[1]), path)
        for path in [
            *(shutil.which(f"python3.{minor}") for minor in range(11, 16)),
            *map(str, Path.home().glob(".pyenv/versions/3.*/bin/python3")),
        ]
        if path is not None and (version := version_of(path))[:1] == ["3"] and 11 <= int(version[1]) <= 15
    }
)


@pytest.mark.parametrize(("minor", "python"), INTERPRETERS)
@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_steps_run_on_every_supported_python(bench: Make, minor: int, python: str, isolation: str) -> None:
    prefix = dataclasses.replace(HOST, python=python)
    body = """
    import atexit, threading
    atexit.register(print, "bye")
    threading.Thread(target=print, args=("thread",)).start()
    if assignment.task == 2:
        raise ValueError("on purpose")
    if assignment.task == 3:
        time.sleep(60)
    return list(sys.version_info[:2])
    """
    strict = "import warnings; warnings.simplefilter('error')"
    run = bench(body, prefix=prefix, isolation=isolation, timeout=1.0, head=strict)
    good, bad, late = run.run(3)
    assert good.artifacts["value"] == {"v": [3, minor]}
    assert good.environment["python"].startswith(f"3.{minor}.")
    assert sorted(run.log(good)) == ["bye", "thread"]
    assert run.log(good, "stderr") == []
    assert bad.failure is not None
    assert bad.failure.kind == "ValueError"
    assert late.failure is not None
    assert late.failure.cause == "timeout"


def test_more_workers_than_fit_the_channel_at_once(bench: Make) -> None:
    run = bench("return assignment.task", max_workers=200)
    outcomes = run.run(300)
    assert [outcome.artifacts["value"]["v"] for outcome in outcomes] == list(range(1, 301))
    assert all(len(run.store.records.names(f"r/{RUN}/t/{task}/0")) == 2 for task in range(1, 301))


def test_damage_of_the_store_ends_the_launcher_and_seals_nothing(bench: Make) -> None:
    run = bench("from flowkiln.store.errors import RecordDamaged; raise RecordDamaged('cut', hint='restore it')")
    run.submit()
    with pytest.raises(RecordDamaged, match="cut") as caught:
        run.poll_until(Sealed)
    assert (caught.value.step, caught.value.hint) == ("work", "restore it")
    assert run.store.records.names(f"r/{RUN}/t/1/0") == ["begin"]
