"""Verbs about images through the command line: bases pinned, images verified, past tasks opened, runs compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import stack
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.e2e.project import Project
    from tests.services.index import PackageIndex
    from tests.stack import Engine, Registry

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, Parameter, environment, pypi, step


class Item:
    def __init__(self, number):
        self.number = number


class Opened(FlowSpec):
    fail = Parameter("fail", default=False)

    @pypi(python="3.11", packages={"alpha": "1.0"})
    @step
    def start(self):
        self.items = [Item(1), Item(2)]
        self.next(self.each, foreach="items")

    @environment(vars={"COLOUR": "blue\\nred"})
    @pypi(python="3.11", packages={"beta": "1.0"})
    @step
    def each(self):
        self.twice = 2 * self.input.number
        if self.fail and self.twice == 4:
            raise ValueError("no luck")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(one.twice for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Opened()
"""
LOOK = (
    "import os, sys, beta; from flowkiln_task import self, inputs; "
    "print(self.input.number, self.index, inputs, os.environ['COLOUR'].split(), sys.prefix, os.listdir())"
)


@pytest.fixture
def opened(project: Project, package_index: PackageIndex, plain_registry: Registry, slim_base: str) -> Project:
    package_index.add(wheel("alpha", "1.0"), wheel("beta", "1.0", requires=["alpha"]))
    name = hashlib.sha256(os.urandom(8)).hexdigest()[:12]
    project.environ |= {
        "UV_DEFAULT_INDEX": package_index.url,
        "FLOWKILN_IMAGES_BASE": slim_base,
        "FLOWKILN_IMAGES_REPOSITORY": f"{plain_registry.address}/test/{name}",
    }
    project.write("flow.py", FLOW)
    return project


def test_bases_are_pinned_checked_and_moved_on_request_only(opened: Project, slim_base: str) -> None:
    opened.flowkiln("env", "lock", "flow.py").ok()
    opened.flowkiln("env", "lock", "--check", "flow.py").ok()
    opened.flowkiln("env", "lock", "--check", "--base", "flow.py").failed(3, "error[ENV022]", "env lock --base")
    found = opened.flowkiln("env", "lock", "--base", "flow.py", "--json").ok().json
    assert [(one["platform"], one["changed"], one["before"]) for one in found["bases"]] == [
        ("linux/amd64", True, None),
        ("linux/arm64", True, None),
    ]
    assert found["bases"][0]["reference"] == slim_base
    assert found["bases"][0]["environments"] == ["start", "each", "join"]
    index = opened.folder / "flow.locks" / "flowkiln.lock"
    assert found["files"] == [str(index)]
    opened.flowkiln("env", "lock", "--check", "--base", "flow.py", "--offline").ok()
    before = index.read_text()
    index.write_text(before.replace(found["bases"][0]["manifest"], "sha256:" + 64 * "0"))
    kept = opened.flowkiln("env", "lock", "--base", "flow.py").ok()
    assert "sha256:000000000000" in kept.out
    moved = opened.flowkiln("env", "lock", "--upgrade-base", "flow.py").ok()
    assert ": moved, for start, each, join" in moved.out
    assert index.read_text() == before
    opened.flowkiln("env", "lock", "--check", "--upgrade-base", "flow.py").failed(2, "exclude each other")


def test_a_base_that_nothing_is_baked_on_any_more_loses_its_pin(opened: Project, slim_base: str) -> None:
    opened.flowkiln("env", "lock", "--base", "flow.py").ok()
    other = slim_base.replace("127.0.0.1", "localhost")
    changed = opened.flowkiln("env", "lock", "--base", "flow.py", FLOWKILN_IMAGES_BASE=other).ok()
    assert f"removed base {slim_base} (linux/amd64): nothing is baked on it" in changed.out
    text = (opened.folder / "flow.locks" / "flowkiln.lock").read_text()
    assert slim_base not in text
    assert other in text


def test_a_base_that_is_refused_gets_no_pin(opened: Project) -> None:
    opened.flowkiln("env", "lock", "flow.py").ok()
    index = opened.folder / "flow.locks" / "flowkiln.lock"
    before = index.read_text()
    base = stack.base("no-python:bookworm")
    words = ["env", "bake", "flow.py", "--to", "oci:images", "--platform", "linux/amd64"]
    opened.flowkiln(*words, FLOWKILN_IMAGES_BASE=base).failed(2, "error[IMG004]", "has no Python")
    assert index.read_text() == before


def test_images_are_verified_where_they_are(opened: Project, docker_engine: Engine) -> None:
    opened.environ["DOCKER_HOST"] = docker_engine.host
    opened.flowkiln("env", "lock", "flow.py").ok()
    rows = opened.flowkiln("env", "bake", "flow.py:each", "--push", "--platform", "linux/amd64", "--json").ok().json
    (pushed,) = rows["images"]
    found = opened.flowkiln("env", "verify", pushed["image"], "--lock", "flow.py", "--json").ok().json
    (image,) = found["images"]
    assert (image["state"], image["env_id"], image["lock"]["name"]) == ("ok", pushed["env_id"], "each")
    assert image["tree_digest"] == image["lock"]["tree_digest"] == image["says"]["tree_digest"]
    other = opened.flowkiln("env", "verify", pushed["image"], "--lock", "flow.py:start")
    other.failed(17, "error[ENV050]", "environment 'start' of the lock is")
    (baked,) = opened.flowkiln("env", "bake", "flow.py:each", "--to", "docker", "--json").ok().json["images"]
    listed = opened.flowkiln("env", "list", "flow.py:each", "--json").ok().json["images"]
    here = next(one for one in listed if one["base"]["platform"] == "linux/amd64")
    assert (here["engine"], here["pushed"]) == (True, pushed["digest"])
    assert "in the engine, pushed" in opened.flowkiln("env", "show", "flow.py:each").ok().out
    opened.flowkiln("env", "verify", baked["image"], "--lock", "flow.locks").ok()
    opened.flowkiln("env", "verify", "flowkiln:fk-" + 64 * "0").failed(2, "error[IMG028]")
    opened.flowkiln("env", "verify", "--repair", baked["image"]).failed(2, "no images")


def test_a_layout_whose_blob_was_changed_fails(opened: Project) -> None:
    opened.flowkiln("env", "lock", "flow.py").ok()
    opened.flowkiln("env", "bake", "flow.py:each", "--to", "oci:images", "--platform", "linux/amd64").ok()
    opened.flowkiln("env", "verify", "oci:images", "--lock", "flow.locks").ok()
    opened.flowkiln("env", "verify", "oci:images:absent").failed(2, "has no image 'absent'", "oci:", "each")
    folder = opened.folder / "images"
    row = json.loads((folder / "index.json").read_bytes())["manifests"][0]
    blobs = folder / "blobs" / "sha256"
    layer = json.loads((blobs / row["digest"][7:]).read_bytes())["layers"][-1]["digest"]
    victim = blobs / layer[7:]
    victim.write_bytes(victim.read_bytes() + b"\0" * 512)
    opened.flowkiln("env", "verify", "oci:images").failed(5, "has other bytes")


def test_past_tasks_are_opened_and_runs_compared_across_backends(opened: Project, docker_engine: Engine) -> None:
    opened.environ["DOCKER_HOST"] = docker_engine.host
    runs = []
    for backend, more in (("--with=docker", " --with docker`"), ("--quiet", "`")):
        failed = opened.run("--fail", "True", "--run-id-file", "id", backend).failed(1)
        runs.append(f"Opened/{(opened.folder / 'id').read_text().strip()}")
        assert f"`flowkiln env shell {runs[-1]}/each/5{more} opens its code, inputs" in failed.err
    contained, process = runs
    expected = "2 1 None ['blue', 'red']"
    for task in (f"{contained}/each/5", f"{process}/each/5"):
        chosen = (task, "--with", "docker")
        done = opened.flowkiln("env", "exec", *chosen, "--", "python", "-c", LOOK).ok()
        assert done.out == f"{expected} /opt/env ['flow.py']\n"
    done = opened.flowkiln("env", "exec", f"{process}/each/5", "--", "python", "-c", LOOK).ok()
    assert done.out.startswith(f"{expected} {opened.home}/cache/trees/")
    assert not (opened.home / "cache" / "shell").exists()
    same = opened.flowkiln("env", "diff", contained, process, "--json").ok().json
    told = {one["step"]: one["same"] for one in same["steps"]}
    assert told == {"start": True, "each": True, "join": None, "end": None}  # the last two never ran
    assert same["same"] is None
    table = opened.flowkiln("env", "diff", contained, process, "--format", "markdown").ok().out
    assert "| `each` | " in table
    assert "linux/amd64 docker digest | " in table
    other = opened.flowkiln("env", "diff", f"{contained}/each", f"{process}/start").ok().out
    assert "each -> start: another environment" in other
    assert "- beta 1.0" in other


def test_an_environment_is_used_in_a_container_with_the_current_folder(
    opened: Project, docker_engine: Engine
) -> None:
    opened.environ["DOCKER_HOST"] = docker_engine.host
    opened.flowkiln("env", "lock", "flow.py").ok()
    opened.write("look.py", "import alpha, os, sys\nopen('made', 'w').close()\nsys.exit(os.getuid() == 0 or 7)\n")
    words = ("env", "exec", "flow.py:start", "--with", "docker", "--", "python", "look.py")
    assert opened.flowkiln(*words).code == (7 if os.getuid() else 1)
    assert (opened.folder / "made").stat().st_uid == os.getuid()
    without = Path(opened.home, "bin")
    without.mkdir()
    (without / "uv").symlink_to(shutil.which("uv", path=opened.variables()["PATH"]) or "uv")
    opened.flowkiln(*words, PATH=str(without)).failed(2, "error[CLI013]", "no `docker` command")
    assert docker_engine.tcp is not None
    opened.flowkiln(*words, DOCKER_HOST=docker_engine.tcp).failed(2, "error[CLI014]")


def test_a_push_that_is_not_permitted_fails_before_anything_is_baked(
    opened: Project, tls_registry: Registry
) -> None:
    opened.flowkiln("env", "lock", "--base", "flow.py").ok()
    where = {
        "FLOWKILN_IMAGES_REPOSITORY": f"{tls_registry.address}/test/forbidden",
        "SSL_CERT_FILE": str(tls_registry.ca_file),
    }
    refused = opened.flowkiln("env", "bake", "flow.py:start", "--push", **where)
    refused.failed(5, "error[IMG043]")
    assert not (opened.home / "cache" / "images" / "layers").exists()


def test_doctor_tries_engine_base_and_repository(
    opened: Project, docker_engine: Engine, tls_registry: Registry
) -> None:
    opened.environ["DOCKER_HOST"] = docker_engine.host

    def found(**more: str) -> dict[str, tuple[str, str]]:
        done = opened.flowkiln("doctor", "--with", "docker", "--json", **more)
        return {one["name"]: (one["state"], one["text"]) for one in done.json["findings"]}

    sound = found()
    assert sound["engine"][0] == sound["base"][0] == sound["repository"][0] == "ok"
    assert docker_engine.version in sound["engine"][1]
    assert "takes pushes, no login" in sound["repository"][1]
    bad = found(
        DOCKER_HOST="unix:///absent.sock",
        FLOWKILN_IMAGES_BASE=f"{opened.environ['FLOWKILN_IMAGES_REPOSITORY']}:absent",
        FLOWKILN_IMAGES_REPOSITORY=f"{tls_registry.address}/test/forbidden",
        SSL_CERT_FILE=str(tls_registry.ca_file),
    )
    assert {name: bad[name][0] for name in ("engine", "base", "repository")} == dict.fromkeys(
        ("engine", "base", "repository"), "problem"
    )
    assert "[ENG001]" in bad["engine"][1]
    assert "[IMG043]" in bad["repository"][1]


def test_a_shell_keeps_code_that_was_changed(opened: Project) -> None:
    opened.run("--run-id-file", "id").ok()
    run = f"Opened/{(opened.folder / 'id').read_text().strip()}"
    several = opened.flowkiln("env", "shell", f"{run}/each")
    several.failed(2, "error[CLI012]", "has 2 tasks", f"{run}/each/4")
    shell = opened.write("shell", "#!/bin/sh\npwd\necho '# more' >> flow.py\nexit 6\n")
    shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
    left = opened.flowkiln("env", "shell", f"{run}/join", SHELL=str(shell))
    assert left.code == 6
    kept = Path(left.out.strip())
    assert f"the code that you changed stays in {kept}" in left.err
    assert kept.joinpath("flow.py").read_text().endswith("# more\n")
    words = ("env", "exec", f"{run}/join/2", "--", "python", "-c")
    code = "from flowkiln_task import inputs; print([one.twice for one in inputs])"
    assert opened.flowkiln(*words, code).ok().out == "[2, 4]\n"
