"""Verbs about this machine: doctor, cache, store, and what they say where there is nothing yet."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.cli import doctor, problems, progress
from flowkiln.cli.output import duration, size, table
from flowkiln.cli.root import root
from flowkiln.envs import indexes
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.index import PackageIndex


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return problems.execute(root, list(arguments), program="flowkiln")


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_c08_doctor_names_each_tool_with_its_place(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("doctor", "--offline", "--json")
    findings = {finding["name"]: finding for finding in document(capsys)["findings"]}
    assert {"python", "uv", "interpreters", "settings", "cache", "store", "indexes"} <= set(findings)
    assert findings["python"]["origin"]
    assert "not asked, offline" in findings["indexes"]["text"]
    assert "made by the first run" in findings["store"]["text"]


def test_doctor_says_what_is_wrong(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWKILN_UV", str(home / "nonesuch"))
    assert run("doctor", "--offline") == 2
    shown = capsys.readouterr().out
    assert "PROBLEM  uv" in shown
    assert "ENV013" in shown


def findings_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = run("doctor", *words, "--json")
    return code, {finding["name"]: finding for finding in document(capsys)["findings"]}


def test_b09_doctor_names_every_host_that_may_be_contacted(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package_index: PackageIndex,
) -> None:
    package_index.add(wheel("pip", "1.0"))
    monkeypatch.setenv("FLOWKILN_INDEXES", package_index.url)
    monkeypatch.setenv("FLOWKILN_PYTHON_MIRROR", "https://user:secret@pythons.example/dist")
    code, found = findings_of(capsys)
    host = package_index.base.partition("//")[2]
    assert code == 0
    assert found["indexes"]["hosts"] == [host]
    assert found["interpreters"]["hosts"] == ["pythons.example"]
    assert "secret" not in json.dumps(found)
    monkeypatch.delenv("FLOWKILN_PYTHON_MIRROR")
    assert findings_of(capsys)[1]["interpreters"]["hosts"] == ["github.com"]
    assert findings_of(capsys, "--offline")[1]["interpreters"]["hosts"] == []


def test_doctor_finds_the_hosts_of_files_on_the_pages(package_index: PackageIndex) -> None:
    package_index.add(wheel("pip", "1.0"))
    host = package_index.base.partition("//")[2]
    for html in (False, True):
        if html:
            package_index.html_only()
        plan = indexes.plan([package_index.url], environ={})
        assert doctor.asked(plan.indexes[0], plan) == (None, (host,))


def test_b09_an_index_that_cannot_be_reached_is_a_service_that_failed(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package_index: PackageIndex,
) -> None:
    monkeypatch.setenv("FLOWKILN_INDEXES", package_index.url)
    package_index.fault("pip", Fault(status=503))
    code, found = findings_of(capsys)
    assert code == 5
    assert "503" in found["indexes"]["text"]
    monkeypatch.setenv("FLOWKILN_UV", str(home / "nonesuch"))
    assert findings_of(capsys)[0] == 2


def test_no_interpreter_and_no_way_to_one_is_a_problem(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flowkiln.envs.interpreters.Interpreters.all", lambda self: [])
    code, found = findings_of(capsys, "--offline")
    assert (code, found["interpreters"]["state"]) == (2, "problem")


@pytest.mark.parametrize(
    "words", [["cache", "show"], ["cache", "gc"], ["cache", "gc", "--dry-run"], ["run", "list"], ["store", "check"]]
)
def test_an_empty_machine_is_no_error(home: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 0
    assert run(*words, "--json") == 0


def test_sizes_are_read_as_people_write_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cache", "gc", "--dry-run", "--max-size", "1.5 GB") == 0
    assert run("cache", "gc", "--dry-run", "--max-size", "much") == 2
    assert "not a size" in capsys.readouterr().err


def test_a_store_named_on_the_command_line_is_the_one_looked_at(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("config", "show", "--store", "elsewhere", "--json") == 0
    assert document(capsys)["store"] == str(home / "elsewhere")


def test_texts_for_people() -> None:
    assert [size(0), size(999), size(12_345), size(3_200_000_000)] == ["0 B", "999 B", "12.3 kB", "3.2 GB"]
    assert [duration(0.04), duration(185), duration(7440)] == ["0.0 s", "3 min 05 s", "2 h 04 min"]
    assert table(["A", "B"], [["x", 10], ["long", 5]], right=[1]) == ["A      B", "x     10", "long   5"]


def test_a08_a_phase_tells_of_itself_after_a_second_and_then_every_five(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress.PlainReporter().phase("fetching", total=2_000_000, unit="bytes") as phase:
        told = []
        for _ in range(120):
            clock[0] += 0.1
            phase.tick("numpy")
            if capsys.readouterr().err:
                told.append(round(clock[0] - 100, 1))
        phase.advance(1_000_000, item="scipy")
        clock[0] += 6
        phase.tick()
        assert "fetching, 1.0 MB of 2.0 MB, scipy" in capsys.readouterr().err
    assert told[0] <= 1.1
    assert all(later - earlier <= 5.2 for earlier, later in itertools.pairwise(told))
    assert "fetching: done" in capsys.readouterr().err


def test_a_quick_phase_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.PlainReporter().phase("reading") as phase:
        phase.advance()
    assert capsys.readouterr().err == ""


def test_a_phase_counts_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress.PlainReporter().phase("bake", total=6, unit="layer") as phase:
        clock[0] += 2
        phase.advance()
    with progress.PlainReporter().phase("bake", total=1, unit="layer") as phase:
        clock[0] += 2
        phase.tick("numpy")
    assert capsys.readouterr().err.splitlines()[::2] == [
        "bake, 1 of 6 layers, 2.0 s",
        "bake, 0 of 1 layer, numpy, 2.0 s",
    ]
