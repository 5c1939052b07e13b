"""Output of attempts, whatever they print, and what others can read meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor.vocabulary import Began, CancelConfirmed, Sealed
from flowkiln.store import keys, logs

from .bench import RUN, Bench
from .test_child import SLEEPER, failure, gone

Make = Callable[..., Bench]


def test_a_line_is_seen_at_once_and_knows_its_stream_and_time(bench: Make) -> None:
    run = bench("print('out'); print('err', file=sys.stderr); time.sleep(600)")
    before = time.time_ns() // 1000
    run.submit()
    run.poll_until_line("err")
    for _, line in run.seen:
        assert before < line.at_us <= time.time_ns() // 1000
    assert {(line.stream, line.text) for _, line in run.seen} == {("stdout", "out"), ("stderr", "err")}
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)


def test_a_step_prints_100_mb(bench: Make) -> None:
    run = bench("line = 'x' * 999\nfor _ in range(100_000):\n    print(line)\nprint('last')")
    outcome = run.run_one()
    assert outcome.ok
    assert outcome.logs["lines"] == 100_001
    assert "incomplete" not in outcome.logs
    *_, last = logs.read(outcome.logs, run.store.blobs)
    assert last.text == "last"


def test_a_step_closes_its_output(bench: Make) -> None:
    run = bench("print('before'); os.close(1); os.close(2); return 1")
    outcome = run.run_one()
    assert outcome.ok
    assert run.log(outcome) == ["before"]
    assert bench("sys.stdout.close(); sys.stderr.close(); return 2").run_one().ok


def test_partial_lines_and_progress_bars(bench: Make) -> None:
    run = bench(
        r"""
        for part in range(100):
            print(f"\r{part}%", end="", file=sys.stderr)
        print(file=sys.stderr)
        print("dos\r")
        print("no end", end="")
        """
    )
    outcome = run.run_one()
    assert run.log(outcome) == ["dos", "no end"]
    assert run.log(outcome, "stderr")[-1] == "99%"
    assert len(run.log(outcome, "stderr")) < 10


def test_invalid_utf8_is_shown(bench: Make) -> None:
    run = bench(r"os.write(1, b'\xff\xfe caf\xc3\xa9\n'); print('\udcff')")
    assert run.log(run.run_one()) == ["\\xff\\xfe café", "\\udcff"]


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_the_attempt(bench: Make) -> None:
    run = bench("import subprocess; print('hi'); return subprocess.Popen(['sleep', '300']).pid")
    outcome = run.run_one()
    os.kill(outcome.artifacts["value"]["v"], signal.SIGKILL)
    assert outcome.ok
    assert outcome.logs["incomplete"] is True
    assert run.log(outcome) == ["hi"]


def test_the_lines_of_a_long_attempt_are_in_the_store_while_it_runs(bench: Make) -> None:
    run = bench("print('early'); time.sleep(600)")
    run.submit()
    spill = Path(run.store.root, keys.live_log(RUN, 1, 0))
    end = time.monotonic() + 30
    while not spill.exists() and time.monotonic() < end:
        run.events += run.backend.poll(0.2)
    assert [line.text for line in logs.read_spill(spill)] == ["early"]
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    assert not spill.exists()
    assert run.log(run.outcome(1)) == ["early"]


def test_a_log_that_cannot_be_kept_fails_no_task(bench: Make) -> None:
    run = bench("for _ in range(2000): print('x' * 99)\nreturn 1")
    Path(run.store.root, keys.live_log(RUN, 1, 0)).mkdir(parents=True)
    outcome = run.run_one()
    assert outcome.ok
    assert len(run.lines) == 2000
    (told,) = run.log(outcome, "stderr")
    assert "could not keep the log" in told
    assert outcome.logs["incomplete"] is True


def test_a_grandchild_that_goes_on_printing_is_cut_off(bench: Make) -> None:
    run = bench("import subprocess; return subprocess.Popen(['yes']).pid")
    outcome = run.run_one()
    os.kill(outcome.artifacts["value"]["v"], signal.SIGKILL)
    assert outcome.ok
    assert outcome.logs["incomplete"] is True


def test_cancel_ends_the_whole_group(bench: Make) -> None:
    run = bench(SLEEPER + "    time.sleep(600)")
    run.submit()
    run.poll_until(Began)
    end = time.monotonic() + 30
    while not run.lines and time.monotonic() < end:
        run.events += run.backend.poll(0.1)
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    found = failure(run.outcome(1))
    assert (found.failure_class, found.cause, found.signal) == ("cancelled", "cancelled", signal.SIGTERM)
    assert gone(int(run.lines[0][2].text))


STOPPED = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
print(os.getppid(), os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def stopped(run: Bench) -> list[int]:
    """The processes of an attempt whose template was stopped: template, attempt, and what it started."""
    run.submit()
    run.poll_until(Began)
    while not run.lines:
        run.events += run.backend.poll(0.1)
    found = [int(word) for word in run.lines[0][2].text.split()]
    os.kill(found[0], signal.SIGSTOP)
    return found


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_cancel_ends_a_stopped_template_and_what_it_runs(bench: Make, isolation: str) -> None:
    run = bench(STOPPED, isolation=isolation)
    found = stopped(run)
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    assert failure(run.outcome(1)).failure_class == "cancelled"
    assert all(gone(pid) for pid in found)


def test_the_time_limit_ends_what_a_stopped_template_runs(bench: Make) -> None:
    run = bench("import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\n" + STOPPED, timeout=1.0)
    found = stopped(run)
    run.poll_until(Sealed)
    assert failure(run.outcome(1)).failure_class == "timeout"
    assert all(gone(pid) for pid in found)


def test_closing_ends_a_stopped_template_and_what_it_runs(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkiln.executor.pool._CLOSING", 0.5)
    run = bench(STOPPED)
    found = stopped(run)
    run.close()
    assert all(gone(pid) for pid in found)


def test_cancel_of_a_step_that_ignores_sigterm(bench: Make) -> None:
    run = bench("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on'); time.sleep(600)")
    run.submit()
    run.poll_until_line("on")
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    assert failure(run.outcome(1)).signal == signal.SIGKILL


def test_cancel_of_what_has_not_begun_leaves_no_records(bench: Make) -> None:
    run = bench("time.sleep(600)", max_workers=1)
    run.submit(3)
    run.backend.cancel(2, 0)
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed, 2)
    run.poll_until(Began)
    run.backend.cancel(3, 0)
    run.poll_until(CancelConfirmed)
    assert run.store.records.names(f"r/{RUN}/t") == ["3"]


def test_cancel_is_confirmed_for_attempts_that_are_unknown(bench: Make) -> None:
    run = bench("return 1")
    run.backend.cancel(7, 0)
    assert run.poll_until(CancelConfirmed) == [CancelConfirmed(7, 0)]


def test_a_result_that_came_in_spite_of_the_cancel_stands(bench: Make) -> None:
    run = bench(
        """
        import signal
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
        print("on")
        while not asked:
            time.sleep(0.01)
        return 5
        """,
        grace=30.0,
    )
    run.submit()
    run.poll_until_line("on")
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    assert run.outcome(1).artifacts["value"] == {"v": 5}
