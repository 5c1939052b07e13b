from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowkiln._base.errors import FlowkilnError
from flowkiln.envs.spec import EnvSpec
from flowkiln.flow import graph
from flowkiln.flow.decospecs import from_spec
from flowkiln.flow.environments import EnvRequest, requests
from flowkiln.flow.errors import BadEnvironment
from tests.flow.source import load

PLAIN = """
class F(FlowSpec):
    {start}
    @step
    def start(self):
        self.next(self.fit)

    {fit}
    @step
    def fit(self):
        self.next(self.end)

    {end}
    @step
    def end(self):
        pass
"""


def asked(
    tmp_path: Path, *, base: str = "", withs: tuple[str, ...] = (), **steps: str
) -> dict[str, EnvRequest | None]:
    text = PLAIN.format(**{"start": "", "fit": "", "end": "", **steps})
    kind = load(tmp_path, f"{base}\n{text.strip()}\n", file="train.py")
    return requests(kind, graph.read(kind, [from_spec(one) for one in withs]))


def names(found: dict[str, EnvRequest | None]) -> dict[str, str | None]:
    return {step: one.name if one else None for step, one in found.items()}


def spec(one: EnvRequest | None) -> EnvSpec:
    assert one is not None
    return one.spec


def test_a_flow_that_declares_nothing_is_unmanaged(tmp_path: Path) -> None:
    assert asked(tmp_path) == {"start": None, "fit": None, "end": None}


def test_undecorated_steps_get_one_bare_environment(tmp_path: Path) -> None:
    found = asked(tmp_path, fit='@pypi(packages={"pandas": "2.2.*"})')
    assert names(found) == {"start": "start", "fit": "fit", "end": "start"}
    assert spec(found["start"]) == EnvSpec()
    assert spec(found["fit"]).requirements == ("pandas==2.2.*",)
    assert found["start"] is not None
    assert found["start"].steps == ("start", "end")
    assert found["start"].file == tmp_path / "train.py"
    assert not found["start"].shared


def test_equal_requests_are_one_environment_named_after_its_first_step(tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        start='@pypi(packages={"a": "1", "b": ">=2"})',
        fit='@pypi(packages=["b>=2", "a==1"])',
        end='@pypi(packages={"a": "1", "b": ">=2"}, disabled=False)',
    )
    assert names(found) == {"start": "start", "fit": "start", "end": "start"}


def test_the_step_level_wins_over_the_base(tmp_path: Path) -> None:
    base = '@pypi_base(packages={"a": "1", "b": "1"}, python="3.12")'
    found = asked(tmp_path, base=base, fit='@pypi(packages={"B": "2", "c": "3"}, python="3.13")')
    assert spec(found["start"]).requirements == ("a==1", "b==1")
    assert spec(found["start"]).python == "3.12"
    assert spec(found["fit"]).requirements == ("a==1", "b==2", "c==3")
    assert spec(found["fit"]).python == "3.13"
    assert names(found) == {"start": "start", "fit": "fit", "end": "start"}


def test_disabled_steps_run_without_an_environment(tmp_path: Path) -> None:
    base = '@pypi_base(packages={"a": "1"})'
    assert names(asked(tmp_path, base=base, fit="@pypi(disabled=True)"))["fit"] is None
    assert asked(tmp_path, base='@pypi_base(packages={"a": "1"}, disabled=True)', fit="") == dict.fromkeys(
        ("start", "fit", "end")
    )
    found = asked(tmp_path, base="@pypi_base(disabled=True)", fit='@pypi(packages={"a": "1"}, disabled=False)')
    assert names(found) == {"start": None, "fit": "fit", "end": None}


def test_only_disabled_declarations_leave_the_flow_unmanaged(tmp_path: Path) -> None:
    assert asked(tmp_path, fit='@pypi(packages={"a": "1"}, disabled=True)') == dict.fromkeys(
        ("start", "fit", "end")
    )


def test_conda_and_pypi_on_one_step_are_one_environment(tmp_path: Path) -> None:
    found = asked(
        tmp_path,
        start='@pypi(packages={"a": "1"})\n'
        '    @conda(packages={"numpy": "1.26.*"}, channels=["conda-forge"], cuda="12.4")',
        fit="@conda",
    )
    start = spec(found["start"])
    assert start.conda == ("numpy 1.26.*",)
    assert start.requirements == ("a==1",)
    assert (start.channels, start.virtual) == (("conda-forge",), (("cuda", "12.4"),))
    assert spec(found["fit"]).conda == ("python",)
    assert spec(found["end"]) == EnvSpec()


def test_the_sides_of_flow_and_step_are_joined(tmp_path: Path) -> None:
    base = '@conda_base(libraries={"numpy": "1.26.*", "zlib": ""}, python="3.11")\n@pypi_base(packages={"a": "1"})'
    found = asked(
        tmp_path,
        base=base,
        start='@conda(packages={"numpy": "2.*"}, libraries={"numpy": "1.*", "xz": ""})',
        fit="@pypi(disabled=True)",
        end="@pypi(disabled=True)\n    @conda(disabled=True)",
    )
    assert spec(found["start"]).conda == ("numpy 2.*", "xz", "zlib")
    assert spec(found["start"]).requirements == ("a==1",)
    assert spec(found["fit"]).conda == ("numpy 1.26.*", "zlib")
    assert spec(found["fit"]).requirements == ()
    assert found["end"] is None


def test_two_sides_that_disagree_are_told(tmp_path: Path) -> None:
    fit = '@conda(packages={"numpy": ""}, python="3.11")\n    @pypi(packages={"a": "1"}, python="3.12")'
    with pytest.raises(BadEnvironment) as caught:
        asked(tmp_path, fit=fit)
    assert "step 'fit': @pypi(python='3.12') and @conda(python='3.11') are one environment" in caught.value.message
    assert caught.value.hint == "Give both the same python, or only one of them."


def test_environments_of_the_project_are_shared(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[tool.flowkiln.envs.etl]\npackages = {pandas = "2.2.*"}\npython = "3.12"\n')
    folder = tmp_path / "flows"
    folder.mkdir()
    found = asked(folder, start='@pypi(name="etl")', fit='@pypi(name="etl")')
    assert names(found) == {"start": "etl", "fit": "etl", "end": "end"}
    assert found["fit"] is not None
    assert found["fit"].file == project
    assert found["fit"].shared
    assert spec(found["fit"]).python == "3.12"


def test_an_unknown_environment_of_the_project_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.flowkiln.envs.etl]\npackages = {pandas = "2.2.*"}\n')
    with pytest.raises(FlowkilnError) as caught:
        asked(tmp_path, fit='@pypi(name="elt")')
    assert "elt" in caught.value.message
    assert "etl" in (caught.value.hint or "")


def test_options_beside_the_name_of_a_project_environment_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.flowkiln.envs.etl]\npackages = {pandas = "2.2.*"}\n')
    with pytest.raises(BadEnvironment, match="python beside name='etl'"):
        asked(tmp_path, fit='@pypi(name="etl", python="3.12")')


def test_one_name_for_two_environments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadEnvironment, match="step 'end': name='x' is given to another environment too, by step 'fit'"
    ):
        asked(tmp_path, fit='@pypi(name="x", packages={"a": "1"})', end='@pypi(name="x", packages={"a": "2"})')


def test_a_given_name_wins_and_is_never_given_twice(tmp_path: Path) -> None:
    found = asked(tmp_path, fit='@pypi(name="start", packages={"a": "1"})')
    assert names(found) == {"start": "end", "fit": "start", "end": "end"}
    found = asked(tmp_path, start='@pypi(packages={"a": "1"})', fit='@pypi(name="x", packages={"a": "1"})')
    assert names(found)["start"] == names(found)["fit"] == "x"


def test_sources_are_read_beside_the_flow_file(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("pandas>=2\n")
    (tmp_path / "pyproject.toml").write_text('[dependency-groups]\nml = ["scikit-learn==1.5.0"]\n')
    found = asked(tmp_path, start='@pypi(requirements="needs.txt")', fit='@pypi(group="ml")')
    assert spec(found["start"]).requirements == ("pandas>=2",)
    assert spec(found["fit"]).requirements == ("scikit-learn==1.5.0",)


def test_the_script_block_of_the_flow_file(tmp_path: Path) -> None:
    block = '# /// script\n# dependencies = ["requests<3"]\n# requires-python = ">=3.11"\n# ///\n'
    found = asked(tmp_path, base=block, fit="@pypi(script=True)")
    assert spec(found["fit"]).requirements == ("requests<3",)


def test_an_environment_given_on_the_command_line(tmp_path: Path) -> None:
    found = asked(tmp_path, withs=('pypi:packages={"a": "1"},python=3.12',), fit='@pypi(packages={"b": "1"})')
    assert names(found) == {"start": "start", "fit": "fit", "end": "start"}
    assert spec(found["end"]).requirements == ("a==1",)
    assert spec(found["end"]).python == "3.12"


def test_errors_name_the_step(tmp_path: Path) -> None:
    with pytest.raises(FlowkilnError, match="not a name") as caught:
        asked(tmp_path, fit='@pypi(packages={"not a name": "1"})')
    assert caught.value.step == "fit"
    assert str(caught.value.message).startswith(str(tmp_path))
    assert re.search(r"\.py:\d+: @pypi: ", caught.value.message)


def test_a_file_that_is_not_there_is_told_with_the_decorator_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FlowkilnError, match=r"\.py:\d+: @pypi: .*nonesuch\.txt cannot be read") as caught:
        asked(tmp_path, fit='@pypi(requirements="nonesuch.txt")')
    assert "Name a file that exists" in (caught.value.hint or "")
    with pytest.raises(FlowkilnError, match=r"\.py:\d+: @pypi: .*'windows/amd64'") as caught:
        asked(tmp_path, fit='@pypi(platforms=["windows/amd64"])')
    assert caught.value.hint
