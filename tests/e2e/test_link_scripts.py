"""Link scripts of conda packages: refused, or run once in a container, locked, and the same everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import stack
from tests.e2e.containers import Dock, docked, wait_for
from tests.e2e.project import Project
from tests.services.condapackages import PLACEHOLDER, package

if TYPE_CHECKING:
    from tests.services.channel import Channel, ChannelServer

pytestmark = pytest.mark.e2e

FLOW = """
from flowkiln import FlowSpec, conda, step


class Linking(FlowSpec):
    @conda(packages={PACKAGES}, python="3.11", platforms=["linux/amd64"], link_scripts={ALLOWED})
    @step
    def start(self):
        import os, subprocess, sys
        from pathlib import Path
        base = Path(os.environ["CONDA_PREFIX"])
        def text(path):
            return (base / path).read_text() if (base / path).exists() else None
        print("ran", text("post-link-ran.txt") or text("share/wrote.txt"))
        print("self", (text("share/where.txt") or "").strip() == str(base))
        if (base / "bin/made").exists():
            print("made", subprocess.run([base / "bin/made"], capture_output=True, text=True, check=True).stdout)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Linking()
"""
SCRIPT = """
echo wrote > "$PREFIX/share/wrote.txt"
echo "$PREFIX" > "$PREFIX/share/where.txt"
printf 'head\\0%s/lib\\0tail\\0' "$PREFIX" > "$PREFIX/lib/made.bin"
printf '#!%s/bin/python\\nimport sys; print(sys.prefix)\\n' "$PREFIX" > "$PREFIX/bin/made"
chmod +x "$PREFIX/bin/made"
ln -s "$PREFIX/share/wrote.txt" "$PREFIX/share/link.txt"
ln "$PREFIX/share/first.txt" "$PREFIX/share/hard.txt"
echo "$PKG_NAME $PKG_VERSION $PKG_BUILDNUM" >> "$PREFIX/share/order.txt"
echo more >> "$PREFIX/share/second.txt"
echo "please read this" >> "$PREFIX/.messages.txt"
echo away > /root/outside.txt
"""


@pytest.fixture
def channel(conda_channel: Channel, tmp_path: Path) -> Channel:
    """The shared channel, to which packages can be added."""
    return conda_channel.mirror(tmp_path / "channel")


@pytest.fixture
def dock(
    project: Project, channel: Channel, channel_server: ChannelServer, request: pytest.FixtureRequest
) -> Iterator[Dock]:
    """A project with the channel and an engine."""
    for one in docked(project, getattr(request, "param", "overlay2")):
        url = channel_server.mount(f"link-{os.getpid()}-{channel.folder.parent.name}", channel)
        project.environ |= {"FLOWKILN_CHANNELS": url, "FLOWKILN_BUILD_IMAGE": one.base}
        declare(project)
        yield one


def declare(project: Project, allowed: str = '["post-link"]', packages: str = '{"post-link": "*"}') -> None:
    project.write("flow.py", FLOW.replace("{PACKAGES}", packages).replace("{ALLOWED}", allowed))


def add(channel: Channel, script: str, *, kind: str = "post-link", name: str = "scripted", **more: Any) -> None:
    """A package with a script."""
    files = {
        f"bin/.{name}-{kind}.sh": f"set -e\n{script}\n".encode(),
        "share/first.txt": b"first\n",
        "share/second.txt": b"second of " + PLACEHOLDER.encode() + b"\n",
    }
    if name != "scripted":
        files = {path: data for path, data in files.items() if path.startswith("bin/")}
    package(
        channel.folder,
        name,
        files=files,
        executable={f"bin/.{name}-{kind}.sh"},
        prefix_files={"share/second.txt": ("text", PLACEHOLDER)} if name == "scripted" else None,
        **more,
    )
    channel.index()


def linked(project: Project) -> dict[str, Any]:
    """What the lock has of linked files."""
    document = tomllib.loads((project.folder / "flow.locks" / "flowkiln.lock").read_text())
    start = next(one for one in document["environments"] if one["name"] == "start")
    found: dict[str, Any] = start["platforms"][0]["linked"]
    return found


def proof(project: Project) -> dict[str, Any]:
    run = (project.folder / "id").read_text().strip()
    tasks = project.flowkiln("run", "show", f"Linking/{run}", "--json").ok().json["tasks"]
    found: dict[str, Any] = next(one["environment"] for one in tasks if one["step"] == "start")
    return {key: found[key] for key in ("env_id", "tree_digest", "lock_id")}


@pytest.mark.parametrize("dock", ["overlay2", "containerd"], indirect=True)
def test_allowed_scripts_run_once_and_are_the_same_in_processes_and_containers(
    dock: Dock, channel: Channel
) -> None:
    add(channel, SCRIPT)
    declare(dock.project, '["scripted"]', '{"scripted": "*"}')
    done = dock.project.run("--run-id-file", "id", "--verify-env", "full").ok()
    assert "running link scripts of scripted" in done.err
    assert "please read this" in done.err
    assert "/root/outside.txt, outside of the environment" in done.err
    assert "ran wrote" in done.out
    assert "self True" in done.out
    first = proof(dock.project)
    entry = linked(dock.project)
    assert entry["scripts"] == ["scripted"]
    assert entry["replaces"] == ["share/second.txt"]
    root = Path(dock.project.flowkiln("env", "path", "flow.py:start").ok().out.strip())
    assert f"made {root}" in done.out
    assert (root / "share/second.txt").read_text() == f"second of {root}\nmore\n"
    assert (root / "share/hard.txt").read_text() == "first\n"
    assert (root / "share/link.txt").readlink() == Path("wrote.txt")
    assert (root / "lib/made.bin").read_bytes().startswith(b"head\0" + str(root).encode() + b"/lib\0")
    assert not (root / ".messages.txt").exists()
    again = dock.project.run("--with", "docker", "--run-id-file", "id", "--verify-env", "full").ok()
    assert "running link scripts" not in again.err
    assert "made /opt/env" in again.out
    assert proof(dock.project) == first
    assert not Path("/root/outside.txt").exists()
    wait_for(lambda: not dock.engine.containers(labels={"io.flowkiln.kind": "link"}))


def test_a_machine_without_the_files_runs_the_scripts_again_to_the_same_hash(dock: Dock) -> None:
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    before = linked(dock.project)
    shutil.rmtree(dock.project.home / "cache")
    done = dock.project.run("--locked").ok()
    assert "ran ran" in done.out
    assert "run again" in done.err
    assert linked(dock.project) == before
    shown = dock.project.flowkiln("env", "show", "flow.py:start", "--json").ok().json["shown"]["packages"]
    assert next(one for one in shown if one["name"] == "flowkiln-linked-files")["sha256"] == before["sha256"]


def test_a_second_machine_with_the_teams_repository_runs_nothing(dock: Dock, tmp_path: Path) -> None:
    repository = f"{stack.registry('plain').address}/team/linked-{tmp_path.name.lower()[-20:]}-{os.getpid()}"
    dock.project.flowkiln("env", "lock", "flow.py", FLOWKILN_IMAGES_REPOSITORY=repository).ok()
    shutil.rmtree(dock.project.home / "cache")
    done = dock.project.run(FLOWKILN_IMAGES_REPOSITORY=repository, DOCKER_HOST="unix:///nowhere.sock").ok()
    assert "ran ran" in done.out
    assert "running link scripts" not in done.err


def test_a_new_lock_keeps_what_was_linked_and_conda_lock_files_hold_conda_packages_alone(dock: Dock) -> None:
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    folder = dock.project.folder / "flow.locks"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    kept = linked(dock.project)
    assert b"flowkiln-linked-files" not in before["start.conda-lock.yml"]
    again = dock.project.flowkiln("env", "lock", "flow.py").ok()
    assert "running link scripts" not in again.err
    declare(dock.project, '["post-link", "generic"]', '{"post-link": "*"}')
    changed = dock.project.flowkiln("env", "lock", "flow.py", DOCKER_HOST="unix:///nowhere.sock").ok()
    assert "link_scripts names generic, and no package of that name is locked" in changed.err
    assert linked(dock.project) == kept


def test_a_lock_of_another_tool_is_taken_with_what_its_scripts_leave(dock: Dock) -> None:
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    before = linked(dock.project)
    text = (dock.project.folder / "flow.locks" / "start.conda-lock.yml").read_text()
    dock.project.write("conda-lock.yml", text)
    flow = (dock.project.folder / "flow.py").read_text()
    dock.project.write("flow.py", flow.replace('packages={"post-link": "*"}', 'source="conda-lock.yml"'))
    assert "ran ran" in dock.project.run().ok().out
    assert linked(dock.project) == before


def test_an_interrupt_ends_the_scripts(dock: Dock, channel: Channel) -> None:
    add(channel, "sleep 86397")
    declare(dock.project, '["scripted"]', '{"scripted": "*"}')
    process = dock.project.start("-m", "flowkiln", "env", "lock", "flow.py")
    wait_for(_sleepers, process)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    wait_for(lambda: not _sleepers())
    assert not (dock.project.folder / "flow.locks").exists()


def _sleepers() -> list[str]:
    found = subprocess.run(["pgrep", "-f", "^sleep 86397$"], capture_output=True, text=True, check=False)
    return found.stdout.split()


def test_scripts_run_in_the_order_of_dependencies(dock: Dock, channel: Channel) -> None:
    add(channel, 'echo "$PKG_NAME $PKG_BUILDNUM" >> "$PREFIX/share/order.txt"', name="a-last", depends=["scripted"])
    add(channel, 'echo "$PKG_NAME $PKG_BUILDNUM" >> "$PREFIX/share/order.txt"', build="3", build_number=3)
    declare(dock.project, '["a-last", "scripted"]', '{"a-last": "*"}')
    dock.project.run().ok()
    root = Path(dock.project.flowkiln("env", "path", "flow.py:start").ok().out.strip())
    assert (root / "share/order.txt").read_text() == "scripted 3\na-last 0\n"
    assert linked(dock.project)["scripts"] == ["scripted", "a-last"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo compiling; echo it broke >&2; exit 7",
            ("BLD012", "post-link of scripted 1.0", "7", "it broke", "log"),
        ),
        ("echo sleeping; sleep 86398", ("BLD013", "post-link of scripted 1.0", "sleeping", "build.timeout")),
        ('rm "$PREFIX/share/first.txt"', ("BLD014", "deleted", "share/first.txt")),
        ('ln -s /etc/passwd "$PREFIX/share/out"', ("BLD014", "leave", "share/out -> /etc/passwd")),
        ('mkfifo "$PREFIX/share/pipe"', ("BLD014", "neither a file nor a link", "share/pipe")),
        ('echo x > "$PREFIX/bin/python9"', ("BLD014", "bin/python9", "belongs to the environment")),
        ('echo x >> "$PREFIX/conda-meta/history"', ("BLD014", "conda-meta/history", "belongs to the environment")),
    ],
    ids=["fails", "hangs", "deletes", "link-out", "pipe", "interpreter", "history"],
)
def test_what_scripts_do_wrong_is_told(dock: Dock, channel: Channel, script: str, told: tuple[str, ...]) -> None:
    add(channel, script)
    declare(dock.project, '["scripted"]', '{"scripted": "*"}')
    done = dock.project.run(FLOWKILN_BUILD_TIMEOUT="4")
    done.failed(4, "step 'start'", *told)
    assert not (dock.project.folder / "flow.locks").exists()
    wait_for(lambda: not dock.engine.containers(labels={"io.flowkiln.kind": "link"}))


def test_scripts_that_leave_something_else_each_time_are_told(dock: Dock, channel: Channel) -> None:
    add(channel, 'head -c 8 /dev/urandom > "$PREFIX/share/random.bin"')
    declare(dock.project, '["scripted"]', '{"scripted": "*"}')
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    shutil.rmtree(dock.project.home / "cache")
    dock.project.run("--locked").failed(3, "error[BLD015]", "scripted", "--upgrade scripted")
    dock.project.flowkiln("env", "lock", "--upgrade", "scripted", "flow.py").ok()
    dock.project.run("--locked").ok()


def test_a_package_that_is_not_allowed_is_refused_while_locking_with_the_line_to_write(
    dock: Dock, channel: Channel
) -> None:
    add(channel, "true")
    declare(dock.project, '["scripted"]', '{"scripted": "*", "post-link": "*"}')
    done = dock.project.flowkiln("env", "lock", "flow.py")
    done.failed(2, "error[ENV084]", "post-link 1.0 (post-link)", 'link_scripts=["post-link", "scripted"]')


def test_no_engine_is_told_with_what_to_do(dock: Dock) -> None:
    done = dock.project.run(DOCKER_HOST="unix:///nowhere.sock")
    done.failed(4, "error[BLD011]", "step 'start'", "images.repository")
    dock.project.run(FLOWKILN_BUILD_WHERE="never").failed(4, "error[BLD011]", "forbids")
    assert not (dock.project.folder / "flow.locks").exists()


def test_a_platform_whose_scripts_cannot_run_here_has_no_solution(dock: Dock) -> None:
    text = (dock.project.folder / "flow.py").read_text()
    dock.project.write("flow.py", text.replace(', platforms=["linux/amd64"]', ""))
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    document = tomllib.loads((dock.project.folder / "flow.locks" / "flowkiln.lock").read_text())
    (absent,) = next(one for one in document["environments"] if one["name"] == "start")["absent"]
    assert absent["platform"] == "linux/arm64"
    assert "container engine here is of linux/amd64" in json.dumps(absent["reason"])
