"""What a step may do to its own process, and what its attempt is sealed as."""

from __future__ import annotations

import gzip
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor.outcome import Failure, Outcome

from .bench import Bench

Make = Callable[..., Bench]
EVERY_WAY = pytest.mark.parametrize("isolation", ["fork", "spawn"])


def failure(outcome: Outcome) -> Failure:
    assert not outcome.ok
    assert outcome.failure is not None
    return outcome.failure


@EVERY_WAY
def test_a_step_raises(bench: Make, isolation: str) -> None:
    run = bench("raise KeyError('gone')", isolation=isolation)
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause, found.kind) == ("user", "exception", "KeyError")
    assert "gone" in found.text
    assert any("KeyError: 'gone'" in line for line in run.log(outcome, "stderr"))
    assert outcome.environment["isolation"] == isolation


def test_what_utf8_cannot_hold_is_escaped(bench: Make) -> None:
    run = bench("if assignment.task == 1: raise FileNotFoundError('\\udcff')\nreturn {'\\udc80': ['\\udc81']}")
    bad, good = run.run(2)
    assert (failure(bad).kind, failure(bad).text) == ("FileNotFoundError", "\\udcff")
    assert good.artifacts["value"] == {"v": {"\udc80": ["\udc81"]}}


def test_an_error_whose_str_fails_is_still_named(bench: Make) -> None:
    found = failure(bench("class Odd(Exception):\n    __str__ = None\nraise Odd").run_one())
    assert (found.cause, found.text.rpartition(".")[2]) == ("exception", "Odd: <str() failed>")


@EVERY_WAY
def test_an_outcome_that_cannot_be_written_is_not_the_users_fault(bench: Make, isolation: str) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))"
    found = failure(bench(limit, isolation=isolation).run_one())
    assert (found.failure_class, found.cause) == ("infrastructure", "lost")
    assert found.text.endswith("File too large")


def test_a_full_store_is_not_the_users_fault(bench: Make) -> None:
    run = bench("from flowkiln._base.errors import NoSpace; raise NoSpace('no space left', hint='free some')")
    found = failure(run.run_one())
    assert (found.failure_class, found.code, found.hint) == ("infrastructure", "SYS001", "free some")


@EVERY_WAY
@pytest.mark.parametrize("code", [0, 3])
def test_os_exit_is_the_users_error(bench: Make, isolation: str, code: int) -> None:
    found = failure(bench(f"os._exit({code})", isolation=isolation).run_one())
    assert (found.failure_class, found.cause, found.exit_code) == ("user", "exit", code)
    assert "without finishing" in found.text


@pytest.mark.parametrize(("argument", "code"), [("", 0), ("0", 0), ("3", 3), ("'broken pipe'", 1)])
def test_sys_exit_is_the_users_error(bench: Make, argument: str, code: int) -> None:
    run = bench(f"sys.exit({argument})")
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause, found.exit_code) == ("user", "exit", code)
    if code == 1:
        assert run.log(outcome, "stderr") == ["broken pipe"]


@EVERY_WAY
def test_a_segfault_is_named_and_traced(bench: Make, isolation: str) -> None:
    run = bench(
        "ctypes.string_at(0)",
        head="import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        isolation=isolation,
    )
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause, found.signal) == ("user", "signal", signal.SIGSEGV)
    assert "SIGSEGV" in found.text
    assert any("Segmentation fault" in line for line in run.log(outcome, "stderr"))


def test_sigkill_of_itself(bench: Make) -> None:
    found = failure(bench("import signal; os.kill(os.getpid(), signal.SIGKILL)").run_one())
    assert (found.failure_class, found.signal) == ("user", signal.SIGKILL)
    assert found.cause in {"signal", "out-of-memory"}


def test_a_step_that_forks_finishes_once(bench: Make, tmp_path: Path) -> None:
    run = bench(
        f"""
        child = os.fork()
        with open({str(tmp_path / "passed")!r}, "a") as stream:
            stream.write("x")
        if child:
            os.waitpid(child, 0)
        return "parent" if child else "child"
        """
    )
    outcome = run.run_one()
    assert outcome.artifacts["value"] == {"v": "parent"}
    assert (tmp_path / "passed").read_text() == "xx"


def test_threads_are_joined_unless_they_are_daemons(bench: Make) -> None:
    run = bench(
        """
        import threading
        def late():
            time.sleep(0.2)
            print("joined")
        threading.Thread(target=late).start()
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        """
    )
    outcome = run.run_one()
    assert outcome.ok
    assert run.log(outcome) == ["joined"]


@EVERY_WAY
def test_exit_handlers_run_and_open_files_are_written(bench: Make, isolation: str) -> None:
    run = bench(
        """
        import atexit, gzip
        global text, packed
        text = open("text", "w")
        text.write("unflushed")
        packed = gzip.open("packed.gz", "wt")
        packed.write("packed")
        early.write("early")
        atexit.register(print, "bye")
        """,
        head="early = open('early', 'w')",
        isolation=isolation,
    )
    outcome = run.run_one()
    assert outcome.ok
    user = run.folder / "user"
    assert run.log(outcome) == ["bye"]
    assert ((user / "text").read_text(), (user / "early").read_text()) == ("unflushed", "early")
    assert gzip.decompress((user / "packed.gz").read_bytes()) == b"packed"


def test_a_subprocess_that_outlives_a_success_is_left_alone(bench: Make) -> None:
    run = bench(
        """
        import subprocess
        null = subprocess.DEVNULL
        return subprocess.Popen(["sleep", "300"], stdout=null, stderr=null).pid
        """
    )
    pid = run.run_one().artifacts["value"]["v"]
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


SLEEPER = """
    import subprocess
    sleeper = subprocess.Popen(["sleep", "300"])
    print(sleeper.pid, flush=True)
"""


@EVERY_WAY
def test_a_timeout_raises_in_the_step_first(bench: Make, isolation: str) -> None:
    run = bench(
        SLEEPER
        + """
    try:
        time.sleep(100)
    finally:
        print("tidied")
    """,
        timeout=0.3,
        isolation=isolation,
    )
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause) == ("timeout", "timeout")
    assert "time limit of 0.3 seconds" in found.text
    pid, last = run.log(outcome)
    assert last == "tidied"
    assert gone(int(pid)), "the group ends with a timed-out step"


def test_a_timeout_that_the_step_ignores_becomes_sigterm(bench: Make) -> None:
    run = bench(
        """
        while True:
            try:
                time.sleep(100)
            except Exception:
                print("ignored")
        """,
        timeout=0.2,
    )
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause, found.signal) == ("timeout", "timeout", signal.SIGTERM)
    assert run.log(outcome) == ["ignored"]


def test_a_timeout_that_ignores_sigterm_too_becomes_sigkill_of_the_group(bench: Make) -> None:
    run = bench(
        SLEEPER
        + """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        time.sleep(1)
    """,
        timeout=0.2,
    )
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.signal) == ("timeout", signal.SIGKILL)
    assert gone(int(run.log(outcome)[0]))


def test_a_step_may_catch_its_timeout_and_finish(bench: Make) -> None:
    run = bench(
        """
        try:
            time.sleep(100)
        except Exception as error:
            return type(error).__name__
        """,
        timeout=0.2,
    )
    assert run.run_one().artifacts["value"] == {"v": "TimeoutException"}


def test_forked_children_draw_different_random_numbers(bench: Make) -> None:
    run = bench(
        "import random, numpy; return [random.random(), float(numpy.random.random())]",
        preload="import random, numpy; random.random(); numpy.random.random()",
    )
    outcomes = run.run(4)
    values = [outcome.artifacts["value"]["v"] for outcome in outcomes]
    assert all(outcome.environment["isolation"] == "fork" for outcome in outcomes), outcomes[0].environment
    assert len({first for first, _ in values}) == 4
    assert len({second for _, second in values}) == 4


@EVERY_WAY
def test_hash_seed_is_equal_everywhere(bench: Make, isolation: str) -> None:
    values = [one.artifacts["value"]["v"] for one in bench("return hash('flowkiln')", isolation=isolation).run(2)]
    assert values[0] == values[1] == bench("return hash('flowkiln')").run_one().artifacts["value"]["v"]


@EVERY_WAY
def test_umask_folder_and_variables_do_not_leak_between_tasks(bench: Make, isolation: str) -> None:
    run = bench(
        """
        found = [os.umask(0o077), os.getcwd(), os.environ.get("LEAK")]
        os.environ["LEAK"] = "1"
        os.chdir("/")
        return found
        """,
        max_workers=1,
        isolation=isolation,
    )
    mask = os.umask(0o022)
    os.umask(mask)
    values = [one.artifacts["value"]["v"] for one in run.run(2)]
    assert values == [[mask, str(run.folder / "user"), None]] * 2


@EVERY_WAY
def test_each_attempt_leads_its_own_session_without_our_descriptors(bench: Make, isolation: str) -> None:
    run = bench(
        """
        import signal
        links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{name}")]
        return [os.getsid(0) == os.getpid(), links, sys.stdin.read(), "FLOWKILN_WORKER" in os.environ,
                signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
                signal.getsignal(signal.SIGINT) is signal.default_int_handler]
        """,
        isolation=isolation,
    )
    leads, links, typed, told, child_default, interrupted = run.run_one().artifacts["value"]["v"]
    assert leads
    assert (typed, told, child_default, interrupted) == ("", False, True, True)
    assert not [link for link in links if link.startswith("socket:")]
    assert len([link for link in links if link.startswith("pipe:")]) == 2, links


def test_signal_handlers_of_the_flow_file_hold_in_the_step(bench: Make) -> None:
    run = bench(
        "os.kill(os.getpid(), signal.SIGUSR1); time.sleep(0.05)",
        head="import signal; signal.signal(signal.SIGUSR1, lambda *_: print('usr1'))",
    )
    assert run.log(run.run_one()) == ["usr1"]


def test_usage_and_times_are_recorded(bench: Make) -> None:
    outcome = bench("x = bytearray(80_000_000); sum(range(1_000_000)); return len(x)").run_one()
    assert outcome.usage["max_rss"] > 80_000_000
    assert outcome.usage["user_us"] > 0
    assert 0 < outcome.started <= outcome.ended
    assert outcome.execution["kind"] == "process"
    assert outcome.execution["child"] > 0
