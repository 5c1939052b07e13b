"""What projects say of themselves: names, and the import packages that travel as code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowkiln.envs import projectfiles
from flowkiln.envs.directerrors import NoProject
from flowkiln.envs.sources import spec


def write(root: Path, pyproject: str, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")
    (root / "pyproject.toml").write_text(pyproject)
    return root


NAMED = '[project]\nname = "My-Lib"\n'
LAYOUTS = {
    "src": (
        NAMED,
        ("src/a/__init__.py", "src/a/data.json", "src/b.py", "other/x.py"),
        ["a/__init__.py", "a/data.json", "b.py"],
    ),
    "flat": (
        NAMED,
        ("my_lib/__init__.py", "my_lib/in/x.py", "tests/x.py", "more/x.py"),
        ["my_lib/__init__.py", "my_lib/in/x.py"],
    ),
    "module": (NAMED, ("my_lib.py", "setup.py"), ["my_lib.py"]),
    "all": (NAMED, ("a/x.py", "b.py", "setup.py", "tests/x.py", "test_b.py", "docs/conf.py"), ["a/x.py", "b.py"]),
    "hatch": (
        f'{NAMED}[tool.hatch.build.targets.wheel]\npackages = ["lib/a"]\n',
        ("lib/a/x.py", "src/b/x.py"),
        ["a/x.py"],
    ),
    "setuptools": (
        f'{NAMED}[tool.setuptools.packages.find]\nwhere = ["python"]\n',
        ("python/a/x.py", "b/x.py"),
        ["a/x.py"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_import_packages(layout: str, tmp_path: Path) -> None:
    pyproject, paths, expected = LAYOUTS[layout]
    found = projectfiles.code_of(write(tmp_path, pyproject, *paths), environ=os.environ)
    assert sorted(found) == expected
    assert all(path.is_file() for path, _ in found.values())


def test_a_project_without_code(tmp_path: Path) -> None:
    with pytest.raises(NoProject, match="no import package"):
        projectfiles.code_of(write(tmp_path, NAMED, "README"), environ=os.environ)


def test_names(tmp_path: Path) -> None:
    assert projectfiles.name_of(write(tmp_path, NAMED)) == "my-lib"
    assert projectfiles.name_of(write(tmp_path, '[tool.poetry]\nname = "a_b"\n')) == "a-b"
    with pytest.raises(NoProject, match="cannot be read"):
        projectfiles.name_of(write(tmp_path, "[project\n"))
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(NoProject, match="holds no Python project"):
        projectfiles.name_of(tmp_path)


def test_a_project_as_code_brings_its_dependencies(tmp_path: Path) -> None:
    more = 'dependencies = ["attrs>=20", "near"]\n[project.optional-dependencies]\nfast = ["numba"]\n'
    more += '[tool.uv.sources]\nnear = { path = "../near" }\n'
    (tmp_path / "near").mkdir()
    write(tmp_path / "near", '[project]\nname = "near"\n')
    (tmp_path / "lib").mkdir()
    write(tmp_path / "lib", NAMED + more, "src/a.py")
    found = spec({"packages": {"my-lib[fast]": {"path": "lib", "as": "code"}}}, folder=tmp_path)
    assert found.requirements == ("attrs>=20", "near", "numba")
    assert [(one.name, one.url) for one in found.direct] == [("near", "near")]
    assert found.code == (tmp_path / "lib",)
    same = spec({"packages": ["attrs>=20", "near @ ./near", "numba"]}, folder=tmp_path)
    assert same.spec_id == found.spec_id, "code is no part of the environment"
    write(tmp_path / "lib", f'{NAMED}dynamic = ["dependencies"]\n')
    with pytest.raises(NoProject, match="does not state the dependencies"):
        spec({"packages": {"my-lib": {"path": "lib", "as": "code"}}}, folder=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        NAMED + 'dependencies = "attrs"\n',
        NAMED + "dependencies = [3]\n",
        NAMED + "dynamic = 3\n",
        NAMED + "[project.optional-dependencies]\nfast = 3\n",
        NAMED + "[tool]\nuv = 3\n",
        'tool = "x"\n' + NAMED,
        "project = [1]\n",
    ],
)
def test_a_project_as_code_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lib").mkdir()
    write(tmp_path / "lib", text)
    with pytest.raises(NoProject, match=r"not of the form"):
        spec({"packages": {"my-lib": {"path": "lib", "as": "code"}}}, folder=tmp_path)
