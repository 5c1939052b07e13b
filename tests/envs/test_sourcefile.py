from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs import condalock, sources
from flowkiln.envs.errors import BadSource, UnknownOption
from flowkiln.envs.filekinds import kind_of
from flowkiln.envs.lockfileerrors import NotHonoured
from flowkiln.envs.sourcefile import locked
from flowkiln.envs.spec import EnvSpec
from tests.envs import condalocks

PROJECT = """
[project]
name = "app"
version = "1"
requires-python = ">=3.11"
dependencies = ["alpha>=1"]
[project.optional-dependencies]
fast = ["beta"]
more = ["gamma"]
[dependency-groups]
train = ["delta==2"]
"""
YAML = """
name: team
channels: [internal, conda-forge, nodefaults]
platforms: [linux-64, win-64]
dependencies:
  - python=3.11
  - numpy=1.26
  - bioconda::samtools >=1.20
  - pip
  - pip:
      - humanize==4.9.0
"""
PYLOCK = """
lock-version = "1.0"
created-by = "another tool"
requires-python = ">=3.11"

[[packages]]
name = "alpha"
version = "1.0"
wheels = [{ url = "https://files.example/alpha-1.0-py3-none-any.whl", size = 7, hashes = { sha256 = "%s" } }]
""" % ("a" * 64)
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def asked(folder: Path, **options: object) -> EnvSpec:
    return sources.spec(options, folder=folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("requirements.txt", "requirements"),
        ("base.in", "requirements"),
        ("pyproject.toml", "pyproject"),
        ("job.py", "script"),
        ("environment.yml", "environment"),
        ("gpu.yaml", "environment"),
        ("uv.lock", "uvlock"),
        ("pylock.toml", "pylock"),
        ("pylock.gpu.toml", "pylock"),
        ("conda-lock.yml", "condalock"),
        ("train.conda-lock.yml", "condalock"),
    ],
)
def test_a_file_is_known_by_its_name(name: str, kind: str) -> None:
    assert kind_of(Path("folder") / name) == kind


def test_a_project_with_groups_and_extras(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    found = asked(
        tmp_path, source="pyproject.toml", groups=["train"], extras=["fast", "more"], packages={"own": ""}
    )
    assert found.requirements == ("alpha>=1", "beta", "delta==2", "gamma", "own")
    assert found.requires_python == ">=3.11"
    assert asked(tmp_path, source="pyproject.toml").requirements == ("alpha>=1",)


def test_requirements_and_scripts(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("alpha\n")
    (tmp_path / "s.py").write_text('# /// script\n# dependencies = ["beta"]\n# ///\n')
    assert asked(tmp_path, source="r.txt").requirements == ("alpha",)
    assert asked(tmp_path, source="s.py", python="3.12").requirements == ("beta",)


def test_an_environment_file_has_both_sides(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text(YAML)
    found = asked(tmp_path, source="environment.yml", conda={"xz": ""})
    assert found.requirements == ("humanize==4.9.0",)
    assert [spec for spec in found.conda if spec.startswith(("numpy", "xz"))] == ["numpy 1.26.*", "xz"]
    assert any("samtools" in spec for spec in found.conda)
    assert found.channels == ("internal", "conda-forge")
    assert found.platforms == (AMD64,)
    assert found.python == "3.11"
    over = asked(tmp_path, source="environment.yml", channels=["mine"], platforms=["linux/arm64"])
    assert (over.channels, over.platforms) == (("mine",), (ARM64,))


def test_variables_of_an_environment_file_belong_to_a_step(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text(YAML + "variables:\n  TOKEN: x\n")
    with pytest.raises(NotHonoured, match="TOKEN") as caught:
        asked(tmp_path, source="environment.yml")
    assert "@environment" in (caught.value.hint or "")


def test_a_lock_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pylock.toml").write_text(PYLOCK)
    found = asked(tmp_path, source="pylock.toml", platforms=["linux/amd64", "linux/arm64"])
    assert (found.requirements, found.requires_python) == ((), ">=3.11")
    lock = locked("e", found, [AMD64, ARM64], python="3.11.9", required={AMD64}, steps=["b", "a"])
    assert [[wheel.sha256 for wheel in part.wheels] for part in lock.platforms] == [["a" * 64]] * 2
    assert (lock.spec_id, lock.steps, lock.python) == (found.spec_id, ("a", "b"), "3.11")
    changed = PYLOCK.replace("1.0-py3", "1.1-py3").replace('"1.0"\nwheels', '"1.1"\nwheels')
    (tmp_path / "pylock.toml").write_text(changed)
    assert asked(tmp_path, source="pylock.toml", platforms=["linux/amd64", "linux/arm64"]).spec_id != found.spec_id


def test_a_conda_lock_says_its_platforms(tmp_path: Path) -> None:
    (tmp_path / "conda-lock.yml").write_text(condalock.serialise(condalocks.lock()))
    found = asked(tmp_path, source="conda-lock.yml")
    assert found.platforms == (AMD64, ARM64)
    lock = locked("e", found, [AMD64, ARM64, Platform("darwin", "arm64")], python="3.13.0", required=(), steps=())
    assert [part.platform for part in lock.platforms] == [AMD64, ARM64]
    assert [one.reason for one in lock.absent] == ["conda-lock.yml does not cover it"]
    assert all(part.own_python is not None for part in lock.platforms)


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        ("pylock.toml", {"packages": {"a": "1"}}, "source='pylock.toml' and packages do not go together"),
        ("pylock.toml", {"conda": {"a": "1"}}, "and conda do not"),
        ("r.txt", {"groups": ["x"]}, "source='r.txt' and groups do not"),
        ("pyproject.toml", {"requirements": "r.txt"}, "and requirements do not"),
        (None, {"groups": ["x"]}, "groups belong to a file"),
    ],
)
def test_what_does_not_go_together_is_told(
    tmp_path: Path, source: str | None, options: dict[str, object], why: str
) -> None:
    (tmp_path / "pylock.toml").write_text(PYLOCK)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "r.txt").write_text("")
    with pytest.raises(UnknownOption, match=why):
        asked(tmp_path, **({"source": source} if source else {}), **options)


@pytest.mark.parametrize("name", ["absent.yml", "uv.lock", "pylock.toml", "conda-lock.yml", "none.txt"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSource, match="cannot be read"):
        asked(tmp_path, source=name)
