"""Locks are those of the platforms asked for, whatever machine makes them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from flowkiln.envs import uv
from tests.e2e.project import Project
from tests.services.hosts import Host, asked_in, joined
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.channel import Channel, ChannelServer
    from tests.services.index import PackageIndex

pytestmark = pytest.mark.e2e

MACHINES = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64")]
HOSTS = [Host(*machine, gpu=gpu) for machine, gpu in itertools.product(MACHINES, (False, True))]
FLOW = """
from flowkiln import FlowSpec, conda, pypi, step

AT = {{"python": "3.11"{platforms}}}


class Hosts(FlowSpec):
    @conda(packages={{"numpy": "2.*", "pytorch": "*", "prefix-binary": "*"}}, **AT)
    @step
    def start(self):
        self.next(self.mixed)

    @conda(packages={{"numpy": "2.*"}}, **AT)
    @pypi(packages={{"guarded": "*", "plain": "*"}})
    @step
    def mixed(self):
        self.next(self.end)

    @pypi(packages={{"guarded": "*", "plain": "*", "torch": "*"}}, **AT)
    @step
    def end(self):
        pass


if __name__ == "__main__":
    Hosts()
"""
LINUX = ', "platforms": ["linux/amd64", "linux/arm64"]'


@pytest.fixture
def index(package_index: PackageIndex) -> PackageIndex:
    guards = {
        "nv": "sys_platform == 'linux' and platform_machine == 'x86_64'",
        "arm": "platform_machine == 'aarch64'",
        "mac": "sys_platform == 'darwin'",
        "kernel": "platform_release == '23.4.0'",
    }
    package_index.add(wheel("guarded", requires=[f"{name}; {marker}" for name, marker in guards.items()]))
    package_index.add(*map(wheel, guards))
    for arch in ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "macosx_11_0_arm64", "macosx_10_12_x86_64"):
        package_index.add(wheel("plain", "1.0", tag=f"cp311-cp311-{arch}"))
    for arch in ("manylinux_2_39_x86_64", "macosx_11_0_arm64"):  # too new for the floor, or for another system
        package_index.add(wheel("plain", "2.0", tag=f"cp311-cp311-{arch}"))
    return package_index.add(wheel("torch", "2.5.0"))


@pytest.fixture
def places(index: PackageIndex, channel_server: ChannelServer, conda_channel: Channel) -> dict[str, str]:
    return {"FLOWKILN_CHANNELS": channel_server.mount("main", conda_channel), "UV_DEFAULT_INDEX": index.url}


def locked_on(host: Host, folder: Path, text: str, places: dict[str, str]) -> dict[str, bytes]:
    """The lock files of a flow that a machine of its own has locked."""
    own = Project(folder / "project", folder / "home", {})
    own.folder.mkdir(parents=True)
    own.home.mkdir()
    own.write("flow.py", text)
    there = host.make(folder / "machine", uv.find({}))
    given = joined(there, own.variables(**places))
    done = own.flowkiln("env", "lock", "flow.py", **given).ok()
    asked = asked_in(folder / "machine").read_text().split("\n")
    assert f"locking on {host.platform}" in done.err
    assert "uv " + host.machine.replace("arm64", "aarch64") in asked, "uv has seen that machine"
    assert "nvidia-smi" not in asked
    return {path.name: path.read_bytes() for path in (own.folder / "flow.locks").iterdir()}


def test_shown_3_locks_of_both_linux_platforms_are_the_same_bytes_from_every_host(
    places: dict[str, str], tmp_path: Path
) -> None:
    found = {
        str(host): locked_on(host, tmp_path / str(host), FLOW.format(platforms=LINUX), places) for host in HOSTS
    }
    names = {"flowkiln.lock", "start.conda-lock.yml", "mixed.conda-lock.yml"}
    names |= {f"pylock.{env}-linux-{arch}.toml" for env in ("mixed", "end") for arch in ("amd64", "arm64")}
    reference = found["linux-x86_64"]
    assert set(reference) == names
    others = {(host, name) for host, written in found.items() for name in names if written[name] != reference[name]}
    assert others == set()
    assert b"pytorch-2.5.1-cpu_py311" in reference["start.conda-lock.yml"]
    assert b'"nv"' in reference["pylock.mixed-linux-amd64.toml"]


@pytest.mark.parametrize("machine", MACHINES[2:], ids=" ".join)
def test_shown_3_a_mac_that_locks_for_itself_too_leaves_the_linux_parts_as_they_are(
    places: dict[str, str], tmp_path: Path, machine: tuple[str, str]
) -> None:
    """Without ``platforms``: that of the machine is locked as well, in files and entries of its own."""
    text = FLOW.format(platforms="")
    here = locked_on(Host("linux", "x86_64"), tmp_path / "here", text, places)
    there = locked_on(Host(*machine, gpu=True), tmp_path / "there", text, places)
    linux = {name for name in here if "-linux-" in name}
    assert linux == {name for name in there if "-linux-" in name}
    assert {name: there[name] for name in linux} == {name: here[name] for name in linux}
    (own,) = {name for name in there if "-darwin-" in name}
    assert b'"mac"' in there[own]
    for env in ("start", "mixed"):  # no channel has packages for macOS, which is said and changes nothing
        assert conda_parts(there[f"{env}.conda-lock.yml"]) == conda_parts(here[f"{env}.conda-lock.yml"])


def conda_parts(data: bytes) -> list[str]:
    """The blocks of packages of a conda-lock.yml."""
    blocks = data.decode().partition("\npackage:\n")[2].split("\n  - name: ")
    assert len(blocks) > 5
    return blocks
