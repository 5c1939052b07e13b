"""Faults of engines and images, and what a container keeps a step from, through the command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkiln.store import artifacts
from flowkiln.store.artifacts import Artifact
from flowkiln.store.folder import FolderStore
from flowkiln.wiring import history
from tests.e2e.containers import Dock, docked, wait_for
from tests.e2e.project import Done, Project
from tests.services import canary, unavailable
from tests.services.engine import VERSION, FakeEngine, document, message, stream
from tests.services.engineproxy import EngineProxy
from tests.services.index import PackageIndex
from tests.services.wheels import wheel

pytestmark = pytest.mark.e2e

SECRETS = ("c4n4ry-0f-the-fl0w", "5ecret-that-1s-passed")
ONE = """
from flowkiln import FlowSpec, step


class One(FlowSpec):
    @step
    def start(self):
        print("one step")


if __name__ == "__main__":
    One()
"""
FULL = "write /var/lib/docker/tmp/x: no space left on device"


@pytest.fixture
def dock(project: Project) -> Iterator[Dock]:
    yield from docked(project)


# -- engines ---------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_there_is_named(project: Project, tmp_path: Path) -> None:
    project.flow("linear")
    gone = tmp_path / "gone.sock"
    done = project.run("--with", "docker", DOCKER_HOST=f"unix://{gone}")
    done.failed(5, "ENG001", str(gone), "hint:")
    refuses = tmp_path / "refuses.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(refuses))
    project.run("--with", "docker", DOCKER_HOST=f"unix://{refuses}").failed(5, "ENG", str(refuses), "hint:")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    project.run("--with", "docker", DOCKER_HOST=address).failed(5, "ENG002", address, "hint:")
    project.run("--with", "docker", DOCKER_HOST="ftp://x").failed(2, "ENG011", "ftp://x", "hint:")
    assert not list(project.folder.glob(".flowkiln/r/*"))


def test_an_engine_that_refuses_or_is_too_old_is_named(project: Project, tmp_path: Path) -> None:
    project.flow("linear")
    with FakeEngine(tmp_path / "e.sock") as denies:
        for method in ("GET", "POST"):
            denies.on(method, ".*", message(403, "authorization denied by plugin site-policy"))
        done = project.run("--with", "docker", DOCKER_HOST=denies.url)
        done.failed(5, "ENG003", "site-policy", "hint:")
    with FakeEngine(tmp_path / "o.sock", version={**VERSION, "ApiVersion": "1.24", "Version": "1.12"}) as old:
        project.run("--with", "docker", DOCKER_HOST=old.url).failed(5, "ENG008", "1.24", "hint:")


def test_a_socket_of_others_is_told_with_the_group_to_join(dock: Dock) -> None:
    dock.project.flow("linear")
    done = as_user(dock.project, 54321, "flow.py", "run", "--with", "docker")
    done.failed(5, "ENG003", dock.host.removeprefix("unix://"), "usermod")


@pytest.mark.parametrize("stage", ["pull", "create"])
def test_an_engine_without_space_says_so(project: Project, tmp_path: Path, stage: str) -> None:
    project.flow("linear")
    image = {"Id": "sha256:" + "1" * 64, "Config": {"Env": []}, "RepoDigests": []}
    with FakeEngine(tmp_path / "e.sock") as engine:
        engine.on("GET", "/images/.*/json", message(404, "no such image") if stage == "pull" else document(image))
        engine.on("POST", "/images/create", stream({"errorDetail": {"message": FULL}, "error": FULL}))
        engine.on("POST", "/containers/create", message(500, FULL))
        engine.on("GET", "/containers/json", document([]))
        engine.on("GET", "/events", stream())
        done = project.run("--with", "docker", "--with", "retry:times=0", DOCKER_HOST=engine.url)
    if stage == "pull":
        done.failed(5, "ENG005", "no space left on device", "docker system df")
    else:
        done.failed(5, "step 'start'", "no space left on device", "docker system df")


def test_the_engine_is_found_as_the_docker_command_finds_it(dock: Dock) -> None:
    project = dock.project
    project.write("flow.py", ONE)
    del project.environ["DOCKER_HOST"]
    folder = project.home / ".docker" / "contexts" / "meta" / hashlib.sha256(b"kiln").hexdigest()
    folder.mkdir(parents=True)
    meta = {"Name": "kiln", "Metadata": {}, "Endpoints": {"docker": {"Host": dock.host}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    assert "one step" in project.run("--with", "docker", DOCKER_CONTEXT="kiln").ok().out
    (project.home / ".docker" / "config.json").write_text('{"currentContext": "kiln"}')
    assert "one step" in project.run("--with", "docker").ok().out
    project.run("--with", "docker", DOCKER_CONTEXT="other").failed(5, "ENG001", "other", "hint:")


def test_f03_doctor_tells_of_the_engine(dock: Dock, tmp_path: Path) -> None:
    found = dock.project.flowkiln("doctor", "--offline", "--with", "docker").out
    told = found[found.index("ok       engine") :].partition("  base ")[0]
    for fact in ("Docker ", "linux/", " cores", " of memory", "overlay2", "GPU", dock.host, "DOCKER_HOST"):
        assert fact in told
    gone = f"unix://{tmp_path}/gone.sock"
    missing = dock.project.flowkiln("doctor", "--offline", "--with", "docker", DOCKER_HOST=gone)
    assert missing.code == 5
    assert "PROBLEM  engine" in missing.out
    assert "gone.sock" in missing.out
    assert dock.project.flowkiln("doctor", "--offline", DOCKER_HOST=gone).code == 0


def test_i03_trouble_with_logs_and_events_fails_no_step(dock: Dock) -> None:
    dock.project.write("flow.py", ONE)
    failing = {"GET /containers/[^/]+/logs": 1000, "GET /events": 1000}
    with EngineProxy(dock.host.removeprefix("unix://"), failing) as proxy:
        done = dock.project.run(
            "--with", "docker", "--run-id-file", "id", DOCKER_HOST=proxy.url, FLOWKILN_DOCKER_FILES="mount"
        )
    assert {call.rpartition("/")[2] for call in proxy.failed} == {"logs", "events"}
    assert "one step" in done.ok().out
    run = (dock.project.folder / "id").read_text().strip()
    assert dock.project.python("flow.py", "logs", f"{run}/start").ok().out == "one step\n"


def test_a_call_that_the_engine_fails_at_is_told_with_its_step(dock: Dock) -> None:
    dock.project.write("flow.py", ONE)
    path = dock.host.removeprefix("unix://")
    with EngineProxy(path, {"POST /containers/[^/]+/start": 1}) as proxy:
        done = dock.project.run("--with", "docker", DOCKER_HOST=proxy.url)
    done.failed(5, "step 'start'", "could not be started", "as it was told", "hint:")
    assert dock.containers() == []


# -- images ----------------------------------------------------------------------------------------------------


class Baked:
    """A project whose environment is baked, with a package that no other project has."""

    def __init__(self, dock: Dock, index: PackageIndex) -> None:
        self.dock = dock
        self.project = dock.project
        self.nonce = time.time_ns()
        index.add(wheel("alpha", files={"alpha.py": f"__version__ = '1.0'\nNONCE = {self.nonce}\n"}))
        self.project.environ["UV_DEFAULT_INDEX"] = index.url
        self.project.write(
            "settings.py",
            "from flowkiln import pypi_base\n\n"
            "locked = pypi_base(python='3.11', packages={'alpha': '1.0'}, platforms=['linux/amd64'])\n",
        )
        self.project.flow("contained")
        self.run().ok()
        tasks = self.shown()
        self.reference: str = tasks[0]["environment"]["image"]["reference"]
        self.id: str = tasks[0]["environment"]["image"]["id"]

    def run(self, *words: str, **environ: str) -> Done:
        return self.project.run("--with", "docker", "--run-id-file", "id", *words, **environ)

    def shown(self) -> list[dict[str, Any]]:
        """The tasks of the last run."""
        run = (self.project.folder / "id").read_text().strip()
        tasks: list[dict[str, Any]]
        tasks = self.project.flowkiln("run", "show", f"Contained/{run}", "--json").ok().json["tasks"]
        return tasks

    def values(self, step: str) -> dict[str, Any]:
        """The artifacts of a step of the last run."""
        store = FolderStore(str(self.dock.store))
        place = history.find(store, f"Contained/{(self.project.folder / 'id').read_text().strip()}/{step}")
        (task,) = history.chosen(store, place)
        outcome = history.outcome(store, place.run.run, task.task, task.attempt)
        assert outcome is not None
        return {
            name: artifacts.load(Artifact.from_json(told), store.blobs) for name, told in outcome.artifacts.items()
        }

    def docker(self, *words: str) -> str:
        """Output of the docker command."""
        environ = {"DOCKER_HOST": self.dock.host, "PATH": os.environ["PATH"], "HOME": str(self.project.home)}
        return subprocess.run(["docker", *words], env=environ, check=True, capture_output=True, text=True).stdout

    def files(self, name: str) -> list[Path]:
        """Where a file of the environment lies on the engine's disk."""
        layers = json.loads(self.docker("inspect", "--format", "{{json .GraphDriver.Data}}", self.id))
        folders = f"{layers.get('LowerDir', '')}:{layers['UpperDir']}".split(":")
        return [path for folder in folders if folder for path in Path(folder).glob(f"opt/env/{name}")]


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baked]:
    folder = tmp_path_factory.mktemp("baked")
    project = Project(folder / "project", folder / "home")
    project.folder.mkdir()
    project.home.mkdir()
    with PackageIndex() as index:
        dock = Dock(project)
        made = Baked(dock, index)
    yield made
    dock.engine.remove_image(made.reference, force=True)
    dock.end()


@contextlib.contextmanager
def changed(path: Path, data: bytes, mode: int | None = None) -> Iterator[None]:
    before, bits = path.read_bytes(), path.stat().st_mode
    path.write_bytes(data)
    path.chmod(bits if mode is None else mode)
    try:
        yield
    finally:
        path.write_bytes(before)
        path.chmod(bits)


def test_another_image_under_our_name_is_never_run(baked: Baked) -> None:
    made = baked.docker("create", "--entrypoint", "/bin/sh", baked.reference, "-c", "true").strip()
    spoiled = baked.project.write("alpha.py", "raise SystemExit('spoiled')\n")
    target = "/opt/env/lib/python3.11/site-packages/alpha.py"
    baked.docker("cp", str(spoiled), f"{made}:{target}")
    spoiled.unlink()
    other = baked.docker("commit", made, baked.reference).strip()
    try:
        done = baked.run().ok()
        assert "got 1.0" in done.out
        assert {one["environment"]["image"]["id"] for one in baked.shown()} == {baked.id}
        assert baked.docker("inspect", "--format", "{{.Id}}", baked.reference).strip() == baked.id
    finally:
        baked.docker("rm", made)
        baked.docker("rmi", other)


def test_the_marker_of_another_environment_stops_the_step(baked: Baked) -> None:
    (path,) = baked.files(".flowkiln/tree.json")
    body = path.read_bytes().partition(b"\n")[2]
    marker = json.loads(body) | {"env_id": "sha256:" + "0" * 64}
    body = json.dumps(marker).encode()
    with changed(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body):
        done = baked.run()
    done.failed(17, "step 'start'", "another environment", "hint:", "flowkiln env")
    assert "got" not in done.out
    (task,) = [one for one in baked.shown() if one.get("failure")]
    assert (task["failure"]["class"], task["failure"]["cause"]) == ("environment", "mismatch")


def test_a_change_of_equal_size_is_found_by_full_alone(baked: Baked) -> None:
    (path,) = baked.files("lib/python3.11/site-packages/alpha.py")
    data = path.read_bytes().replace(b"NONCE", b"OTHER")
    with changed(path, data):
        assert "got 1.0" in baked.run("--verify-env", "stat").ok().out
        done = baked.run("--verify-env", "full")
    done.failed(17, "step 'start'", "site-packages/alpha.py", "hint:")
    assert "got" not in done.out
    assert "got 1.0" in baked.run("--verify-env", "full").ok().out


@pytest.mark.parametrize("what", ["size", "mode", "extra"])
def test_a_change_of_size_mode_or_files_is_found_by_stat(baked: Baked, what: str) -> None:
    (path,) = baked.files("lib/python3.11/site-packages/alpha.py")
    before = path.read_bytes()
    extra = path.with_name("sitecustomize.py")
    with changed(path, before + b"#" * (what == "size"), 0o755 if what == "mode" else None):
        if what == "extra":
            extra.write_text("raise SystemExit('ran')\n")
        try:
            done = baked.run("--verify-env", "stat")
        finally:
            extra.unlink(missing_ok=True)
    done.failed(17, "step 'start'", extra.name if what == "extra" else path.name, "hint:")
    assert "got" not in done.out


# -- what a container keeps a step from ------------------------------------------------------------------------


def test_b04_f02_a_step_needs_no_network_no_root_and_sees_nothing_of_the_host(baked: Baked) -> None:
    poison = {
        "PYTHONPATH": f"{baked.project.variables()['PYTHONPATH']}:{baked.project.folder}/poison",
        "PYTHONSTARTUP": "/poison.py",
        "LD_LIBRARY_PATH": "/poison",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "VIRTUAL_ENV": "/poison",
    }
    words = ("--with", "docker:user=12345,read_only=True,network=none")
    done = baked.project.run(*words, "--run-id-file", "id", **poison).ok()
    assert "got 1.0" in done.out
    seen = baked.values("look")
    assert seen["ids"][0] == 12345
    assert seen["interfaces"] == ["lo"]
    assert seen["network"] == "OSError"
    assert set(seen["programs"]) <= {"python", "python3", "python3.11"}
    assert not {"/", "/usr", "/opt/env"} & set(seen["writable"])
    assert "/tmp" in seen["writable"]
    assert seen["outside"] == []
    assert not set(poison) - {"PYTHONPATH"} & set(seen["variables"])


@pytest.mark.parametrize("uid", [1000, 54321])
def test_f05_files_belong_to_the_caller(baked: Baked, tmp_path: Path, uid: int) -> None:
    project = baked.project
    environ = {
        "DOCKER_HOST": baked.dock.tcp,
        "FLOWKILN_DOCKER_FILES": "mount",
        "FLOWKILN_STORE": str(tmp_path / "store"),
        "FLOWKILN_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "FLOWKILN_IMAGES_POLICY": "never",
    }
    shutil.copytree(project.home / "cache", tmp_path / "cache", symlinks=True)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, uid, uid, follow_symlinks=False)
    done = as_user(project, uid, "flow.py", "run", "--locked", "--with", "docker", **environ)
    assert "got 1.0" in done.ok().out
    owners = {path.lstat().st_uid for path in (tmp_path / "store").rglob("*")}
    assert owners == {uid}


def test_an_engine_elsewhere_gets_copies(baked: Baked) -> None:
    done = baked.run(DOCKER_HOST=baked.dock.tcp, FLOWKILN_DOCKER_FILES="copy").ok()
    assert "got 1.0" in done.out
    assert baked.values("end")["version"] == "1.0"
    assert {one["environment"]["image"]["id"] for one in baked.shown()} == {baked.id}
    assert baked.dock.containers() == []


def test_m01_secrets_are_told_to_the_step_alone(dock: Dock) -> None:
    project = dock.project
    project.write(
        "flow.py",
        "from flowkiln import FlowSpec, docker, step\n\n\n"
        "class Secret(FlowSpec):\n"
        "    @docker(mounts=['./out:/out'])\n"
        "    @step\n"
        "    def start(self):\n"
        "        import hashlib, os, time\n\n"
        "        told = [os.environ[one] for one in ('OWN', 'PASSED')]\n"
        "        self.digests = [hashlib.sha256(one.encode()).hexdigest() for one in told]\n"
        "        while not os.path.exists('/out/go'):\n"
        "            time.sleep(0.05)\n\n\n"
        "if __name__ == '__main__':\n    Secret()\n",
    )
    out = project.folder / "out"
    out.mkdir()
    own, passed = SECRETS
    words = ("run", "--with", f"environment:vars={json.dumps({'OWN': own})}", "--events", "events")
    environ = {"PASSED": passed, "FLOWKILN_PASS_ENVIRONMENT": "PASSED"}
    launcher = project.start("flow.py", *words, "--with", "docker", **environ)
    wait_for(lambda: [one for one in dock.containers() if one["State"] == "running"], launcher)
    told = json.dumps([dock.inspected(), dock.containers(), dock.engine.info()])
    (out / "go").touch()
    shown = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, shown
    for secret in (own, passed):
        assert secret not in told
        assert secret not in "".join(shown)
        assert secret not in (project.folder / "events").read_text()
    assert canary.find(passed, dock.store, project.home / "cache") == []


def as_user(project: Project, uid: int, *words: str, **environ: str) -> Done:
    """``python WORDS`` as another user, who may read what root has: the interpreter may be root's own."""
    setpriv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    if subprocess.run([*setpriv, *reads, "true"], check=False, capture_output=True).returncode:
        unavailable("setpriv cannot give capabilities here")
    command = [*setpriv, *reads, sys.executable, *words]
    done = subprocess.run(
        command,
        cwd=project.folder,
        env=project.variables(**environ),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)
