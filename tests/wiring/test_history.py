"""Past and present runs as commands ask for them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln.envs.errors import MissingLock
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.envs.spec import EnvSpec
from flowkiln.store import keys, runs
from flowkiln.store.folder import FolderStore
from flowkiln.store.runs import Run
from flowkiln.wiring import history, requests
from flowkiln.wiring.errors import UnknownRun
from flowkiln.wiring.locks import Request
from tests.envs.test_lockbases import a_pin
from tests.envs.test_lockfolder import a_lock

FLOW = """
from flowkiln import FlowSpec, step

class Wide(FlowSpec):
    @step
    def start(self):
        self.items = ["a", "b", "c"]
        self.next(self.each, foreach="items")

    @step
    def each(self):
        print("item", self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Wide()
"""
SOURCE = Path(history.__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderStore, Run]:
    folder = tmp_path_factory.mktemp("wide")
    (folder / "wide.py").write_text(FLOW)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(SOURCE)}
    environ["FLOWKILN_CACHE"] = str(folder / "cache")
    command = [sys.executable, "wide.py", "--quiet", "run"]
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    store = FolderStore(folder / ".flowkiln")
    return store, next(runs.runs(store.records, "Wide"))


def test_rows_of_the_end_record_equal_what_the_outcomes_say(finished: tuple[FolderStore, Run]) -> None:
    store, run = finished
    packed = history.tasks(store, run)
    assert [row.step for row in packed if row.step != "_parameters"] != []
    assert list(history.replayed(store, run).rows()) == packed


def test_paths_name_runs_steps_and_tasks(finished: tuple[FolderStore, Run]) -> None:
    store, run = finished
    for text in (f"Wide/{run.run}", run.run):
        assert history.find(store, text).run.run == run.run
    assert len(history.chosen(store, history.find(store, f"{run.run}/each"))) == 3
    number = history.chosen(store, history.find(store, f"Wide/{run.run}/each"))[1].task
    assert len(history.chosen(store, history.find(store, f"Wide/{run.run}/each/{number}"))) == 1


@pytest.mark.parametrize("text", ["nonsense", "a/b/c/d/e", "Wide/x"])
def test_what_is_no_path_says_what_one_is(finished: tuple[FolderStore, Run], text: str) -> None:
    with pytest.raises(UnknownRun) as caught:
        history.find(finished[0], text)
    assert "Flow/RUN" in (caught.value.hint or "")


def test_a_step_that_is_not_there_is_named(finished: tuple[FolderStore, Run]) -> None:
    store, run = finished
    with pytest.raises(UnknownRun, match="no step 'nonesuch'"):
        history.chosen(store, history.find(store, f"{run.run}/nonesuch"))


def test_logs_are_read_from_outcomes(finished: tuple[FolderStore, Run]) -> None:
    store, run = finished
    lines = []
    for row in history.chosen(store, history.find(store, f"{run.run}/each")):
        outcome = history.outcome(store, run.run, row.task, row.attempt)
        assert outcome is not None
        lines += [line.text for line in history.log_lines(store, outcome)]
    assert lines == ["item a", "item b", "item c"]
    assert store.records.read(keys.outcome(run.run, 1, 9)) is None
    assert history.outcome(store, run.run, 1, 9) is None


def test_the_record_of_a_run_has_the_locks_and_bases_of_its_steps(
    finished: tuple[FolderStore, Run], tmp_path: Path
) -> None:
    store, run = finished
    lock, pin = a_lock(), a_pin()
    folder = LockFolder(tmp_path / "wide.locks")
    request = Request(name="fit", spec=EnvSpec(), folder=folder, declared=tmp_path / "wide.py")
    wanted = {"start": request, "each": request, "end": None}
    locks = requests.record_of_steps(wanted, {"start": lock, "each": lock, "end": None}, store.blobs, {"each": pin})
    recorded = replace(run, opened={**run.opened, "locks": locks})
    for step, base in (("start", None), ("each", pin)):
        assert history.lock_of(store, recorded, step) == (lock, folder.path)
        assert history.base_of(store, recorded, step) == base
    with pytest.raises(MissingLock, match="no lock for step 'end'"):
        history.base_of(store, recorded, "end")
