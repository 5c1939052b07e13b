"""The Docker backend on a real engine: what a step may do, and what may be done to its container."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.engine import Engine
from flowkiln.executor import container
from flowkiln.executor.outcome import Failure, Outcome
from flowkiln.executor.plan import ContainerSettings, ImageRef
from flowkiln.executor.vocabulary import Absent, Began, CancelConfirmed, Observed, Sealed
from flowkiln.store import keys
from flowkiln.store.errors import RecordDamaged

from . import images
from .bench import worker
from .dockbench import DockBench

pytestmark = pytest.mark.e2e

Make = Callable[..., DockBench]


@pytest.fixture(scope="module")
def runtime_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs, so that the runtime folder is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def dock(tmp_path: Path, runtime_cache: Path) -> Iterator[Make]:
    """Makes one run whose step has the given body; its containers are gone at the end of the test."""
    made: list[DockBench] = []

    def make(
        body: str = "", *, image: ImageRef | None = None, engine: Engine | None = None, **more: Any
    ) -> DockBench:
        script = more.pop("script", None) or worker(body)
        engine = engine or images.engine("overlay2")
        run = f"t{time.time_ns()}"
        bench = DockBench(tmp_path / run, engine, script, image or images.plain(), run, cache=runtime_cache, **more)
        made.append(bench)
        return bench

    yield make
    for one in made:
        one.backend.close()
        for left in one.engine.containers(labels={"io.flowkiln.run": one.run_id}):
            one.engine.remove(left["Id"])


def failure(outcome: Outcome) -> Failure:
    assert outcome.failure is not None
    assert not outcome.ok
    return outcome.failure


def caused(outcome: Outcome) -> tuple[str, str]:
    found = failure(outcome)
    return found.failure_class, found.cause


@pytest.mark.parametrize("kind", ["overlay2", "containerd"])
def test_an_attempt_runs_in_a_container_and_is_sealed(dock: Make, kind: str) -> None:
    run = dock("print('hello'); print('err', file=sys.stderr); return os.getuid()", engine=images.engine(kind))
    outcome = run.run_one()
    assert outcome.ok, outcome
    assert outcome.artifacts == {"value": {"v": os.getuid()}}
    assert [type(event) for event in run.events] == [Began, Sealed]
    assert (run.log(outcome), run.log(outcome, "stderr")) == (["hello"], ["err"])
    assert (run.shown(), run.shown("stderr")) == (["hello"], ["err"])
    assert outcome.execution["kind"] == "docker"
    assert outcome.environment["vouched"] == "engine"
    assert outcome.environment["unmanaged"] is True
    run.backend.close()
    assert run.left() == []
    assert not (run.settings.cache / "docker" / run.run_id).exists()


ENDS = [
    ("raise ValueError('no')", ("user", "exception"), None, None),
    ("sys.exit(3)", ("user", "exit"), 3, None),
    ("os._exit(0)", ("user", "exit"), 0, None),
    ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", ("user", "signal"), None, signal.SIGSEGV),
    ("import signal; os.kill(os.getpid(), signal.SIGKILL)", ("user", "signal"), None, signal.SIGKILL),
    ("held = [bytearray(1 << 20) for _ in range(200)]", ("user", "out-of-memory"), None, signal.SIGKILL),
    ("if assignment.task == 7:\n    time.sleep(60)", ("timeout", "timeout"), None, None),
]


def test_ends_mean_what_they_mean_for_processes(dock: Make) -> None:
    body = "".join(
        f"if assignment.task == {task}:\n" + "".join(f"    {line}\n" for line in one[0].split("\n"))
        for task, one in enumerate(ENDS, 1)
    )
    run = dock(body, container=ContainerSettings(memory=96 << 20), timeout=3.0, max_workers=4)
    for outcome, (_, cause, code, number) in zip(run.run(len(ENDS)), ENDS, strict=True):
        assert caused(outcome) == cause
        assert failure(outcome).signal == number
        if code is not None:
            assert failure(outcome).exit_code == code


def test_a_step_that_ignores_its_time_limit_is_killed(dock: Make) -> None:
    body = """
    import signal
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGTERM])
    time.sleep(60)
    """
    found = failure(dock(body, timeout=0.5, grace=0.3).run_one())
    assert (found.cause, found.signal) == ("timeout", signal.SIGKILL)


def test_cancelling_ends_a_container(dock: Make) -> None:
    run = dock("print('there', flush=True)\ntry:\n    time.sleep(60)\nfinally:\n    print('polite', flush=True)")
    run.submit()
    run.poll_until_line("there")
    run.backend.cancel(1, 0)
    run.poll_until(CancelConfirmed)
    assert caused(run.outcome(1)) == ("cancelled", "cancelled")
    run.backend.close()
    assert run.left() == []


def test_cancelling_what_has_not_started_runs_nothing(dock: Make) -> None:
    run = dock("print('ran')", max_workers=1)  # so that the second waits for the first
    run.submit(2)
    run.backend.cancel(2, 0)
    run.poll_until(CancelConfirmed)
    assert run.store.records.names(f"r/{run.run_id}/t/2") == []


def test_a_container_that_was_killed_was_interrupted(dock: Make) -> None:
    run = dock("print('there'); time.sleep(60)")
    run.submit()
    run.poll_until_line("there")
    run.engine.signal(run.container(), "SIGKILL")
    run.poll_until(Sealed)
    assert caused(run.outcome(1)) == ("infrastructure", "interrupted")
    assert run.log(run.outcome(1)) == ["there"]


def test_a_container_that_somebody_stops_was_interrupted(dock: Make) -> None:
    run = dock("print('there'); time.sleep(60)")
    run.submit()
    run.poll_until_line("there")
    run.engine.stop(run.container(), 10)
    run.poll_until(Sealed)
    assert caused(run.outcome(1)) == ("infrastructure", "interrupted")


def test_a_container_that_was_removed_was_lost(dock: Make) -> None:
    run = dock("print('there'); time.sleep(60)")
    run.submit()
    run.poll_until_line("there")
    run.engine.remove(run.container())
    run.poll_until(Sealed)
    assert caused(run.outcome(1))[0] == "infrastructure"


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_the_attempt(dock: Make) -> None:
    run = dock("import subprocess; print('hi'); subprocess.Popen(['sleep', '300'])")
    outcome = run.run_one()
    assert outcome.ok
    assert outcome.logs["incomplete"] is True
    assert run.shown() == run.log(outcome) == ["hi"]


def test_every_line_is_shown_once_however_many(dock: Make) -> None:
    run = dock("for number in range(20_000):\n    print(number)\nprint('x' * 60_000)\nprint('no end', end='')")
    outcome = run.run_one()
    wanted = [*map(str, range(20_000)), "x" * 60_000, "no end"]
    assert run.log(outcome) == wanted
    assert run.shown() == wanted


def test_lines_of_containers_that_nobody_follows_come_from_the_record(
    dock: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkiln.executor.docker._FOLLOWED", 0)
    run = dock("print('late')")
    run.run_one()
    assert run.shown() == ["late"]


def test_the_engine_is_told_no_secret(dock: Make) -> None:
    run = dock(
        "print('there', os.environ['TOKEN_A'], os.environ['TOKEN_B']); time.sleep(60)",
        environ=(("TOKEN_A", "s3cret-a"),),
        host={"TOKEN_B": "s3cret-b", "TOKEN_C": "s3cret-c"},
        passed=("TOKEN_B",),
    )
    run.submit()
    run.poll_until_line("there s3cret-a s3cret-b")
    assert "s3cret" not in json.dumps(run.engine.inspect(run.container()))
    folder = run.settings.cache / "docker" / run.run_id / "1-0"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "task.json").stat().st_mode) == 0o600


def test_the_variables_are_those_of_the_allow_list(dock: Make) -> None:
    run = dock(
        "return sorted(os.environ)", host={"HTTP_PROXY": "p", "SECRET": "s"}, container=ContainerSettings(cpus=1)
    )
    names = run.run_one().artifacts["value"]["v"]
    assert not {"HTTP_PROXY", "SECRET", "HOSTNAME", "FLOWKILN_WORKER"} & set(names)
    assert {"PATH", "HOME", "TMPDIR", "LANG", "OMP_NUM_THREADS", "PYTHONHASHSEED"} <= set(names)


def test_limits_and_places_are_as_asked(dock: Make, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    body = """
    import resource, socket
    limit = int(open("/sys/fs/cgroup/memory/memory.limit_in_bytes").read())
    open("/data/out", "w").write("kept")
    open("/tmp/there", "w").write("x"); open("here", "w").write("x")
    try:
        open("/opt/new", "w")
    except OSError as error:
        closed = error.errno
    interfaces = [name for _, name in socket.if_nameindex()]
    shared = os.statvfs("/dev/shm")
    return [limit, shared.f_frsize * shared.f_blocks, closed, interfaces, os.getcwd()]
    """
    asked = ContainerSettings(
        cpus=0.5,
        memory=256 << 20,
        shared_memory=8 << 20,
        mounts=((str(shared), "/data", False),),
        network="none",
        read_only=True,
    )
    outcome = dock(body, container=asked).run_one()
    assert outcome.ok, outcome.failure
    assert outcome.artifacts["value"]["v"] == [256 << 20, 8 << 20, 30, ["lo"], "/mnt/flowkiln/task/code"]
    assert (shared / "out").stat().st_uid == os.getuid()


@pytest.mark.parametrize("user", ["12345", "12345:54321", "nobody"])
def test_any_user_runs_a_step(dock: Make, user: str) -> None:
    body = "open('here', 'w').write('x'); open('/tmp/there', 'w').write('x'); return os.getuid()"
    asked = ContainerSettings(user=user, read_only=True, network="none")
    outcome = dock(body, container=asked).run_one()
    assert outcome.ok, outcome.failure
    assert outcome.artifacts["value"]["v"] == (65534 if user == "nobody" else 12345)


def test_an_engine_elsewhere_gets_copies_and_gives_back_results(dock: Make) -> None:
    body = "sha = store.blobs.put(b'x' * 100_000); print('hi'); return {'sha256': sha, 'size': 100_000}"
    run = dock(body, engine=images.remote())
    outcome = run.run_one()
    assert outcome.ok, outcome.failure
    blob = outcome.artifacts["value"]["v"]["sha256"]
    assert run.store.blobs.read(blob) == b"x" * 100_000
    assert (run.log(outcome), run.shown()) == (["hi"], ["hi"])
    run.backend.close()
    assert run.engine.inspect(run.container()) is None
    assert caused(dock("os._exit(3)", engine=images.remote()).run_one()) == ("user", "exit")


def test_the_work_folder_and_what_lies_there_belong_to_the_caller(dock: Make) -> None:
    run = dock("open('here', 'w').write('x'); print('there'); time.sleep(60)")
    run.submit()
    run.poll_until_line("there")
    made = run.settings.cache / "docker" / run.run_id / "1-0" / "code" / "here"
    assert made.stat().st_uid == os.getuid()


# -- proof -----------------------------------------------------------------------------------------------------


def test_the_environment_of_an_image_is_proved_and_recorded(dock: Make) -> None:
    made = images.marked("overlay2")
    body = "import thing; return [thing.VALUE, sys.prefix, os.environ['PATH']]"
    run = dock(body, image=made.image, prefix=made.prefix)
    outcome = run.run_one()
    assert outcome.ok, outcome.failure
    value, prefix, path = outcome.artifacts["value"]["v"]
    assert (value, prefix, path.split(":")[0]) == (1, "/opt/env", "/opt/env/bin")
    told = outcome.environment
    assert (told["env_id"], told["tree_digest"], told["level"]) == (
        images.ENV_ID,
        made.prefix.tree_digest,
        "digest",
    )
    assert told["image"]["id"] == made.image.ids[0]
    assert "pth ran" in run.log(outcome, "stderr")


SAME_SIZE = f"printf 'VALUE = 2\\n' > {images.SITE}/thing.py"
SPOILED = [
    ("digest", "sed -i s/env_id/env_ix/ .flowkiln/tree.json", "marker"),
    ("digest", "rm -r .flowkiln", "marker"),
    ("stat", f"echo >> {images.SITE}/thing.py", "changed: lib"),
    ("full", SAME_SIZE, "changed: lib"),
    ("full", f"touch {images.SITE}/sitecustomize.py", "extra: lib"),
]


@pytest.mark.parametrize(("level", "spoil", "told"), SPOILED)
def test_a_changed_image_is_refused_before_any_of_its_code_runs(
    dock: Make, level: str, spoil: str, told: str
) -> None:
    sound = images.marked("overlay2")
    made = images.marked("overlay2", spoil)
    run = dock("print('ran')", image=made.image, prefix=sound.prefix, verify=level)
    outcome = run.run_one()
    found = failure(outcome)
    assert (found.failure_class, found.cause, found.code) == ("environment", "mismatch", "ENV050")
    assert told in found.text
    assert "pth ran" not in [line.text for line in run.lines]
    assert outcome.environment["level"] == level


def test_a_change_of_equal_size_is_found_by_full_alone(dock: Make) -> None:
    sound = images.marked("overlay2")
    made = images.marked("overlay2", SAME_SIZE)
    run = dock("import thing; return thing.VALUE", image=made.image, prefix=sound.prefix, verify="stat")
    assert run.run_one().artifacts["value"] == {"v": 2}


@pytest.mark.parametrize(("kind", "level"), [("overlay2", "stat"), ("containerd", "full")])
def test_an_unchanged_image_passes_every_level(dock: Make, kind: str, level: str) -> None:
    made = images.marked(kind)
    run = dock("return 1", image=made.image, prefix=made.prefix, verify=level, engine=images.engine(kind))
    assert run.run_one().ok


def test_a_foreign_image_is_not_started(dock: Make) -> None:
    made = images.marked("overlay2")
    foreign = ImageRef(reference=made.image.reference, ids=("sha256:" + "0" * 64,))
    run = dock("print('ran')", image=foreign, prefix=made.prefix)
    found = failure(run.run_one())
    assert (found.failure_class, found.cause, found.code) == ("environment", "mismatch", "RUN041")
    assert not any(isinstance(event, Began) for event in run.events)
    run.backend.close()
    assert run.left() == []


def test_an_image_that_is_not_there_is_told(dock: Make) -> None:
    found = failure(dock("", image=ImageRef(reference="flowkiln-tests/absent:1", baked=False)).run_one())
    assert (found.failure_class, found.code) == ("environment", "ENG006")


def test_an_image_without_python_is_told(dock: Make) -> None:
    made = images.marked("overlay2", "rm -f bin/python")
    found = failure(dock("", image=made.image, prefix=made.prefix).run_one())
    assert (found.failure_class, found.cause) == ("environment", "not-started")
    assert "/opt/env/bin/python" in found.text


# -- launchers that come and go --------------------------------------------------------------------------------


def test_a_new_launcher_goes_on_with_running_and_ended_containers(dock: Make) -> None:
    run = dock("print('first')\nif assignment.task == 1:\n    time.sleep(3)\nprint('last')")
    run.submit(2)
    run.poll_until(Began, 2)
    run.poll_until_line("first")
    run.backend.close()
    run.events.clear()
    run.lines.clear()
    run.backend = run.launcher()
    run.backend.find(1, [(1, 0), (2, 0), (3, 0)])
    run.poll_until(Sealed, 2)
    assert {event.handle for event in run.events if isinstance(event, Absent)} == {"3/0"}
    assert "1/0" in {event.handle for event in run.events if isinstance(event, Observed)}
    assert [run.outcome(task).ok for task in (1, 2)] == [True, True]
    assert run.shown().count("last") == 2
    run.backend.close()
    assert run.left() == []


def test_containers_outlive_a_launcher_that_was_killed(dock: Make) -> None:
    run = dock("time.sleep(2); return 5")
    place = (
        str(run.folder),
        run.engine.endpoint.url,
        images.plain().reference,
        run.run_id,
        str(run.settings.cache),
    )
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
import os, signal
from pathlib import Path
from flowkiln.executor.vocabulary import Began
from tests.executor.dockbench import DockBench
folder, *more, cache = {place!r}
run = DockBench.again(Path(folder), *more, Path(cache))
run.submit()
run.poll_until(Began)
print("began", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "began\n", done.stderr
    run.backend.find(1, [(1, 0)])
    run.poll_until(Sealed)
    assert run.outcome(1).artifacts == {"value": {"v": 5}}


def test_a_container_made_but_never_started_is_made_again(dock: Make) -> None:
    run = dock("return 1")
    labels = container.run_labels(run.store.root, run.run_id)
    run.engine.create(run.container(), {"Image": images.plain().reference, "Cmd": ["false"], "Labels": labels})
    assert run.run_one().ok


def test_a_container_of_somebody_else_is_left_alone(dock: Make) -> None:
    run = dock("return 1")
    made = run.engine.create(run.container(), {"Image": images.plain().reference, "Cmd": ["false"]})
    try:
        found = failure(run.run_one())
        assert (found.failure_class, found.cause, found.code) == ("environment", "not-started", "ENG007")
        assert run.engine.inspect(made) is not None
    finally:
        run.engine.remove(made)


def test_cancelling_ends_the_containers_of_a_launcher_that_is_gone(dock: Make) -> None:
    run = dock("print('there'); time.sleep(60)")
    run.submit()
    run.poll_until_line("there")
    run.backend.close()
    run.backend = run.launcher()
    run.backend.cancel(1, 0)
    run.backend.cancel(2, 0)
    run.poll_until(CancelConfirmed, 2)
    assert caused(run.outcome(1)) == ("cancelled", "cancelled")
    run.backend.close()
    assert run.left() == []


def test_the_loser_of_a_race_for_the_outcome_obeys(dock: Make) -> None:
    run = dock("print('there'); time.sleep(1)")
    run.submit()
    run.poll_until_line("there")
    other = Outcome(status="failed", failure=Failure(failure_class="cancelled", cause="cancelled", text="theirs"))
    assert run.store.records.create(keys.outcome(run.run_id, 1, 0), json.dumps(other.to_json()).encode())
    sealed = run.poll_until(Sealed)[0]
    assert sealed.outcome.text == "theirs"


def test_a_container_that_is_started_a_second_time_runs_nothing(dock: Make) -> None:
    run = dock("print('there'); time.sleep(0.5)")
    run.submit()
    run.poll_until_line("there")
    run.backend.close()
    assert run.engine.wait(run.container()) == 0
    run.engine.start(run.container())
    assert run.engine.wait(run.container()) == 18


def test_damage_of_the_store_ends_the_launcher_and_seals_nothing(dock: Make) -> None:
    run = dock("from flowkiln.store.errors import RecordDamaged; raise RecordDamaged('cut', hint='restore it')")
    run.submit()
    with pytest.raises(RecordDamaged, match="cut"):
        run.poll_until(Sealed)
    assert run.store.records.names(f"r/{run.run_id}/t/1/0") == ["begin"]


def test_many_containers_keep_all_workers_busy(dock: Make) -> None:
    run = dock("print(assignment.task); return assignment.task", max_workers=4)
    outcomes = run.run(8)
    assert [outcome.artifacts["value"]["v"] for outcome in outcomes] == list(range(1, 9))
    assert sorted(map(int, run.shown())) == list(range(1, 9))
