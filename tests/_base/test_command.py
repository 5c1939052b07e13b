from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flowkiln._base import parallel
from flowkiln._base.command import Finished, Limits, end_group, run
from flowkiln._base.errors import ToolMissing

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def python(code: str, **options: object) -> Finished:
    return run([sys.executable, "-c", code], environment=ENVIRONMENT, **options)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_output_code_and_environment() -> None:
    code = "import os, sys; print(sorted(os.environ)[0]); sys.stderr.write('err'); sys.exit(3)"
    ended = run([sys.executable, "-c", code], environment={"A_A": "1"})
    assert (ended.code, ended.ended, ended.stderr) == (3, "exit", "err")
    assert ended.stdout == "A_A\n"


def test_lines_come_whole_and_the_last_one_too() -> None:
    lines: list[str] = []
    parts = ("one\ntw", "o\n", "three")
    code = f"import sys, time\nfor p in {parts}: sys.stderr.write(p); sys.stderr.flush(); time.sleep(.05)"
    python(code, on_line=lines.append)
    assert lines == ["one", "two", "three"]


def test_much_output_on_both_streams_does_not_block() -> None:
    code = "import sys\nfor _ in range(3000): print('x' * 100); sys.stderr.write('y' * 100 + '\\n')"
    ended = python(code)
    assert len(ended.stdout) == len(ended.stderr) == 3000 * 101


def test_a_stall_ends_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    ticks: list[float] = []
    ended = python(code, limits=Limits(total=50, stall=2.5), tick=ticks.append)
    assert ended.ended == "stall"
    assert ended.code == -signal.SIGTERM
    assert ticks
    assert gone(int(note.read_text()))


def test_a_deadline_ends_what_keeps_talking() -> None:
    code = "import time, sys\nwhile True: sys.stderr.write('still here\\n'); sys.stderr.flush(); time.sleep(.05)"
    assert python(code, limits=Limits(total=1, stall=30)).ended == "deadline"


def test_a_deaf_process_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code += "print('deaf', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        end_group(process, patience=0.2)
        assert process.returncode == -signal.SIGKILL


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="cannot start"):
        run([tmp_path / "nothing"], environment={})
    folder = tmp_path / "data"
    folder.write_text("no program")
    with pytest.raises(ToolMissing, match="cannot start"):
        run([folder], environment={})


def test_what_stops_one_stops_all() -> None:
    started = threading.Barrier(3, timeout=20)
    ended: list[str] = []

    def one(item: int) -> None:
        started.wait()
        if item == 2:
            message = "enough"
            raise ValueError(message)
        try:
            python("import time; time.sleep(60)")
        finally:
            ended.append("ended")

    with pytest.raises(ValueError, match="enough"):
        parallel.together(one, range(3), at_once=3)
    assert ended == ["ended", "ended"]


def test_a_stop_reaches_nested_work() -> None:
    ready = threading.Barrier(3, timeout=20)

    def inner(_: int) -> None:
        ready.wait()
        python("import time; time.sleep(60)")

    def outer(item: int) -> None:
        if item == 0:
            parallel.together(inner, range(2), at_once=2)
            return
        ready.wait()
        message = "enough"
        raise ValueError(message)

    with pytest.raises(ValueError, match="enough"):
        parallel.together(outer, range(2), at_once=2)


def test_results_keep_their_order() -> None:
    def late(item: int) -> int:
        time.sleep(0.02 * (3 - item))
        return item * item

    assert parallel.together(late, range(4), at_once=4) == [0, 1, 4, 9]
    assert parallel.together(late, [], at_once=1) == []
    assert not parallel.stopped()


def test_what_is_given_is_read_while_the_program_writes() -> None:
    data = bytes(range(256)) * 4000
    code = "import sys\nwhile data := sys.stdin.buffer.read(5000): sys.stdout.buffer.write(data)"
    assert python(code, given=data).output == data


def test_a_program_that_reads_nothing_ends_as_it_likes() -> None:
    ended = python("import os; os.close(0); print('done')", given=bytes(1 << 20))
    assert (ended.code, ended.stdout) == (0, "done\n")


def test_end_of_the_program_is_enough_where_its_output_is_not_awaited() -> None:
    """What it left behind holds its output for longer than the limit; all that it wrote itself is there."""
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); "
        "print('x' * 50000); print(child.pid, file=sys.stderr)"
    )
    ended = python(code, await_output=False, limits=Limits(total=20.0, stall=20.0))
    os.kill(int(ended.stderr), signal.SIGKILL)
    assert (ended.ended, len(ended.stdout)) == ("exit", 50001)


def test_a_crew_raises_the_first_failure_and_stops_the_others() -> None:
    began = threading.Event()
    ended: list[bool] = []

    def long() -> None:
        began.set()
        while not parallel.stopped():
            time.sleep(0.01)
        ended.append(True)

    def fails() -> None:
        began.wait(30)
        raise LookupError

    def work() -> None:
        with parallel.Crew(2) as crew:
            crew.add(long)
            crew.add(fails)

    with pytest.raises(LookupError):
        work()
    assert ended == [True]


def test_a_crew_is_given_up_with_its_block() -> None:
    began = threading.Event()
    ended: list[bool] = []

    def long() -> None:
        began.set()
        while not parallel.stopped():
            time.sleep(0.01)
        ended.append(True)

    def work() -> None:
        with parallel.Crew(1) as crew:
            crew.add(long)
            crew.add(lambda: ended.append(False))
            began.wait(30)
            raise LookupError

    with pytest.raises(LookupError):
        work()
    assert ended == [True]


def test_a_crew_has_done_all_when_it_is_left() -> None:
    done: list[int] = []
    with parallel.Crew(2) as crew:
        for number in range(5):
            crew.add(lambda number=number: done.append(number))  # type: ignore[misc]
    assert sorted(done) == [0, 1, 2, 3, 4]
