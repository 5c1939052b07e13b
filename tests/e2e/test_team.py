"""A team through the command line: what one has baked, others publish without its bytes; and what images lack."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.images.elves import shared
from tests.images.team import large
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.project import Done, Project
    from tests.services.index import PackageIndex
    from tests.stack import Engine, Registry

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, pypi, step


class {name}(FlowSpec):
    @pypi(python="3.11", packages={packages})
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    {name}()
"""


@pytest.fixture
def index(start_index: Callable[[], PackageIndex]) -> PackageIndex:
    found = start_index()
    for name in ("alpha", "beta", "gamma"):
        found.add(large(name))
    files: dict[str, bytes | str] = {"gl/__init__.py": "", "gl/_gl.so": shared("libGL.so.1", "libc.so.6")}
    found.add(wheel("gl", tag="cp311-abi3-manylinux_2_17_x86_64", files=files))
    return found


@pytest.fixture
def team(
    project: Project, index: PackageIndex, docker_engine: Engine, plain_registry: Registry, slim_base: str
) -> Project:
    name = hashlib.sha256(os.urandom(8)).hexdigest()[:12]
    project.environ |= {
        "UV_DEFAULT_INDEX": index.url,
        "DOCKER_HOST": docker_engine.host,
        "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}"),
        "FLOWKILN_IMAGES_REPOSITORY": f"{plain_registry.address}/team/{name}",
    }
    for flow, packages in {"One": ("alpha", "beta"), "Two": ("gamma",), "Three": ("alpha", "gamma")}.items():
        project.write(f"{flow.lower()}.py", FLOW.format(name=flow, packages=dict.fromkeys(packages, "*")))
    return project


def bare(project: Project) -> dict[str, str]:
    """A machine without engine and without the base's Python."""
    tools = project.folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("uv", "python"):
        (tools / name).symlink_to(Path(sys.executable).parent / name)
    return {"PATH": str(tools), "DOCKER_HOST": "unix:///nonexistent/docker.sock"}


BASE = "3.11.2"
"""The Python of the base."""
BAKE = ("--push", "--json", "--platform", "linux/amd64")


def row(done: Done) -> dict[str, Any]:
    (found,) = (one for one in done.ok().json["images"] if one["env"] == "start")
    return dict(found)


def test_a_teammate_publishes_known_packages_without_their_bytes_and_without_a_compiler(
    team: Project, index: PackageIndex
) -> None:
    for flow in ("one", "two", "three"):
        team.flowkiln("env", "lock", f"{flow}.py").ok()
    for flow in ("one", "two"):
        team.flowkiln("env", "bake", f"{flow}.py:start", *BAKE).ok()
    index.stop()
    team.environ |= {**bare(team), "FLOWKILN_CACHE": str(team.home / "second")}
    told = team.flowkiln("env", "bake", "three.py:start", *BAKE)  # pins the base as well
    done = row(told)
    if platform.python_version() != BASE:
        assert "the team's catalog has the bytecode of Python 3.11." in told.err
    assert done["status"] == "built"
    assert 0 < done["bytes_pushed"] < 20_000
    assert done["missing_libraries"] == []
    assert not (team.home / "second" / "wheels").exists()
    team.environ["FLOWKILN_CACHE"] = str(team.home / "third")
    again = row(team.flowkiln("env", "bake", "three.py:start", *BAKE, CI="true"))
    assert (again["digest"], again["status"], again["bytes_pushed"]) == (done["digest"], "present", 0)


def test_without_catalog_and_compiler_there_is_no_bytecode(team: Project) -> None:
    team.flowkiln("env", "lock", "two.py").ok()
    told = team.flowkiln("env", "bake", "two.py:start", *BAKE, **bare(team)).ok()
    assert ("get no bytecode" in told.err) == (platform.python_version() != BASE)


def test_libraries_that_an_image_lacks_are_said_and_are_no_failure(team: Project) -> None:
    team.write("flow.py", FLOW.format(name="Four", packages={"gl": "*"}))
    team.flowkiln("env", "lock", "flow.py").ok()
    missing = [{"library": "libGL.so.1", "package": "libgl1", "needed_by": ["gl"]}]
    for _ in range(2):
        done = team.flowkiln("env", "bake", "flow.py:start", *BAKE)
        assert row(done)["missing_libraries"] == missing
        warning = next(line for line in done.err.splitlines() if "libGL.so.1" in line)
        for text in ("step start", "libgl1", "needed by gl", "image=..."):
            assert text in warning


def test_the_cache_shows_and_frees_images(team: Project) -> None:
    team.flowkiln("env", "lock", "one.py").ok()
    image = json.loads(team.flowkiln("env", "bake", "one.py:start", "--to", "docker", "--json").ok().out)
    name = image["images"][0]["image"]
    shown = team.flowkiln("cache", "show", "--json").ok().json
    (item,) = (one for one in shown["items"] if one["path"] == name)
    assert item["kind"] == "image"
    # its layers may be those of an image that another test left in the engine: they count once
    assert shown["bytes"]["image"] > 1_000_000
    assert name.partition(":")[2] in team.flowkiln("cache", "show").ok().out
    plan = team.flowkiln("cache", "gc", "--dry-run", "--json").ok().json
    assert name not in [one["path"] for one in plan["items"]]
    without = team.flowkiln("cache", "gc", "--dry-run", DOCKER_HOST="tcp://127.0.0.1:9").ok()
    assert "without the container engine" in without.err
