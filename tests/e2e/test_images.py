"""Images through the command line: baked without an engine, run in one, the same as processes, and proved."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.images.http import Http
from flowkiln.images.login import Logins
from flowkiln.images.reference import parse
from flowkiln.images.registry import Registry
from flowkiln.wiring.registries import context
from tests import stack
from tests.services import canary
from tests.services.relay import Relay
from tests.services.wheels import wheel
from tests.shapes import problems
from tests.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.project import Done, Project
    from tests.services.index import PackageIndex
    from tests.stack import Engine
    from tests.stack import Registry as RealRegistry

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, pypi, step


class Pair(FlowSpec):
    @pypi(python="3.11", packages={"alpha": "1.*", "small": "*"})
    @step
    def start(self):
        import alpha, os

        self.value = [alpha.__version__, sorted(os.listdir(os.path.dirname(alpha.__file__)))[:1]]
        self.next(self.end)

    @pypi(python="3.11", packages={"beta": "*"})
    @step
    def end(self):
        import beta

        print("result", self.value, beta.__version__)


if __name__ == "__main__":
    Pair()
"""


def elf(machine: int) -> bytes:
    head = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    return head + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, 0, 0, 64, 56, 0, 0, 0, 0) + bytes(64)


def module(name: str, version: str, **files: bytes) -> dict[str, bytes | str]:
    """A package of more than 1 MiB."""
    data = random.Random(f"{name} {version}").randbytes(1_200_000)
    found: dict[str, bytes | str] = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{name}/data.bin": data,
    }
    return found | {f"{name}/{path}": content for path, content in files.items()}


@pytest.fixture
def index(package_index: PackageIndex, project: Project) -> PackageIndex:
    for version in ("1.0", "1.1"):
        package_index.add(wheel("alpha", version, files=module("alpha", version)))
    for arch, machine in (("x86_64", 62), ("aarch64", 183)):
        files = module("beta", "3.0", **{"_fast.so": elf(machine)})
        package_index.add(wheel("beta", "3.0", tag=f"cp311-cp311-manylinux_2_17_{arch}", files=files))
    package_index.add(
        wheel("small", "0.1", console={"small": "small:main"}, files={"small.py": "def main(): ...\n"})
    )
    project.environ["UV_DEFAULT_INDEX"] = package_index.url
    return package_index


@pytest.fixture
def images(
    project: Project, index: PackageIndex, docker_engine: Engine, plain_registry: RealRegistry, slim_base: str
) -> Project:
    """A project whose images have a repository of their own and whose containers run in a real engine."""
    assert index.url
    name = hashlib.sha256(os.urandom(8)).hexdigest()[:12]
    project.environ |= {
        "DOCKER_HOST": docker_engine.host,
        "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}"),
        "FLOWKILN_IMAGES_REPOSITORY": f"{plain_registry.address}/test/{name}",
    }
    project.write("flow.py", FLOW)
    return project


def rows(done: Done) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["env"], row["platform"]): row for row in done.ok().json["images"]}


def outcomes(project: Project, run: str) -> dict[str, dict[str, Any]]:
    shown = project.flowkiln("run", "show", f"Pair/{run}", "--json").ok().json
    return {task["step"]: task for task in shown["tasks"] if task["step"] != "_parameters"}


def run_id(project: Project) -> str:
    return (project.folder / "id").read_text().strip()


def registry_of(row: dict[str, Any]) -> tuple[Registry, str]:
    place = parse(row["image"])
    return Registry(place.host, Http(context), Logins({})), place.repository


def layers(row: dict[str, Any]) -> Iterator[tuple[str, tarfile.TarInfo, bytes]]:
    """The files of all layers of a pushed image, as (digest of the layer, entry, content)."""
    registry, repository = registry_of(row)
    fetched = registry.manifest(repository, row["digest"])
    assert fetched is not None
    for layer in json.loads(fetched.data)["layers"]:
        data = b"".join(registry.blob(repository, layer["digest"]))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                yield layer["digest"], entry, file.read() if file else b""


def test_processes_and_containers_run_the_same_environments(images: Project, index: PackageIndex) -> None:
    first = images.run("--run-id-file", "id").ok()
    as_processes = outcomes(images, run_id(images))
    second = images.run("--with", "docker", "--run-id-file", "id").ok()
    in_containers = outcomes(images, run_id(images))
    line = "result ['1.1', ['__init__.py']] 3.0"
    assert line in first.out
    assert line in second.out
    for step, task in in_containers.items():
        proof = task["environment"]
        before = as_processes[step]["environment"]
        assert {proof[key] == before[key] for key in ("env_id", "tree_digest", "lock_id")} == {True}
        assert proof["level"] == "digest"
        assert proof["vouched"] == "engine"
        assert proof["image"]["config"].startswith("sha256:")
        text = images.flowkiln("run", "show", f"Pair/{run_id(images)}/{step}").ok().out
        assert f"tree         {proof['tree_digest']}\n" in text
        assert f"config       {proof['image']['config']}\n" in text
    index.forget_requests()
    cut = images.run("--with", "docker", "--offline", UV_DEFAULT_INDEX="http://127.0.0.1:9/simple/").ok()
    assert line in cut.out
    assert index.total == 0
    assert line in images.run("--with", "docker", "--verify-env", "full").ok().out


def test_a_second_run_asks_no_registry(images: Project, plain_registry: RealRegistry, slim_base: str) -> None:
    port = int(plain_registry.address.rpartition(":")[2])
    with Relay(port, cuts=[]) as relay:
        base = slim_base.replace(plain_registry.address, relay.host).replace("3.11", "{python}")
        images.environ["FLOWKILN_IMAGES_BASE"] = base
        del images.environ["FLOWKILN_IMAGES_REPOSITORY"]
        images.run("--with", "docker").ok()
    again = images.run("--with", "docker").ok()  # nobody listens there now
    assert "result" in again.out


def test_ci_prebuilds_from_lock_files_alone(images: Project) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    images.flowkiln("env", "bake", "flow.py", "--push", CI="true").failed(3, "flowkiln env lock --base")
    images.flowkiln("env", "lock", "--base", "flow.py").ok()
    before = {path.name: path.read_bytes() for path in (images.folder / "flow.locks").iterdir()}
    (images.folder / "flow.py").unlink()
    done = images.flowkiln("env", "bake", "flow.locks", "--push", "--json", CI="true").ok()
    schema = json.loads((ROOT / "docs" / "reference" / "bake-schema.json").read_text())
    assert problems(done.json, schema) == []
    found = rows(done)
    assert set(found) == {
        (env, platform) for env in ("start", "end") for platform in ("linux/amd64", "linux/arm64")
    }
    assert {row["status"] for row in found.values()} == {"built"}
    assert {path.name: path.read_bytes() for path in (images.folder / "flow.locks").iterdir()} == before
    again = rows(images.flowkiln("env", "bake", "flow.locks", "--push", "--json", CI="true"))
    assert {row["status"] for row in again.values()} == {"present"}
    assert {key: row["digest"] for key, row in again.items()} == {key: row["digest"] for key, row in found.items()}


def test_an_image_of_another_architecture_holds_its_programs_only(images: Project) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    done = images.flowkiln("env", "bake", "flow.py:end", "--push", "--platform", "linux/arm64", "--json", "--quiet")
    row = rows(done)["end", "linux/arm64"]
    machines = {
        struct.unpack_from("<H", data, 18)[0]
        for _, entry, data in layers(row)
        if entry.name.startswith("opt/") and data[:4] == b"\x7fELF"
    }
    assert machines == {183}
    registry, repository = registry_of(row)
    fetched = registry.manifest(repository, row["digest"])
    assert fetched is not None
    config = json.loads(registry.read_blob(repository, json.loads(fetched.data)["config"]["digest"]))
    assert (config["os"], config["architecture"]) == ("linux", "arm64")


def test_the_image_holds_what_the_lock_names(images: Project) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    row = rows(images.flowkiln("env", "bake", "flow.py:start", "--push", "--json"))["start", "linux/amd64"]
    installed = {
        entry.name.rpartition("/site-packages/")[2].partition(".dist-info")[0]
        for _, entry, _ in layers(row)
        if entry.name.startswith("opt/env/") and entry.name.endswith(".dist-info/METADATA")
    }
    assert installed == {"alpha-1.1", "small-0.1"}
    assert row["missing_libraries"] == [] if "missing_libraries" in row else True


def test_a_container_of_any_user_without_network_or_a_writable_root(images: Project, any_engine: Engine) -> None:
    images.environ["DOCKER_HOST"] = any_engine.host
    images.flowkiln("env", "lock", "flow.py").ok()
    row = rows(images.flowkiln("env", "bake", "flow.py:start", "--to", "docker", "--json"))["start", "linux/amd64"]
    docker = str(stack.tool("docker"))
    code = "import alpha, sys; print(alpha.__version__, sys.prefix, alpha.__spec__.cached)"
    command = [docker, "run", "--rm", "--user", "12345", "--read-only", "--network", "none", row["image"]]
    done = subprocess.run(
        [*command, "python", "-c", code],
        env={**os.environ, "DOCKER_HOST": any_engine.host},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, prefix, cached = done.stdout.split()
    assert (version, prefix) == ("1.1", "/opt/env")
    assert cached.startswith("/opt/flowkiln/pyc/opt/env/")


def test_bakes_to_a_folder_and_an_archive(images: Project, tmp_path: Path) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    for target in (f"oci:{tmp_path}/layout", f"oci:{tmp_path}/one.tar"):
        images.flowkiln("env", "bake", "flow.py:start", "--to", target, "--platform", "linux/amd64").ok()
    skopeo = str(stack.tool("skopeo"))
    for source in (f"oci:{tmp_path}/layout:start", f"oci-archive:{tmp_path}/one.tar:start"):
        told = subprocess.run([skopeo, "inspect", source], capture_output=True, text=True, check=True)
        assert json.loads(told.stdout)["Labels"]["io.flowkiln.python"].startswith("3.11.")


def test_one_package_changed_moves_its_bytes(images: Project, index: PackageIndex) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    one = ("env", "bake", "flow.py", "--push", "--json", "--platform", "linux/amd64")
    before = rows(images.flowkiln(*one))
    index.add(wheel("alpha", "1.2", files=module("alpha", "1.2")))
    images.flowkiln("env", "lock", "--upgrade", "alpha", "flow.py").ok()
    after = rows(images.flowkiln(*one))
    moved = after["start", "linux/amd64"]["bytes_pushed"]
    assert 1_200_000 < moved < 1_260_000
    assert after["end", "linux/amd64"] == {**before["end", "linux/amd64"], "status": "present", "bytes_pushed": 0}


def test_a_change_of_code_does_no_image_work(images: Project) -> None:
    images.run("--with", "docker").ok()
    images.write("flow.py", FLOW.replace('print("result"', 'print("changed"'))
    done = images.run("--with", "docker", "--offline").ok()
    assert "changed [" in done.out
    assert "bake" not in done.err


def test_secrets_are_in_no_layer_label_history_log_or_record(
    images: Project, index: PackageIndex, tmp_path: Path
) -> None:
    secret = "kiln-canary-5f2d8c1b"
    index.require("someone", secret)
    images.environ["UV_DEFAULT_INDEX"] = index.url_with("someone", secret)
    images.environ["OTHER_TOKEN"] = secret
    images.flowkiln("env", "lock", "flow.py").ok()
    done = images.flowkiln("env", "bake", "flow.py", "--push", "--json", "--verbose", "--platform", "linux/amd64")
    found = rows(done)
    images.run("--with", "docker").ok()
    assert secret not in done.out + done.err
    for row in found.values():
        registry, repository = registry_of(row)
        fetched = registry.manifest(repository, row["digest"])
        assert fetched is not None
        config = registry.read_blob(repository, json.loads(fetched.data)["config"]["digest"])
        assert secret.encode() not in fetched.data + config
        assert not [entry.name for _, entry, data in layers(row) if secret.encode() in data]
    assert canary.find(secret, images.folder, images.home, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("where", ["push", "docker", "layout"])
def test_a_bake_that_was_killed_is_done_by_the_same_command(images: Project, tmp_path: Path, where: str) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    to = {"push": ("--push",), "docker": ("--to", "docker"), "layout": ("--to", f"oci:{tmp_path}/images")}[where]
    command = ("env", "bake", "flow.py", *to, "--json", "--platform", "linux/amd64")
    for number in range(5):
        process = images.start("-m", "flowkiln", *command)
        try:
            process.wait(0.5 + 0.4 * number)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = rows(images.flowkiln(*command))
    images.environ["FLOWKILN_CACHE"] = str(tmp_path / "another")
    images.environ["FLOWKILN_IMAGES_REPOSITORY"] += "/again"
    again = rows(images.flowkiln(*command))
    assert {key: row["config"] for key, row in done.items()} == {key: row["config"] for key, row in again.items()}
    if where == "push":
        crane = str(stack.tool("crane"))
        for row in done.values():
            subprocess.run([crane, "validate", "--remote", row["image"]], check=True, capture_output=True)


def test_no_repository_says_the_lines_to_paste(images: Project) -> None:
    del images.environ["FLOWKILN_IMAGES_REPOSITORY"]
    images.flowkiln("env", "lock", "flow.py").ok()
    images.flowkiln("env", "bake", "flow.py", "--push").failed(2, "images.repository", "[tool.flowkiln.images]")


def test_nothing_is_baked_where_that_is_forbidden(images: Project) -> None:
    never = {"FLOWKILN_IMAGES_POLICY": "never"}
    images.flowkiln("env", "lock", "flow.py").ok()
    lock = images.folder / "flow.locks" / "flowkiln.lock"
    before = lock.read_bytes()
    images.run("--with", "docker", **never).failed(3, "has no pin", "env lock --base flow.py")
    assert lock.read_bytes() == before
    images.flowkiln("env", "lock", "--base", "flow.py").ok()
    images.run("--with", "docker", **never).failed(2, "images.policy is never", "env bake flow.locks --push")


@pytest.mark.parametrize(
    ("images_base", "code", "text"),
    [
        ("127.0.0.1:1/library/python:3.11", 5, "[IMG040] step 'start': base 127.0.0.1:1/library/python:3.11: "),
        ("Not/An:image", 2, "[IMG001] step 'start': 'Not/An:image' is no image reference"),
    ],
)
def test_a_base_that_cannot_be_asked_for_is_told_with_its_step(
    images: Project, images_base: str, code: int, text: str
) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    words = ("env", "bake", "flow.py:start", "--push")
    images.flowkiln(*words, FLOWKILN_IMAGES_BASE=images_base).failed(code, text)


def test_destinations_that_cannot_be_are_told(images: Project, tmp_path: Path) -> None:
    images.flowkiln("env", "lock", "flow.py").ok()
    (tmp_path / "file").write_text("mine")
    for to, text in [
        ("oci:", "names no folder"),
        (f"oci:{tmp_path}/file", "is a file"),
        ("127.0.0.1:1/a/b:v1", "--to '127.0.0.1:1/a/b:v1' is one image"),
    ]:
        images.flowkiln("env", "bake", "flow.py", "--to", to).failed(2, text, "hint:")
    tagged = {"FLOWKILN_IMAGES_REPOSITORY": "127.0.0.1:1/a/b:v1"}
    images.flowkiln("env", "bake", "flow.py", "--push", **tagged).failed(2, "images.repository", "is one image")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("base", "texts"),
    [
        ("no-python:bookworm", ("no Python", "3.11")),
        ("debian-python:3.13", ("3.13", "3.11")),
        ("nowhere/absent:1", ("absent",)),
    ],
)
def test_a_base_that_does_not_fit_is_refused(images: Project, base: str, texts: tuple[str, ...]) -> None:
    known = base if base.startswith("nowhere") else stack.base(base)  # type: ignore[arg-type]
    if base.startswith("nowhere"):
        known = f"{images.environ['FLOWKILN_IMAGES_BASE'].partition('/')[0]}/{base}"
    images.flowkiln("env", "lock", "flow.py").ok()
    done = images.run("--with", f"docker:image={known}")
    assert done.code in (2, 3, 5), done.err
    for text in texts:
        assert text in done.err
    assert "Traceback" not in done.err
