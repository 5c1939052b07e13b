"""Conda and mixed environments through the command line: locked, run as processes and in containers, baked."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.condapackages import PLACEHOLDER
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.project import Project
    from tests.services.channel import Channel, ChannelServer
    from tests.services.index import PackageIndex
    from tests.stack import Engine

pytestmark = pytest.mark.e2e

NOWHERE = {"FLOWKILN_CHANNELS": "http://127.0.0.1:9/main", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/"}


@pytest.fixture
def mixed(
    project: Project,
    package_index: PackageIndex,
    channel_server: ChannelServer,
    conda_channel: Channel,
    docker_engine: Engine,
    slim_base: str,
) -> Project:
    """A project with a channel, an index and an engine."""
    package_index.add(wheel("alpha", "1.0"))
    project.environ |= {
        "FLOWKILN_CHANNELS": channel_server.mount("main", conda_channel),
        "UV_DEFAULT_INDEX": package_index.url,
        "DOCKER_HOST": docker_engine.host,
        "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}"),
    }
    project.flow("activating")
    return project


def environments(project: Project, flow: str = "Activating") -> dict[str, dict[str, Any]]:
    """What the last run recorded of the environment of each step."""
    run = (project.folder / "id").read_text().strip()
    shown = project.flowkiln("run", "show", f"{flow}/{run}", "--json").ok().json
    return {task["step"]: task["environment"] for task in shown["tasks"] if task["step"] != "_parameters"}


def locks(project: Project, folder: str = "flow.locks") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project.folder / folder).iterdir()}


def versions(project: Project, env: str) -> dict[str, str]:
    shown = project.flowkiln("env", "show", f"flow.py:{env}", "--json").ok().json
    return {one["name"]: one["version"] for one in shown["shown"]["packages"]}


def layout_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of all layers of the one image in an OCI layout."""

    def blob(digest: str) -> Path:
        return folder / "blobs" / digest.replace(":", "/")

    (named,) = json.loads((folder / "index.json").read_text())["manifests"]
    for layer in json.loads(blob(named["digest"]).read_bytes())["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    yield entry.name, file.read()


def after(word: str, out: str) -> list[str]:
    """What follows ``word`` in the lines of tasks that begin with it."""
    return re.findall(rf"\] {word} (.*)", out)


def test_activation_is_the_same_in_processes_and_containers(mixed: Project) -> None:
    told, proofs = [], []
    for words in (("--with", "docker"), ()):
        done = mixed.run("--run-id-file", "id", *words).ok()
        assert after("result", done.out) == ["2.2.6 1.0 found by its variable"]
        told.append(json.loads(*after("seen", done.out)))
        proofs.append(environments(mixed))
    activated = {
        "ACTIVATED_HOME": "@/share/activated",
        "ACTIVATED_PATHS": "a:",
        "ENV_VARS_ONE": "1",
        "ENV_VARS_TEXT": 'two words, "quoted" = $HOME',
    }
    assert told[0] == told[1] == [activated, {**activated, "ENV_VARS_ONE": "the step's"}]
    as_processes, in_containers = ({step: one["activation"] for step, one in found.items()} for found in proofs)
    assert as_processes == in_containers
    assert set(activated) <= set(as_processes["start"]["variables"])
    assert "ENV_VARS_ONE" not in as_processes["end"]["variables"]


def test_scripts_of_packages_are_refused_with_the_step(mixed: Project) -> None:
    text = (mixed.folder / "flow.py").read_text()
    mixed.write("flow.py", text.replace('{"numpy": "*"}', '{"post-link": "*"}'))
    for words in (("--with", "docker"), ()):
        done = mixed.run(*words)
        done.failed(2, "[ENV084] step 'start': scripts of conda packages", "post-link 1.0 (post-link)", "hint:")
    assert not list(mixed.home.rglob("post-link-ran.txt"))


def test_a_lock_stays_until_an_upgrade_and_then_moves_that_package_only(
    mixed: Project, conda_channel: Channel, channel_server: ChannelServer, tmp_path: Path
) -> None:
    older = conda_channel.mirror(tmp_path / "older")
    for subdir in ("linux-64", "linux-aarch64"):
        for path in (older.folder / subdir).glob("numpy-2.*"):
            older.omit(path)
    channel_server.mount("main", older.index())
    mixed.flowkiln("env", "lock", "flow.py").ok()
    before, chosen = locks(mixed), versions(mixed, "start")
    assert chosen["numpy"] == "1.26.4"
    channel_server.mount("main", conda_channel)
    mixed.flowkiln("env", "lock", "flow.py").ok()
    assert locks(mixed) == before
    mixed.flowkiln("env", "lock", "--upgrade", "numpy", "flow.py").ok()
    assert versions(mixed, "start") == {**chosen, "numpy": "2.2.6"}
    after_it = locks(mixed)
    assert {name for name, data in after_it.items() if before.get(name) != data} == {
        "flowkiln.lock",
        "start.conda-lock.yml",
    }


def test_an_image_of_another_architecture_is_baked_without_running_it(mixed: Project, tmp_path: Path) -> None:
    mixed.flowkiln("env", "lock", "flow.py").ok()
    digests = []
    for number in ("one", "two"):
        bake = ("env", "bake", "flow.py:start", "--to", f"oci:{tmp_path / number}", "--platform", "linux/arm64")
        mixed.flowkiln(*bake, FLOWKILN_CACHE=str(tmp_path / f"cache-{number}")).ok()
        digests.append(hashlib.sha256((tmp_path / number / "index.json").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    files = {name: data for name, data in layout_files(tmp_path / "one") if name.startswith("opt/env/")}
    machines = {struct.unpack_from("<H", data, 18)[0] for data in files.values() if data[:4] == b"\x7fELF"}
    assert machines == {183}
    assert "opt/env/lib/python3.11/site-packages/numpy/__init__.py" in files
    left = [name for name, data in files.items() if PLACEHOLDER.encode() in data]
    assert [name for name in left if not name.startswith("opt/env/.flowkiln/")] == []
    named = [data for name, data in files.items() if "/_sysconfigdata_" in name and b"'/opt/env" in data]
    assert named
    assert b"\0/opt/env/lib/python3.11\0" in files["opt/env/bin/python3.11"]
