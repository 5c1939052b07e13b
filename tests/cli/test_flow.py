"""The command line of a flow, in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import flowkiln
from flowkiln.cli import problems
from flowkiln.cli.flow import VERBS, FlowGroup, _with_flow, command
from flowkiln.cli.output import Session
from flowkiln.cli.root import root
from flowkiln.wiring.loading import load

FLOW = '''
from flowkiln import FlowSpec, JSONType, Parameter, retry, step

class Small(FlowSpec):
    """Says little."""

    some_number = Parameter("some_number", default=3, help="a number")
    table = Parameter("table", type=JSONType, required=True)

    @retry(times=2)
    @step
    def start(self):
        """First."""
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Small()
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("FLOWKILN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.py"
    path.write_text(FLOW)
    return path


def run(file: Path, *words: str) -> int:
    speaker = Session()
    return problems.execute(command(load(file), speaker), list(words), program="python small.py", session=speaker)


def test_no_verb_is_check(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file) == 0
    first = capsys.readouterr().out
    assert run(file, "check") == 0
    assert capsys.readouterr().out == first == "Small is sound: 2 steps, from start to end\n"


@pytest.mark.parametrize("words", [["--json", "check"], ["check", "--json"], ["--json"]])
def test_common_options_stand_on_either_side(
    file: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, *words) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


@pytest.mark.parametrize(
    "words", [["--with", "timeout:seconds=5", "show"], ["show", "--with", "timeout:seconds=5"]]
)
def test_flow_options_stand_on_either_side(
    file: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, *words) == 0
    assert capsys.readouterr().out.count("@timeout(") == 2


@pytest.mark.parametrize("kind", ["pypi", "conda", "local"])
def test_environment_of_metaflow_is_accepted_as_already_true(file: Path, kind: str) -> None:
    assert run(file, f"--environment={kind}", "check") == 0
    assert run(file, "--environment=docker", "check") == 2


def test_show_has_documents_decorators_and_what_follows(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "show") == 0
    shown = capsys.readouterr().out
    assert "Says little." in shown
    assert "@retry(" in shown
    assert "=> end" in shown
    assert run(file, "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"]] == ["start", "end"]
    (retry,) = document["steps"][0]["decorators"]
    assert retry["arguments"]["times"] == 2  # a value, not its text


def test_parameters_are_options_of_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "run", "--help") == 0
    shown = capsys.readouterr().out
    assert "--some_number, --some-number INT" in shown
    assert "a number (default: 3)" in shown
    assert "--table JSON" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run"], "'table' is required"),
        (["run", "--table", "{"], "is not JSON"),
        (["run", "--table", "1", "--some-number", "x"], "is not a whole number"),
        (["run", "--tabel", "1"], "No such option"),
        (["rnu"], "No such command"),
        (["run", "--table", "1", "--max-workers", "0"], "max-workers"),
        (["run", "--table", "1", "--isolation", "both"], "isolation"),
        (["run", "--table", "1", "--verify-env", "no"], "verify-env"),
    ],
)
def test_bad_input_is_exit_2_before_anything_is_stored(
    file: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, *words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error[")
    assert text in shown
    assert not (file.parent / ".flowkiln").exists()


def test_a_parameter_comes_from_its_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWKILN_RUN_SOME_NUMBER", "many")
    assert run(file, "run", "--table", "1") == 2
    assert "'many' is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["profile", "events", "json", "store"])
def test_a_parameter_cannot_have_the_name_of_an_option(
    file: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file.with_name(f"named_{name}.py")
    path.write_text(FLOW.replace('"some_number", default=3', f'"{name}", default=3'))
    assert run(path, "run", "--table", "1") == 2
    assert "FLW013" in (shown := capsys.readouterr().err)
    assert "taken by an option" in shown


def test_env_takes_this_flow_as_its_environment() -> None:
    def words(*given: str) -> list[str]:
        return _with_flow(list(given), ["list", "show", "why", "exec", "diff"], "f.py", {"start", "fit"})

    assert words("list", "--json") == ["list", "f.py", "--json"]
    assert words("--json", "list") == ["--json", "list", "f.py"]
    assert words("why", "numpy") == ["why", "numpy", "f.py"]
    assert words("why", "numpy", ":fit") == ["why", "numpy", "f.py:fit"]
    assert words("diff", ":start", ":end") == ["diff", "f.py:start", "f.py:end"]
    assert words("exec", ":fit", "--", "python") == ["exec", "f.py:fit", "--", "python"]
    assert words("nonesuch") == ["nonesuch"]
    assert words("show", "--platform", "linux/arm64", "fit") == ["show", "--platform", "linux/arm64", "f.py:fit"]
    assert words("diff", "start", "fit") == ["diff", "f.py:start", "f.py:fit"]
    assert words("exec", "fit", "--", "start") == ["exec", "f.py:fit", "--", "start"]
    assert words("exec", "python", "fit") == ["exec", "f.py", "python", "fit"]
    assert words("why", "fit") == ["why", "fit", "f.py"]
    assert words("why", "fit", "start") == ["why", "fit", "f.py:start"]


def test_env_of_a_flow_reaches_the_verbs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "env", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["environments"] == []
    assert run(file, "env", "nonesuch") == 2
    capsys.readouterr()
    assert run(file, "env", "show", "--help") == 0
    assert "Usage: python small.py env show [OPTIONS] ENV" in capsys.readouterr().out
    assert run(file, "env", "show", "--nonesuch") == 2
    assert "`python small.py env show --help`" in capsys.readouterr().err


def test_flowkiln_flow_is_the_same_command_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "__main__", __import__("sys").modules["__main__"])
    assert problems.execute(root, ["flow", str(file), "show"], program="flowkiln") == 0
    direct = capsys.readouterr().out
    assert run(file, "show") == 0
    assert capsys.readouterr().out == direct


def test_every_verb_of_a_flow_has_help_and_an_example() -> None:
    group = FlowGroup(VERBS)
    context: Any = group.context_class(group, obj=Session())
    for name in VERBS:
        verb = group.get_command(context, name)
        assert verb is not None
        assert verb.help
        assert "Example:" in (verb.epilog or "")


@pytest.mark.parametrize("tag", ["", " ", "a\nb", "\x1b[1m", "\udcff"])
def test_a_tag_is_printable_text(file: Path, tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "run", "--table", "1", "--tag", tag) == 2
    assert "is no tag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ("default=10**5000", "(default: a int that cannot be shown)"),
        ("default='x' * 1000", "xxx...)"),
        ("help=5", " 5 (default: 3)"),
    ],
)
def test_odd_parameters_have_help(
    file: Path, declared: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    default = "" if "default" in declared else ", default=3"
    file.write_text(FLOW.replace('default=3, help="a number"', f"{declared}{default}"))
    assert run(file, "run", "--help") == 0
    assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["-c", FLOW], ["-"]])
def test_a_flow_without_a_file_is_told(tmp_path: Path, words: list[str]) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(flowkiln.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *words, "run"],
        input=FLOW,
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error[CLI004] Small is in no file")


@pytest.mark.parametrize("words", [["run", "--table", "1"], ["env", "list"]])
def test_a_current_folder_that_is_gone_is_told(
    file: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = file.parent / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert run(file, *words) == 2
    assert capsys.readouterr().err.startswith("error[CLI011]")


def test_a_cache_that_cannot_be_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWKILN_CACHE", str(file))
    assert run(file, "run", "--table", "1") == 2
    shown = capsys.readouterr().err
    assert f"error[SYS002] the cache cannot be {file}: " in shown
    assert "FLOWKILN_CACHE" in shown


@pytest.mark.parametrize("rest", ["start", "w/99"])
@pytest.mark.parametrize("word", ["cancel", "attach"])
def test_a_part_of_a_run_is_neither_cancelled_nor_attached(
    file: Path, word: str, rest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(file, "run", "--table", "1", "--run-id-file", "id") == 0
    whole = f"Small/{Path('id').read_text()}"
    assert problems.execute(root, ["run", word, f"{whole}/{rest}"], program="flowkiln") == 2
    shown = capsys.readouterr().err
    assert f"{whole}/{rest} is a part of a run" in shown
    assert shown.endswith(f"hint: The run is {whole}.\n")
