from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs.errors import (
    BadCutoff,
    BadRequirement,
    BadSource,
    UnknownOption,
    UnsupportedPython,
    UnsupportedTarget,
)
from flowkiln.envs.sources import (
    file_spec,
    merge,
    project_environments,
    project_spec,
    spec,
)

PYPROJECT = """
[project]
name = "demo"
requires-python = ">=3.12"
dependencies = ["Base>=1"]

[project.optional-dependencies]
Fast_Path = ["speed==2"]

[dependency-groups]
test = ["pytest>8", {include-group = "Lint"}]
lint = ["ruff"]
loop = [{include-group = "loop"}]
odd = [{path = "x"}]

[tool.flowkiln.envs.train]
python = "3.12"
packages = {numpy = "2.*"}
glibc = "2.34"
platforms = ["linux/amd64"]
exclude_newer = 2026-01-31
winners = {"cv2/__init__.py" = "OpenCV_Python"}

[tool.flowkiln.envs.wrong]
pakages = {}
"""

SCRIPT = """#!/usr/bin/env python
# /// script
# requires-python = ">=3.11,<3.13"
# dependencies = [
#   "requests<3",
# ]
# [tool.uv]
# exclude-newer = "2026-01-31T00:00:00Z"
# [[tool.uv.index]]
# url = "https://x.example/simple"
# ///
import requests
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(PYPROJECT)
    return path


def test_packages_as_a_dictionary_or_a_list(tmp_path: Path) -> None:
    one = spec({"python": "3.11", "packages": {"Pandas": ">=2.2,<3", "numpy": "2.0.1"}}, folder=tmp_path)
    two = spec({"python": "3.11", "packages": ["numpy == 2.0.1", "pandas<3,>=2.2"]}, folder=tmp_path)
    assert one == two
    assert one.spec_id == two.spec_id
    assert one.requirements == ("numpy==2.0.1", "pandas<3,>=2.2")


def test_every_option_moves_the_identity(tmp_path: Path) -> None:
    base: dict[str, object] = {"python": "3.11", "packages": ["a"]}
    changes: list[dict[str, object]] = [
        {},
        {"python": "3.12"},
        {"packages": ["b"]},
        {"platforms": ["linux/amd64"]},
        {"indexes": ["https://x.example/simple"]},
        {"exclude_newer": "2026-01-31"},
        {"glibc": "2.34"},
        {"winners": {"x.py": "a"}},
    ]
    ids = [spec({**base, **change}, folder=tmp_path).spec_id for change in changes]
    assert len(set(ids)) == len(ids)


def test_credentials_are_no_part_of_the_identity(tmp_path: Path) -> None:
    ids = {
        spec({"packages": ["a"], "indexes": [f"https://{login}x.example/simple"]}, folder=tmp_path).spec_id
        for login in ("", "ann:one@", "bob:two@")
    }
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"pakages": {}}, UnknownOption, "unknown option 'pakages'"),
        ({"find_links": "x"}, UnknownOption, "find_links"),
        ({"packages": "pandas"}, UnknownOption, "not the text"),
        ({"python": "3.10"}, UnsupportedPython, "end of life"),
        ({"python": 3.9}, UnsupportedPython, "end of life"),
        ({"python": "3.13t"}, UnsupportedPython, "free-threaded"),
        ({"python": "pypy"}, UnsupportedPython, "not a version"),
        ({"platforms": ["linux/riscv"]}, UnsupportedTarget, "linux/amd64"),
        ({"glibc": "musl"}, UnsupportedTarget, "glibc='musl'"),
        ({"exclude_newer": "7 days"}, BadCutoff, "relative"),
        ({"packages": {"a": "newest"}}, BadRequirement, "newest"),
        ({"script": True}, UnknownOption, "script=True"),
        ({"requirements": "missing.txt"}, BadSource, r"missing\.txt cannot be read"),
        ({"group": "test"}, BadSource, r"pyproject\.toml cannot be read"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        spec(options, folder=tmp_path, where="step 'fit'")


def test_a_misspelt_option_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownOption) as caught:
        spec({"pakages": {}}, folder=tmp_path, where="step 'fit'")
    assert caught.value.hint == "Did you mean packages?"
    assert caught.value.message.startswith("step 'fit'")


def test_a_full_python_version_is_kept(tmp_path: Path) -> None:
    assert spec({"python": "3.11.5"}, folder=tmp_path).python == "3.11.5"


def test_groups_and_extras_of_a_project(project: Path) -> None:
    assert file_spec(project).requirements == ("base>=1",)
    assert file_spec(project).requires_python == ">=3.12"
    assert file_spec(project, group="Test").requirements == ("pytest>8", "ruff")
    assert file_spec(project, extra="fast-path").requirements == ("base>=1", "speed==2")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"group": "none"}, "has no group 'none'"),
        ({"extra": "none"}, "has no extra 'none'"),
        ({"group": "loop"}, "includes itself"),
        ({"group": "odd"}, "not a list of requirements"),
    ],
)
def test_bad_parts_of_a_project(project: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(BadSource, match=said):
        file_spec(project, **given)


def test_named_environments(project: Path) -> None:
    assert set(project_environments(project)) == {"train", "wrong"}
    found = project_spec(project, "train")
    assert found.requirements == ("numpy==2.*",)
    assert found.glibc == (2, 34)
    assert found.platforms == (Platform("linux", "amd64"),)
    assert found.exclude_newer == "2026-02-01T00:00:00Z"
    assert found.winners == (("cv2/__init__.py", "opencv-python"),)
    with pytest.raises(BadSource, match="no environment 'none'") as caught:
        project_spec(project, "none")
    assert "train" in str(caught.value.hint)
    with pytest.raises(UnknownOption, match=r"\[tool\.flowkiln\.envs\.wrong\].*pakages"):
        project_spec(project, "wrong")


@pytest.mark.parametrize(
    "text", ["[project", "[project]\ndependencies = 'a'\n", "[project]\ndynamic = ['dependencies']\n"]
)
def test_bad_projects(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(BadSource, match=r"pyproject\.toml"):
        file_spec(path)


def test_scripts(tmp_path: Path) -> None:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    found = file_spec(path)
    assert found.requirements == ("requests<3",)
    assert found.requires_python == "<3.13,>=3.11"
    assert found.exclude_newer == "2026-01-31T00:00:00Z"
    assert found.indexes == ("https://x.example/simple", "default")
    path.write_text(SCRIPT.replace("exclude-newer", "resolution"))
    with pytest.raises(UnknownOption, match="resolution"):
        file_spec(path)
    path.write_text("import this\n")
    with pytest.raises(BadSource, match="no `# /// script` block"):
        file_spec(path)


def test_a_requirements_file_and_packages_together(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("a==1.0 --hash=sha256:" + "0" * 64 + "\n-c c.txt\n")
    (tmp_path / "c.txt").write_text("b<2\n")
    found = spec({"requirements": "r.txt", "packages": {"b": ""}}, folder=tmp_path)
    assert found.requirements == ("a==1.0", "b")
    assert found.constraints == ("b<2",)
    assert found.hashes == (("a", ("0" * 64,)),)
    assert file_spec(tmp_path / "r.txt").requirements == ("a==1.0",)


def test_a_step_extends_its_flow() -> None:
    base = {"python": "3.11", "packages": {"a": "1", "b": "1"}, "platforms": ["linux/amd64"]}
    own = {"python": None, "packages": {"B": "2", "c": ""}, "platforms": None}
    merged = merge(base, own)
    assert merged == {"python": "3.11", "packages": ["a==1", "b==2", "c"], "platforms": ["linux/amd64"]}
    assert spec(merged, folder=Path()).requirements == ("a==1", "b==2", "c")
    assert merge({}, {}) == {}
    assert merge({"python": "3.11"}, {"python": "3.12"})["python"] == "3.12"
