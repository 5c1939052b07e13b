from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln import FlowSpec
from flowkiln.flow import checks
from flowkiln.flow.errors import BadParameter, IncludeUnreadable, MissingParameter
from flowkiln.flow.parameters import evaluate
from tests.flow.source import load

FLOW = "class F(FlowSpec):\n    data = IncludeFile({arguments})\n    @step\n    def start(self):\n        pass\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def flow(folder: Path, arguments: str) -> type[FlowSpec]:
    return load(folder, FLOW.format(arguments=arguments))


def test_a_path_is_looked_up_here_and_then_beside_the_flow_file(tmp_path: Path, elsewhere: Path) -> None:
    kind = flow(tmp_path, "'data', default='d.txt'")
    (tmp_path / "d.txt").write_text("beside", encoding="utf-8")
    assert evaluate(kind, {}) == {"data": "beside"}
    (elsewhere / "d.txt").write_text("here", encoding="utf-8")
    assert evaluate(kind, {}) == {"data": "here"}
    assert evaluate(kind, {"data": str(tmp_path / "d.txt")}) == {"data": "beside"}


def test_text_in_another_encoding_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"\xe9")
    assert evaluate(flow(tmp_path, "'data', default='d', encoding='latin-1'"), {}) == {"data": "é"}
    assert evaluate(flow(tmp_path, "'data', default='d', is_text=False"), {}) == {"data": b"\xe9"}
    with pytest.raises(IncludeUnreadable, match="is not text in utf-8") as caught:
        evaluate(flow(tmp_path, "'data', default='d'"), {})
    assert "is_text=False" in (caught.value.hint or "")
    with pytest.raises(IncludeUnreadable, match="is not text in nonsense"):
        evaluate(flow(tmp_path, "'data', default='d', encoding='nonsense'"), {})


def test_a_file_that_is_not_there_names_where_it_was_looked_for(tmp_path: Path, elsewhere: Path) -> None:
    with pytest.raises(IncludeUnreadable) as caught:
        evaluate(flow(tmp_path, "'data', default='nothing.csv'"), {})
    assert str(elsewhere / "nothing.csv") in caught.value.message
    assert str(tmp_path / "nothing.csv") in caught.value.message
    assert caught.value.line == 3


def test_a_folder_is_no_file(tmp_path: Path, elsewhere: Path) -> None:
    with pytest.raises(IncludeUnreadable):
        evaluate(flow(tmp_path, "'data'"), {"data": str(elsewhere)})


def test_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncludeUnreadable, match="is an address"):
        evaluate(flow(tmp_path, "'data'"), {"data": "s3://bucket/key"})


def test_required_and_absent(tmp_path: Path) -> None:
    with pytest.raises(MissingParameter) as caught:
        evaluate(flow(tmp_path, "'data', required=True"), {})
    assert caught.value.hint == "Give it with --data PATH."
    assert evaluate(flow(tmp_path, "'data'"), {}) == {"data": None}


def test_a_default_computed_when_the_run_starts(tmp_path: Path) -> None:
    (tmp_path / "Fdata.txt").write_text("computed", encoding="utf-8")
    kind = flow(tmp_path, "'data', default=lambda context: context.flow_name + context.parameter_name + '.txt'")
    assert evaluate(kind, {}) == {"data": "computed"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'data', default=5", "default is the path of a file, not 5"),
        ("'data', parse=1", "unknown argument 'parse'"),
    ],
)
def test_a_bad_declaration(tmp_path: Path, arguments: str, said: str) -> None:
    (problem,) = checks.problems(flow(tmp_path, arguments))
    assert isinstance(problem, BadParameter)
    assert said in problem.message
    assert problem.line == 3
