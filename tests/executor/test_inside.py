"""The supervisor of containers as a program of its own, on every Python, without a container."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.json import compact
from flowkiln.executor.backend import Assignment
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.plan import Prefix, StepPlan
from flowkiln.executor.runtime import START, runtime_folder
from flowkiln.store import keys, logs
from flowkiln.store.folder import FolderStore

from .bench import worker
from .test_process import INTERPRETERS

TOKEN = "0123456789abcdef"
ENV_ID, DIGEST = "sha256:" + "e" * 64, "sha256:" + "d" * 64


class Inside:
    """One attempt's folder, and its supervisor."""

    def __init__(self, folder: Path, cache: Path, body: str, python: str = sys.executable, **more: Any) -> None:
        self.store = FolderStore(folder / "store")
        self.runtime = runtime_folder(cache)
        self.folder = folder
        self.python = python
        (folder / "code").mkdir()
        (folder / "code" / "flow.py").write_text(worker(body))
        prefix = Prefix(python=python, version="3.11.0", platform="linux/amd64")
        step = StepPlan(name="work", kind="linear", prefix=prefix, timeout=more.pop("timeout", None))
        assignment = Assignment(run="1", flow="F", step="work", task=1, attempt=0, parent=(0, 0))
        self.task: dict[str, Any] = {
            "schema": 1,
            "token": TOKEN,
            "path": str(folder / "task.json"),
            "store": str(folder / "store"),
            "key": "r/1/t/1/0",
            "spool": str(folder / "outcome.json"),
            "root": str(folder / "env"),
            "assignment": assignment.to_json(),
            "step": step.to_json(),
            "info": {"store": str(folder / "store"), "code_dir": str(folder / "code")},
            "command": [None, str(folder / "code" / "flow.py")],
            "environ": {"PYTHONPATH": str(self.runtime), "PYTHONUNBUFFERED": "1"},
            "own": ["PYTHONPATH", "PYTHONUNBUFFERED"],
            "grace": 0.3,
            "drain": 0.3,
            "proof": {"level": "digest", "env_id": None, "tree_digest": None, "record": {"vouched": "test"}},
            **more,
        }

    def begin(self, token: str = TOKEN) -> None:
        record = {"schema": 1, "execution": {"kind": "docker", "token": token}}
        self.store.records.create(keys.begin("1", 1, 0), compact(record))

    def start(self) -> subprocess.Popen[str]:
        (self.folder / "task.json").write_text(json.dumps(self.task))
        command = [self.python, "-I", "-S", "-B", str(self.runtime / START), str(self.folder / "task.json")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={})

    def run(self) -> tuple[int, str, str]:
        process = self.start()
        out, error = process.communicate(timeout=60)
        return process.returncode, out, error

    @property
    def outcome(self) -> Outcome:
        data = self.store.records.read(keys.outcome("1", 1, 0))
        assert data is not None
        return Outcome.from_json(json.loads(data))


Make = Callable[..., Inside]


@pytest.fixture
def inside(tmp_path: Path, cache: Path) -> Make:
    def make(body: str = "return 1", **more: Any) -> Inside:
        return Inside(tmp_path, cache, body, **more)

    return make


@pytest.mark.parametrize(("minor", "python"), INTERPRETERS)
def test_it_runs_on_every_supported_python(inside: Make, minor: int, python: str) -> None:
    run = inside("print('hi'); print('err', file=sys.stderr); return list(sys.version_info[:2])", python=python)
    run.begin()
    assert run.run() == (0, "hi\n", "err\n")
    assert run.outcome.artifacts["value"] == {"v": [3, minor]}
    assert run.outcome.environment == {"vouched": "test", "python": run.outcome.environment["python"]}
    assert run.outcome.environment["python"].startswith(f"3.{minor}.")
    assert [line.text for line in logs.read(run.outcome.logs, run.store.blobs)] == ["hi", "err"]
    assert not (run.folder / "outcome.json").exists()


def test_a_failure_is_sealed_and_told_by_the_exit_code(inside: Make) -> None:
    run = inside("os._exit(0)")
    run.begin()
    assert run.run()[0] == 1
    assert run.outcome.failure is not None
    assert run.outcome.failure.cause == "exit"


def test_without_a_lease_nothing_runs(inside: Make) -> None:
    run = inside("print('ran')")
    code, out, error = run.run()
    assert (code, out) == (18, "")
    assert "nobody has begun" in error
    run.begin("another")
    code, out, error = run.run()
    assert (code, out) == (18, "")
    assert "another container" in error


def test_an_attempt_that_has_ended_does_not_run_again(inside: Make) -> None:
    run = inside("print('ran')")
    run.begin()
    run.store.records.create(keys.outcome("1", 1, 0), b"{}")
    assert run.run()[:2] == (18, "")


def test_a_store_that_cannot_be_read_is_told(inside: Make) -> None:
    run = inside("print('ran')")
    (run.folder / "store" / "r" / "1" / "t" / "1" / "0" / "begin").mkdir(parents=True)
    code, out, error = run.run()
    assert (code, out) == (19, "")
    assert "the store cannot be read" in error


def test_the_loser_of_a_race_says_so(inside: Make) -> None:
    run = inside("store.records.create('r/1/t/1/0/outcome', b'{}')")
    run.begin()
    code, _, error = run.run()
    assert code == 18
    assert "sealed first" in error


def test_an_environment_that_is_not_there_runs_nothing(inside: Make) -> None:
    proof = {"level": "digest", "env_id": ENV_ID, "tree_digest": DIGEST, "record": {}}
    run = inside("print('ran')", proof=proof)
    run.begin()
    assert run.run()[:2] == (17, "")
    failure = run.outcome.failure
    assert failure is not None
    assert (failure.failure_class, failure.cause, failure.code) == ("environment", "mismatch", "ENV050")


def test_an_interpreter_that_cannot_start_is_told(inside: Make) -> None:
    run = inside(command=["/absent/python", "x"])
    run.begin()
    assert run.run()[0] == 1
    assert run.outcome.failure is not None
    assert run.outcome.failure.cause == "not-started"
    assert "/absent/python" in run.outcome.failure.text


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGINT, "cancelled"), (signal.SIGTERM, "interrupted")], ids=["int", "term"]
)
def test_a_signal_ends_the_step_with_its_group(inside: Make, number: int, cause: str) -> None:
    body = """
    import subprocess
    subprocess.Popen(["sleep", "600"])
    print("there", flush=True)
    try:
        time.sleep(600)
    finally:
        print("never", flush=True)
    """
    run = inside(body)
    run.begin()
    process = run.start()
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)  # ends when nobody holds the pipes any more
    assert (process.returncode, out) == (1, "")
    assert run.outcome.failure is not None
    assert run.outcome.failure.cause == cause


def test_nobody_who_reads_is_waited_for(inside: Make) -> None:
    run = inside("for _ in range(3000):\n    print('x' * 999)")
    run.begin()
    process = run.start()  # nothing reads its output: the pipe is full after 64 KiB
    assert process.wait(timeout=60) == 0
    assert run.outcome.logs["lines"] == 3000
    process.communicate()


def conda(run: Inside, script: str) -> None:
    root = run.folder / "env"
    (root / "conda-meta").mkdir(parents=True)
    (root / "etc" / "conda" / "activate.d").mkdir(parents=True)
    (root / "etc" / "conda" / "activate.d" / "a.sh").write_text(script)


def test_a_conda_environment_is_activated_and_that_is_recorded(inside: Make) -> None:
    run = inside("import os; return os.environ['DATA'], os.environ['CONDA_PREFIX'], os.environ['MINE']")
    run.task["step"]["environ"] = [["MINE", "own"]]
    run.task["environ"]["MINE"] = "own"
    conda(run, "export DATA=$CONDA_PREFIX/share MINE=theirs PYTHONPATH=/nowhere")
    run.begin()
    assert run.run()[0] == 0
    root = str(run.folder / "env")
    assert run.outcome.artifacts["value"] == {"v": [f"{root}/share", root, "own"]}
    changed = ["CONDA_DEFAULT_ENV", "CONDA_PREFIX", "CONDA_SHLVL", "DATA"]
    assert run.outcome.environment["activation"]["variables"] == changed


def test_an_environment_that_cannot_be_activated_starts_no_user_code(inside: Make) -> None:
    run = inside("print('ran'); return 1")
    conda(run, "exit 4")
    run.begin()
    code, out, _ = run.run()
    assert (code, out) == (1, "")
    failure = run.outcome.failure
    assert failure is not None
    assert (failure.failure_class, failure.cause) == ("environment", "not-started")
    assert "an activation script ended the shell (exit code 4)" in failure.text
