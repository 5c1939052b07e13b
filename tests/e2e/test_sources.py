"""Environment files as teams write them, each the environment of a step, as processes and in containers."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from flowkiln.envs import uv, yamltext
from tests.e2e.containers import Dock, docked
from tests.e2e.project import Project
from tests.services.channel import Channel
from tests.services.index import PackageIndex
from tests.services.wheels import wheel

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, conda, pypi, step

AT = {"platforms": ["linux/amd64"]}
PYPI = {**AT, "python": "3.11"}


class Files(FlowSpec):
    @pypi(source="requirements.txt", **PYPI)
    @step
    def start(self):
        self.found = {"requirements": self.look()}
        self.next(self.project)

    @pypi(source="team/uv.lock", groups=["train"], extras=["fast"], **PYPI)
    @step
    def project(self):
        self.found["project"] = self.look()
        self.next(self.pylock)

    @pypi(source="pylock.toml", **PYPI)
    @step
    def pylock(self):
        self.found["pylock"] = self.look()
        self.next(self.script)

    @pypi(source="job.py", **PYPI)
    @step
    def script(self):
        self.found["script"] = self.look()
        self.next(self.environment)

    @conda(source="environment.yml", **AT)
    @step
    def environment(self):
        self.found["environment"] = self.look()
        self.next(self.end)

    @conda(source="conda-lock.yml", **AT)
    @step
    def end(self):
        self.found["conda-lock"] = self.look()
        print("found", sorted(self.found.items()))

    def look(self):
        from importlib.metadata import distributions
        found = {one.name.lower(): one.version for one in distributions()}
        return sorted(f"{name} {found[name]}" for name in ("alpha", "beta", "markupsafe") if name in found)


if __name__ == "__main__":
    Files()
"""
TEAM = """
[project]
name = "team"
version = "1"
requires-python = ">=3.11"
dependencies = ["alpha==1.0"]
[project.optional-dependencies]
fast = ["beta==2.0"]
[dependency-groups]
train = ["markupsafe==0.1"]
"""
FOUND = [
    ("conda-lock", ["beta 2.0", "markupsafe"]),
    ("environment", ["beta 2.0", "markupsafe"]),
    ("project", ["alpha 1.0", "beta 2.0", "markupsafe 0.1"]),
    ("pylock", ["alpha 2.0"]),
    ("requirements", ["alpha 1.0"]),
    ("script", ["beta 1.1"]),
]


@pytest.fixture
def dock(project: Project) -> Iterator[Dock]:
    yield from docked(project)


def tool(project: Project, *words: str, folder: str = ".") -> None:
    """Runs uv itself, as the people do who keep such files."""
    environ = {**project.variables(), "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        [uv.find(environ), *words], cwd=project.folder / folder, env=environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def files(project: Project, channel: Channel) -> None:
    project.write("flow.py", FLOW)
    project.write("requirements.in", "alpha<1.1\n")
    compiled = ("pip", "compile", "--python-version", "3.11")
    tool(project, *compiled, "--generate-hashes", "requirements.in", "-o", "requirements.txt")
    project.write("team/pyproject.toml", TEAM)
    tool(project, "lock", folder="team")
    project.write("any.in", "alpha\n")
    tool(project, *compiled, "--format", "pylock.toml", "any.in", "-o", "pylock.toml")
    project.write("job.py", '# /// script\n# dependencies = ["beta<2"]\n# ///\n')
    channels = f"channels: [{channel.url}]\n"
    wanted = "dependencies:\n  - python=3.11\n  - markupsafe\n  - pip:\n      - beta==2.0\n"
    project.write("environment.yml", channels + wanted)
    both = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    project.flowkiln("env", "lock", "environment.yml", *both).ok()
    project.flowkiln("env", "export", "environment.yml", "--format", "conda-lock", "-o", "conda-lock.yml").ok()
    four = of_four_platforms(yamltext.load((project.folder / "conda-lock.yml").read_text()))
    project.write("conda-lock.yml", json.dumps(four))


def of_four_platforms(document: dict[str, Any]) -> dict[str, Any]:
    """A conda-lock.yml of Linux's two platforms with macOS's two beside them, as teams have them."""
    assert sorted(document["metadata"]["platforms"]) == ["linux-64", "linux-aarch64"]
    for subdir in ("osx-64", "osx-arm64"):
        document["metadata"]["platforms"].append(subdir)
        document["metadata"]["content_hash"][subdir] = "0" * 64
        for row in [one for one in document["package"] if one["platform"] == "linux-64"]:
            url = row["url"].replace("/linux-64/", f"/{subdir}/")
            document["package"].append({**row, "platform": subdir, "url": url})
    return document


def outcomes(project: Project) -> dict[str, Any]:
    run = (project.folder / "id").read_text().strip()
    shown = project.flowkiln("run", "show", f"Files/{run}", "--json").ok().json
    return {task["step"]: task["environment"] for task in shown["tasks"] if task["step"] != "_parameters"}


def test_six_kinds_of_files_are_environments_of_steps(
    dock: Dock, package_index: PackageIndex, conda_channel: Channel
) -> None:
    project = dock.project
    for name, version in [*itertools.product(("alpha", "beta"), ("1.0", "1.1", "2.0")), ("markupsafe", "0.1")]:
        package_index.add(wheel(name, version, files={f"{name}/__init__.py": ""}))
    project.environ["UV_DEFAULT_INDEX"] = package_index.url
    files(project, conda_channel)
    done = project.run("--run-id-file", "id").ok()
    as_processes = outcomes(project)
    again = project.run("--with", "docker", "--verify-env", "full", "--run-id-file", "id").ok()
    in_containers = outcomes(project)
    for step, proof in in_containers.items():
        assert {proof[key] == as_processes[step][key] for key in ("env_id", "tree_digest", "lock_id")} == {True}
    rows = conda_channel.records("linux-64").values()
    theirs = next(str(row["version"]) for row in rows if row["name"] == "markupsafe")
    expected = [(name, [one if " " in one else f"{one} {theirs}" for one in found]) for name, found in FOUND]
    assert f"found {expected}" in done.out
    assert f"found {expected}" in again.out
    assert as_processes["environment"]["env_id"] == as_processes["end"]["env_id"]
    package_index.forget_requests()
    before = (project.folder / "flow.locks" / "flowkiln.lock").read_bytes()
    listed = json.loads(project.flowkiln("env", "lock", "flow.py", "--json").ok().out)["environments"]
    assert {one["changed"] for one in listed} == {False}
    assert (project.folder / "flow.locks" / "flowkiln.lock").read_bytes() == before
    assert package_index.total == 0


GIVEN = ("project", "pylock", "end")
"""The steps of :data:`FLOW` whose files are locks already."""


def test_a_given_lock_is_taken_without_a_solver_an_index_or_a_channel(
    project: Project, package_index: PackageIndex, conda_channel: Channel
) -> None:
    """A13: what is installed is what the file names, though newer versions have come since."""
    for name, version in [*itertools.product(("alpha", "beta"), ("1.0", "1.1", "2.0")), ("markupsafe", "0.1")]:
        package_index.add(wheel(name, version, files={f"{name}/__init__.py": ""}))
    project.environ["UV_DEFAULT_INDEX"] = package_index.url
    files(project, conda_channel)
    kept = re.sub(r"@(pypi|conda)\(source=\"(requirements.txt|job.py|environment.yml)\".*\n    ", "", FLOW)
    project.write("flow.py", kept)
    package_index.add(wheel("alpha", "9.0"), wheel("beta", "2.0.post1"))
    package_index.forget_requests()
    solver = project.write("no-uv", "#!/bin/sh\ncase $1 in --version) echo uv 0.9.0 ;; *) exit 9 ;; esac\n")
    solver.chmod(0o755)
    offline = {"FLOWKILN_CHANNELS": "http://127.0.0.1:9/none", "FLOWKILN_UV": str(solver)}
    given = [word for step in GIVEN for word in (f"flow.py:{step}",)]
    project.flowkiln("env", "lock", *given, **offline).ok()
    assert package_index.total == 0
    expected = {"project": FOUND[2][1], "pylock": FOUND[3][1]}
    for step, versions in expected.items():
        shown = project.flowkiln("env", "show", f"flow.py:{step}", "--json").ok().json["shown"]
        assert sorted(f"{one['name']} {one['version']}" for one in shown["packages"]) == versions
