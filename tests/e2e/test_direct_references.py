"""Distributions by repository, URL and path: locked, built, run; and projects that travel as code."""

from __future__ import annotations

import shutil
import tomllib
from typing import Any

import pytest

from tests.e2e.containers import docked
from tests.e2e.project import Project
from tests.services import repositories
from tests.services.index import PackageIndex
from tests.services.projects import project as sources
from tests.services.projects import source
from tests.services.wheels import wheel

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, pypi, step


class Direct(FlowSpec):
    @pypi(packages=PACKAGES, python="3.11")
    @step
    def start(self):
        import demo
        print("demo", demo.VERSION, demo.__file__)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Direct()
"""


@pytest.fixture
def here(project: Project, package_index: PackageIndex) -> Project:
    """A project that builds on this machine itself."""
    project.environ |= {"FLOWKILN_INDEXES": package_index.url, "FLOWKILN_BUILD_WHERE": "host"}
    return project


def declare(project: Project, packages: object) -> None:
    project.write("flow.py", FLOW.replace("PACKAGES", repr(packages)))


def locked(project: Project, name: str = "demo") -> dict[str, Any]:
    path = project.folder / "flow.locks" / "pylock.start-linux-amd64.toml"
    packages: list[dict[str, Any]] = tomllib.loads(path.read_text())["packages"]
    return next(one for one in packages if one["name"] == name)


def test_a_repository_is_locked_built_and_run(here: Project, package_index: PackageIndex) -> None:
    package_index.add(wheel("helper", "1.0"))
    repository = repositories.repository(
        here.home / "served" / "demo", sources("demo", requires=["helper"]), tag="v1"
    )
    first = repositories.git(repository, "rev-parse", "HEAD")
    with repositories.served(repository.parent) as url:
        declare(here, {"demo": {"git": f"{url}/demo/.git", "ref": "main"}})
        assert "demo 1.0" in here.run().ok().out
        vcs = locked(here)["vcs"]
        assert (vcs["url"], vcs["requested-revision"], vcs["commit-id"]) == (f"{url}/demo/.git", "main", first)
        second = repositories.commit(repository, sources("demo", "2.0"))
        here.flowkiln("env", "lock", "flow.py").ok()
        assert locked(here)["vcs"]["commit-id"] == first
        shutil.rmtree(here.home / "cache")
        assert "demo 1.0" in here.run("--locked").ok().out, "built again from the locked commit"
        here.flowkiln("env", "lock", "--upgrade", "demo", "flow.py").ok()
        assert (locked(here)["vcs"]["commit-id"], locked(here)["version"]) == (second, "2.0")


def test_a_folder_is_built_and_stale_when_it_changes(here: Project) -> None:
    for name, text in sources("demo").items():
        here.write(f"lib/{name}", text)
    declare(here, {"demo": {"path": "lib"}})
    assert "demo 1.0" in here.run().ok().out
    assert locked(here)["directory"]["path"] == "../lib"
    assert "demo 1.0" in here.run("--locked").ok().out
    for name, text in sources("demo", "2.0").items():
        here.write(f"lib/{name}", text)
    here.run("--locked").failed(3, "start")
    assert "demo 2.0" in here.run().ok().out


def test_archives_and_wheels_by_url(here: Project) -> None:
    made = source("demo", files=sources("demo"))
    (here.folder / made.filename).write_bytes(made.data)
    declare(here, [f"./{made.filename}"])
    assert "demo 1.0" in here.run().ok().out
    assert locked(here)["archive"]["hashes"]["sha256"] == made.sha256


CODE = """[project]
name = "demo"
version = "3.0"
dependencies = ["helper>=1"]
"""


def test_a_project_travels_as_code(here: Project, package_index: PackageIndex) -> None:
    package_index.add(wheel("helper", "1.0"))
    here.write("../lib/pyproject.toml", CODE)
    here.write("../lib/src/demo/__init__.py", "import json, pathlib\nimport helper\nVERSION = '3.0'\n")
    here.write("../lib/src/demo/data.txt", "")
    here.environ["FLOWKILN_BUILD_WHERE"] = "never"
    declare(here, {"demo": {"path": "../lib", "as": "code"}})
    told = here.run().ok().out
    assert "demo 3.0" in told
    assert "/lib/src" not in told
    assert locked(here, "helper")["version"] == "1.0"
    here.write("../lib/src/demo/__init__.py", "VERSION = '3.1'\n")
    assert "demo 3.1" in here.run("--locked").ok().out, "code is no part of the environment"
    here.write("demo.py", "")
    here.run().failed(2, "BLD043", "demo.py")


def test_a_project_travels_as_code_into_a_container(here: Project, package_index: PackageIndex) -> None:
    package_index.add(wheel("helper", "1.0"))
    here.write("lib/pyproject.toml", CODE)
    here.write("lib/src/demo/__init__.py", "import helper\nVERSION = '3.0'\n")
    declare(here, {"demo": {"path": "lib", "as": "code"}})
    for dock in docked(here):
        assert "demo 3.0" in dock.project.run("--with", "docker").ok().out
