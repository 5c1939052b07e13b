from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import flowkiln
from flowkiln import FlowSpec, Parameter, step
from flowkiln.flow.errors import NotAnArtifact


class Plain(FlowSpec):
    alpha = Parameter("alpha", default=1)
    constant = (1, 2)

    @step
    def start(self) -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def test_an_inert_instance() -> None:
    flow = Plain(use_cli=False)
    assert (flow.name, str(flow), flow.script_name) == ("Plain", "<flow Plain>", Path(__file__).name)
    assert (flow.index, flow.input, flow.foreach_stack()) == (None, None, [])
    assert flow.constant == (1, 2)
    with pytest.raises(AttributeError, match="Flow Plain has no attribute 'nothing'"):
        _ = flow.nothing
    setattr(flow, "own", 5)  # noqa: B010  type checkers know the attributes that methods set
    assert flow.own == 5
    del flow.own
    with pytest.raises(AttributeError):
        del flow.own


def test_a_flow_iterates_over_its_steps() -> None:
    assert [one.name for one in Plain(use_cli=False)] == ["start", "end"]  # type: ignore[attr-defined]
    assert all(one.is_step for one in Plain(use_cli=False))  # type: ignore[attr-defined]


def test_a_flow_is_no_value() -> None:
    with pytest.raises(NotAnArtifact, match="flow Plain cannot be stored") as caught:
        pickle.dumps(Plain(use_cli=False))
    assert "self.x" in (caught.value.hint or "")


def test_the_constructor_runs_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[type] = []
    monkeypatch.setattr("flowkiln.cli.flow.main", started.append)
    with pytest.raises(SystemExit):
        Plain()
    assert started == [Plain]


def test_in_a_worker_the_constructor_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []
    monkeypatch.setenv("FLOWKILN_WORKER", "7")
    monkeypatch.setattr("flowkiln.executor.template.serve", lambda *what: served.append(what))
    with pytest.raises(SystemExit):
        Plain()
    assert len(served) == 1


def test_several_flows_in_one_file_are_chosen_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(
        "import sys\nfrom flowkiln import FlowSpec, step\n"
        "class A(FlowSpec):\n    @step\n    def only(self):\n        pass\n"
        "class B(A):\n    pass\n"
        "if __name__ == '__main__':\n    B()\n",
        encoding="utf-8",
    )
    source = str(Path(flowkiln.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, str(path), "show"], capture_output=True, text=True, env={"PYTHONPATH": source}, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("B\n")


def test_the_public_names_are_what_they_say() -> None:
    assert set(flowkiln.__all__) == set(flowkiln._HOMES)
    for name in flowkiln.__all__:
        assert getattr(flowkiln, name) is not None
        assert name in dir(flowkiln)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = flowkiln.nothing


def test_n03_on_windows_one_line_names_wsl() -> None:
    source = str(Path(flowkiln.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); sys.platform = 'win32'; import flowkiln"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert "WSL 2" in answer.stderr
