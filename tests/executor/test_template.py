"""Templates that die, launchers that die, and processes that must not be forked."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor.vocabulary import Began, Sealed

from .bench import HOST, Bench, worker
from .test_child import failure, gone

Make = Callable[..., Bench]


def template_pid(run: Bench) -> int:
    """Of the only template that the run has started."""
    (template,) = run.backend._pool._templates.values()
    return template.pid


def test_a_killed_template_loses_its_attempts_and_the_next_one_serves_on(bench: Make) -> None:
    run = bench("print(os.getpid()); time.sleep(0 if assignment.task > 2 else 600); return 1", max_workers=2)
    run.submit(2)
    end = time.monotonic() + 30
    while len(run.lines) < 2 and time.monotonic() < end:
        run.events += run.backend.poll(0.1)
    children = [int(line.text) for _, _, line in run.lines]
    os.kill(template_pid(run), signal.SIGKILL)
    run.poll_until(Sealed, 2)
    for task in (1, 2):
        found = failure(run.outcome(task))
        assert (found.failure_class, found.cause) == ("infrastructure", "lost")
    assert all(gone(pid) for pid in children)
    assert run.run_one().ok


def test_a_template_that_dies_between_attempts_is_replaced(bench: Make) -> None:
    run = bench("return 1")
    assert run.run_one().ok
    os.kill(template_pid(run), signal.SIGKILL)
    outcomes = run.run(2)
    for outcome in outcomes:
        if not outcome.ok:  # it was ordered before the death was noticed
            assert failure(outcome).failure_class == "infrastructure"
    assert run.run_one().ok


LAUNCHER = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from tests.executor.bench import Bench, worker
run = Bench(Path({folder!r}), Path({cache!r}), worker({body!r}), isolation={isolation!r})
run.submit(2)
while True:
    run.backend.poll(0.1)
    if len(run.lines) == 2:
        print(run.backend._pool._templates.popitem()[1].pid, *[line.text for _, _, line in run.lines], flush=True)
        run.lines.append(None)
"""


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_a_killed_launcher_takes_everything_with_it(tmp_path: Path, cache: Path, isolation: str) -> None:
    (tmp_path / "run").mkdir()
    root = Path(__file__).parents[2]
    text = LAUNCHER.format(
        paths=[str(root / "src"), str(root)],
        folder=str(tmp_path / "run"),
        cache=str(cache),
        body="print(os.getpid()); time.sleep(600)",
        isolation=isolation,
    )
    launcher = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pids = [int(word) for word in launcher.stdout.readline().split()]
    assert len(pids) == 3
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    assert all(gone(pid) for pid in pids)


def test_close_ends_what_still_runs(bench: Make) -> None:
    run = bench("print(os.getpid()); time.sleep(600)")
    run.submit()
    run.poll_until(Began)
    while not run.lines:
        run.backend.poll(0.1)
    work = next(iter(run.backend._pool._templates.values())).work
    run.close()
    assert gone(int(run.lines[0][2].text))
    assert not work.exists()
    run.close()


UNSAFE = {
    "a thread": "import threading; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "a socket": "import socket; sys.kept = socket.socket()",
    "a process": "import subprocess; sys.kept = subprocess.Popen(['sleep', '600'])",
    "native thread": """
    import ctypes, _thread
    library = ctypes.CDLL(None)
    routine = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("pause", library))
    sys.kept = (routine, ctypes.c_ulong())
    library.pthread_create(ctypes.byref(sys.kept[1]), None, routine, None)
    """,
}


@pytest.mark.parametrize("what", UNSAFE)
def test_preloading_that_makes_forking_unsafe_spawns_instead(bench: Make, what: str) -> None:
    run = bench("return os.getpid()", preload=UNSAFE[what])
    outcomes = run.run(2)
    for outcome in outcomes:
        assert outcome.ok, outcome.failure
        assert outcome.environment["isolation"] == "spawn"
        assert what in outcome.environment["reason"]
    assert outcomes[0].artifacts != outcomes[1].artifacts


def test_what_preloading_started_ends_with_the_template(bench: Make) -> None:
    preload = f"{UNSAFE['a process']}; open('pid', 'w').write(str(sys.kept.pid))"
    run = bench("return 1", preload=preload)
    assert run.run_one().ok
    run.close()
    assert gone(int((run.folder / "user" / "pid").read_text()))


def test_isolation_can_be_asked_for(bench: Make) -> None:
    forked = bench("return 1", preload=UNSAFE["a socket"], isolation="fork").run_one()
    assert (forked.environment["isolation"], forked.environment.get("reason")) == ("fork", None)
    spawned = bench("return 1", isolation="spawn").run_one()
    assert (spawned.environment["isolation"], spawned.environment["reason"]) == ("spawn", "asked for")


def test_a_forked_attempt_has_what_was_preloaded(bench: Make) -> None:
    run = bench("return 'wave' in sys.modules or sys.version_info >= (3, 13)", preload="import wave")
    assert run.run_one().artifacts["value"] == {"v": True}


@pytest.mark.parametrize("preload", ["import nosuchmodule", "raise SystemExit(3)"])
def test_errors_of_preloading_are_left_to_the_step(bench: Make, preload: str) -> None:
    outcome = bench("return 1", preload=preload).run_one()
    assert outcome.ok
    assert outcome.environment["isolation"] == "fork"


def test_a_flow_file_that_cannot_be_loaded_is_the_users_error(bench: Make) -> None:
    run = bench(script="print('loading')\nimport nosuchmodule\n")
    for outcome in run.run(2):
        found = failure(outcome)
        assert (found.failure_class, found.cause, found.exit_code) == ("user", "not-started", 1)
        assert found.text.endswith("ModuleNotFoundError: No module named 'nosuchmodule'")
        assert "loading" in (found.trace or "")


def test_a_flow_file_that_does_nothing_is_told(bench: Make) -> None:
    assert failure(bench(script="x = 1").run_one()).text == "the flow file ended without starting its flow"


def test_a_template_killed_while_it_loads_is_not_the_users_error(bench: Make) -> None:
    found = failure(bench(script="import os, signal; os.kill(os.getpid(), signal.SIGKILL)").run_one())
    assert (found.failure_class, found.cause, found.signal) == ("infrastructure", "lost", signal.SIGKILL)


def test_an_interpreter_that_is_not_there(bench: Make) -> None:
    run = bench("return 1", prefix=dataclasses.replace(HOST, python="/nowhere/bin/python"))
    found = failure(run.run_one())
    assert (found.failure_class, found.cause) == ("environment", "not-started")
    assert "/nowhere/bin/python" in found.text


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_what_the_flow_file_prints_does_not_block_it(bench: Make, isolation: str) -> None:
    run = bench("return 1", head="print('x' * 1_000_000)", isolation=isolation)
    assert run.run_one().ok


def test_an_exiting_spawned_flow_file_has_not_begun(bench: Make) -> None:
    script = worker("return 1", head="if os.path.exists('second'): sys.exit(9)\nopen('second', 'w').close()")
    found = failure(bench(script=script, isolation="spawn").run_one())
    assert (found.failure_class, found.cause, found.exit_code) == ("infrastructure", "not-started", 9)
