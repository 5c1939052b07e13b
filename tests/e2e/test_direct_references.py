"""Distributions by repository, URL and path: locked, built, run; and projects that travel as code."""

from __future__ import annotations

import shutil
import tomllib
from typing import Any

import pytest

from tests.e2e.containers import docked
from tests.e2e.project import Project
from tests.services import canary, repositories
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


SCM = """
[build-system]
requires = ["setuptools>=64", "setuptools-scm>=8"]
build-backend = "setuptools.build_meta"

[project]
name = "demo"
dynamic = ["version"]

[tool.setuptools]
py-modules = ["demo"]

[tool.setuptools_scm]
"""


def test_a_version_in_the_tags_of_a_repository_is_found(here: Project) -> None:
    module = "from importlib.metadata import version\nVERSION = version('demo')\n"
    files = {"pyproject.toml": SCM, "demo.py": module}
    repository = repositories.repository(here.home / "served" / "demo", files, tag="v1.4")
    del here.environ["FLOWKILN_INDEXES"]
    with repositories.served(repository.parent) as url:
        declare(here, [f"demo @ git+{url}/demo/.git@v1.4"])
        assert "demo 1.4 " in here.run().ok().out
        commit = repositories.commit(repository, {"other.txt": "x"})
        declare(here, [f"demo @ git+{url}/demo/.git@main"])
        assert f"demo 1.5.dev1+g{commit[:7]}" in here.run().ok().out
        shutil.rmtree(here.home / "cache")
        assert f"demo 1.5.dev1+g{commit[:7]}" in here.run("--locked").ok().out


def test_a_secret_in_the_query_of_a_url_is_refused(here: Project) -> None:
    declare(here, ["demo @ https://files.test/demo-1.0.tar.gz?token=kiln-canary"])
    done = here.run()
    done.failed(2, "error[BLD030]", "token", "netrc")
    assert "kiln-canary" not in done.err


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


def test_archives_and_wheels_by_url(here: Project, package_index: PackageIndex) -> None:
    made = source("demo", files=sources("demo"))
    (here.folder / made.filename).write_bytes(made.data)
    declare(here, [f"./{made.filename}"])
    assert "demo 1.0" in here.run().ok().out
    assert locked(here)["archive"]["path"] == f"../{made.filename}"
    assert locked(here)["archive"]["hashes"]["sha256"] == made.sha256
    shutil.rmtree(here.home / "cache")
    assert "demo 1.0" in here.run("--locked").ok().out
    ready = wheel("demo", "2.0", files={"demo.py": "VERSION = '2.0'\n"})
    package_index.add(ready)
    url = f"{package_index.url.removesuffix('/simple/')}/files/demo/{ready.filename}"
    declare(here, {"demo": {"url": url}})
    here.environ["FLOWKILN_BUILD_WHERE"] = "never"
    assert "demo 2.0" in here.run().ok().out
    shutil.rmtree(here.home / "cache")
    assert "demo 2.0" in here.run("--locked").ok().out


def test_a_password_of_a_repository_stays_where_it_was_written(here: Project) -> None:
    repository = repositories.repository(here.home / "served" / "demo", sources("demo"))
    secret = "kiln-canary-7d41f0"
    with repositories.served(repository.parent, login=("me", secret)) as url:
        here.write("flow.py", FLOW.replace("packages=PACKAGES", "requirements='r.txt'"))
        line = f"demo @ git+{url.replace('//', '//me:${TOKEN}@')}/demo/.git\n"
        here.write("r.txt", line)
        here.environ["TOKEN"] = secret
        told = here.run().ok()
        assert "demo 1.0" in told.out
        here.environ["TOKEN"] = f"{secret}-old"
        here.flowkiln("env", "lock", "--upgrade", "demo", "flow.py").failed(5, "BLD034")
    assert secret not in told.out + told.err
    assert canary.find(secret, here.folder, here.home / "cache", pairs=["me"]) == []


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


def test_code_that_would_hide_a_package_of_another_step_is_refused(
    here: Project, package_index: PackageIndex
) -> None:
    package_index.add(wheel("demo", "1.0"), wheel("other", "1.0", requires=["demo"]))
    for name, text in sources("demo", "9.0").items():
        here.write(f"lib/{name}", text)
    here.write("lib/demo.py", "VERSION = 'of the code'\n")
    declare(here, {"other": "1.0"})
    text = (here.folder / "flow.py").read_text()
    as_code = '@pypi(packages={"demo": {"path": "lib", "as": "code"}})\n    @step\n    def end'
    here.write("flow.py", text.replace("@step\n    def end", as_code))
    here.run().failed(2, "error[BLD043]", "step 'start'", "demo", '"as": "code"')
