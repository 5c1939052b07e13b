"""Packages without a wheel: built once, in a container or where it is allowed on this machine, locked, run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkiln.envs import uv
from tests import stack
from tests.e2e.containers import Dock, docked
from tests.e2e.project import Project
from tests.services import canary
from tests.services.index import PackageIndex
from tests.services.projects import project as sources
from tests.services.projects import source
from tests.services.wheels import wheel

pytestmark = pytest.mark.e2e

LONG = f"86399.{os.getpid()}"
"""Seconds that builds of this process of tests sleep, which nothing else sleeps."""
WHEEL = "demo-1.0-py3-none-any.whl"
FLOW = """
from flowkiln import FlowSpec, pypi, step


class Built(FlowSpec):
    @pypi(packages={PACKAGES}, python="3.11")
    @step
    def start(self):
        import demo
        print("demo", demo.VERSION)
        self.file = demo.__file__
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Built()
"""


def declare(project: Project, packages: str = '{"demo": "1.0"}') -> None:
    project.write("flow.py", FLOW.replace("{PACKAGES}", packages))


@pytest.fixture
def here(project: Project, package_index: PackageIndex) -> Project:
    """A project that builds on this machine itself."""
    project.environ |= {"FLOWKILN_INDEXES": package_index.url, "FLOWKILN_BUILD_WHERE": "host"}
    declare(project)
    return project


@pytest.fixture
def dock(project: Project, package_index: PackageIndex) -> Iterator[Dock]:
    """A project that builds in containers."""
    for one in docked(project):
        project.environ |= {"FLOWKILN_INDEXES": package_index.url, "FLOWKILN_BUILD_IMAGE": one.base}
        declare(project)
        yield one


def locked(project: Project, name: str = "demo", platform: str = "linux-amd64") -> dict[str, Any]:
    """What the lock of the first step has for a package."""
    path = project.folder / "flow.locks" / f"pylock.start-{platform}.toml"
    packages: list[dict[str, Any]] = tomllib.loads(path.read_text())["packages"]
    return next(one for one in packages if one["name"] == name)


def source_hash(name: str, **more: Any) -> str:
    return source(name, files=sources(name, **more)).sha256


def none_left(dock: Dock) -> None:
    """No container of a build is left; those of other tests end soon."""
    limit = time.monotonic() + 60
    while dock.engine.containers(labels={"io.flowkiln.kind": "build"}):
        assert time.monotonic() < limit, "a container was left"
        time.sleep(0.2)


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


# -- in a container --------------------------------------------------------------------------------------------


def test_a_source_distribution_is_built_in_a_container_and_runs_on_both_backends(
    dock: Dock, package_index: PackageIndex
) -> None:
    package_index.add(source("demo", files=sources("demo", requires=["helper>=1"])), wheel("helper", "1.0"))
    done = dock.project.run().ok()
    assert "demo 1.0" in done.out
    assert "building demo" in done.err
    entry = locked(dock.project)
    assert entry["sdist"]["name"] == "demo-1.0.tar.gz"
    assert entry["tool"]["flowkiln"]["build"]["where"].startswith(dock.base.rpartition(":")[0] + "@sha256:")
    assert [one["name"] for one in entry["dependencies"]] == ["helper"]
    assert locked(dock.project, platform="linux-arm64") == entry  # a wheel for all platforms serves all
    before = files(dock.project.folder / "flow.locks")
    package_index.forget_requests()
    again = dock.project.flowkiln("env", "lock", "flow.py").ok()
    assert "building" not in again.err
    assert files(dock.project.folder / "flow.locks").items() >= before.items()
    assert "demo 1.0" in dock.project.run("--with", "docker").ok().out


def test_a_build_in_a_container_reaches_nothing_of_this_machine(
    dock: Dock, package_index: PackageIndex, tmp_path: Path
) -> None:
    sentinel = tmp_path / "sentinel"
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        before = f"""
import pathlib, socket
for place in ({str(sentinel)!r}, "/tmp/kiln-sentinel", os.path.expanduser("~/kiln-sentinel")):
    try:
        pathlib.Path(place).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(place).write_text("was here")
    except OSError:
        pass
for host in ("127.0.0.1", "172.17.0.1", "host.docker.internal"):
    try:
        socket.create_connection((host, {port}), 1)
    except OSError:
        continue
    raise SystemExit("the network was there")
assert os.getuid() != 0
assert not [name for name in os.environ if name.startswith("FLOWKILN") or name == "DOCKER_HOST"]
"""
        package_index.add(source("demo", files=sources("demo", before=before)))
        dock.project.flowkiln("env", "lock", "flow.py").ok()
        with pytest.raises(TimeoutError):
            server.accept()
    assert not sentinel.exists()
    assert not Path("/tmp/kiln-sentinel").exists()
    assert not list(dock.project.home.rglob("kiln-sentinel"))
    none_left(dock)


def test_a_second_machine_with_the_teams_repository_builds_nothing(
    dock: Dock, package_index: PackageIndex, tmp_path: Path
) -> None:
    repository = f"{stack.registry('plain').address}/team/built-{tmp_path.name.lower()[-20:]}-{os.getpid()}"
    package_index.add(source("demo"))
    dock.project.flowkiln("env", "lock", "flow.py", FLOWKILN_IMAGES_REPOSITORY=repository).ok()
    shutil.rmtree(dock.project.home / "cache")
    package_index.remove("demo")
    done = dock.project.run(FLOWKILN_IMAGES_REPOSITORY=repository, DOCKER_HOST="unix:///nowhere.sock").ok()
    assert "demo 1.0" in done.out
    assert "building" not in done.err


def test_a_machine_without_it_builds_the_very_same_again(dock: Dock, package_index: PackageIndex) -> None:
    package_index.add(source("demo"))
    dock.project.flowkiln("env", "lock", "flow.py").ok()
    shutil.rmtree(dock.project.home / "cache")
    done = dock.project.run("--locked").ok()
    assert "demo 1.0" in done.out
    assert "is built again" in done.err


def test_a_build_that_is_not_reproducible_is_told(here: Project, package_index: PackageIndex) -> None:
    package_index.add(
        source("demo", files=sources("demo", before="global MODULE\nMODULE += f'T = {os.urandom(8)}'"))
    )
    here.flowkiln("env", "lock", "flow.py").ok()
    here.run("--locked").ok()
    shutil.rmtree(here.home / "cache")
    here.run("--locked").failed(3, "error[BLD006]", "--upgrade demo")
    here.flowkiln("env", "lock", "--upgrade", "demo", "flow.py").ok()
    here.run("--locked").ok()


def test_real_back_ends_build(dock: Dock) -> None:
    del dock.project.environ["FLOWKILN_INDEXES"]
    flow = FLOW.replace("{PACKAGES}", '{"docopt": "0.6.2"}').replace("demo.VERSION", "demo.__version__")
    dock.project.write("flow.py", flow.replace("import demo", "import docopt as demo"))
    assert "demo 0.6.2" in dock.project.run().ok().out
    assert locked(dock.project, "docopt")["tool"]["flowkiln"]["build"]["requires"][0].startswith("setuptools==")


EXTENSION = """
#include <Python.h>
#include <stdlib.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(CALL); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "demo", "", -1, methods};
PyMODINIT_FUNC PyInit_demo(void) { return PyModule_Create(&module); }
"""
SETUP = """
from setuptools import Extension, setup
setup(name="demo", version="1.0", ext_modules=[Extension("demo", ["demo.c"])])
"""


def extension(call: str) -> dict[str, str]:
    """The files of a project that is compiled."""
    return {"setup.py": SETUP, "demo.c": EXTENSION.replace("CALL", call)}


@pytest.fixture
def compiling(dock: Dock) -> Dock:
    """A project whose builds have a compiler, and setuptools from PyPI."""
    index = dock.project.environ["FLOWKILN_INDEXES"]
    dock.project.environ |= {
        "FLOWKILN_BUILD_IMAGE": stack.base("compiler-python:3.11"),
        "FLOWKILN_INDEXES": f"{index},pypi",
        "FLOWKILN_PLATFORMS": "linux/amd64",
    }
    flow = FLOW.replace("{PACKAGES}", '{"demo": "1.0"}').replace("demo.VERSION", "demo.answer()")
    dock.project.write("flow.py", flow)
    return dock


def test_an_extension_is_compiled_and_runs_on_both_backends(compiling: Dock, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=extension("42")))
    assert "demo 42" in compiling.project.run().ok().out
    wheel_name = locked(compiling.project)["tool"]["flowkiln"]["wheel"]["name"]
    assert wheel_name == "demo-1.0-cp311-cp311-linux_x86_64.whl"
    assert "demo 42" in compiling.project.run("--with", "docker").ok().out
    shutil.rmtree(compiling.project.home / "cache")  # what is compiled again is the same to the byte
    assert "demo 42" in compiling.project.run("--locked").ok().out


def test_what_is_compiled_for_one_platform_is_not_taken_for_another(
    compiling: Dock, package_index: PackageIndex
) -> None:
    package_index.add(source("demo", files=extension("42")))
    done = compiling.project.run(FLOWKILN_PLATFORMS="linux/amd64,linux/arm64")
    done.failed(4, "error[BLD005]", "step 'start'", "linux/arm64")


def test_a_newer_glibc_than_the_floor_is_told(compiling: Dock, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=extension("(long)(arc4random() % 1)")))
    compiling.project.run().failed(4, "error[BLD009]", "step 'start'", "glibc 2.36", 'glibc="2.36"')
    flow = (compiling.project.folder / "flow.py").read_text()
    compiling.project.write("flow.py", flow.replace('python="3.11"', 'python="3.11", glibc="2.36"'))
    assert "demo 0" in compiling.project.run().ok().out


def test_a_compiler_that_is_missing_is_told(dock: Dock, package_index: PackageIndex) -> None:
    index = dock.project.environ["FLOWKILN_INDEXES"]
    package_index.add(source("demo", files=extension("42")))
    done = dock.project.run(FLOWKILN_INDEXES=f"{index},pypi")
    assert done.code == 4
    assert "error[BLD001]" in done.err
    assert "build.image" in done.err


def test_no_engine_is_told_with_what_to_do(project: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo"))
    declare(project)
    environ = {"FLOWKILN_INDEXES": package_index.url, "DOCKER_HOST": "unix:///nowhere.sock"}
    project.run(**environ).failed(4, "error[BLD005]", "step 'start'", 'build.where = "host"')
    project.run(**environ, FLOWKILN_BUILD_WHERE="never").failed(4, "error[BLD005]", "forbids")
    assert not (project.folder / "flow.locks").exists()


# -- on this machine -------------------------------------------------------------------------------------------


def test_a_build_on_this_machine_writes_below_its_folder_alone(
    here: Project, package_index: PackageIndex, tmp_path: Path
) -> None:
    sentinel = tmp_path / "sentinel"
    before = f"""
import pathlib
try:
    pathlib.Path({str(sentinel)!r}).write_text("was here")
except OSError:
    pass
pathlib.Path(os.path.expanduser("~/kiln-sentinel")).write_text("in a home of its own")
assert not os.path.expanduser("~").startswith({str(here.home)!r} + "/.")
"""
    package_index.add(source("demo", files=sources("demo", before=before)))
    here.run().ok()
    assert not sentinel.exists()
    assert not list(here.home.rglob("kiln-sentinel"))


@pytest.mark.parametrize("where", ["host", "container"])
def test_a_build_that_fails_is_told_with_its_last_words(
    dock: Dock, package_index: PackageIndex, where: str
) -> None:
    before = "print('compiling things')\nraise RuntimeError('the header kiln.h is missing')"
    package_index.add(source("demo", files=sources("demo", before=before)))
    done = dock.project.run(FLOWKILN_BUILD_WHERE=where)
    assert done.code == 4
    for text in ("error[BLD001]", "step 'start'", "the header kiln.h is missing", "hint:", "full log:"):
        assert text in done.err
    assert done.err.count("environment 'start'") == 1
    assert done.err.count("building demo") == 1
    assert not (dock.project.folder / "flow.locks").exists()
    log = next((dock.project.home / "cache" / "logs").glob("build-demo-*.log"))
    assert "compiling things" in log.read_text()


@pytest.mark.parametrize("where", ["host", "container"])
def test_a_build_that_hangs_is_ended(dock: Dock, package_index: PackageIndex, where: str) -> None:
    before = f"import subprocess\nprint('sleeping', flush=True)\nsubprocess.run(['sleep', '{LONG}'])"
    package_index.add(source("demo", files=sources("demo", before=before)))
    done = dock.project.run(FLOWKILN_BUILD_WHERE=where, FLOWKILN_BUILD_TIMEOUT="4")
    done.failed(4, "error[BLD004]", "step 'start'", "sleeping", "build.timeout")
    none_left(dock)
    assert not _sleepers()


def _sleepers() -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"^sleep {LONG}$"], capture_output=True, text=True, check=False)
    return found.stdout.split()


@pytest.mark.parametrize("where", ["host", "container"])
def test_an_interrupt_ends_the_build(dock: Dock, package_index: PackageIndex, where: str) -> None:
    before = f"import subprocess\nsubprocess.run(['sleep', '{LONG}'])"
    package_index.add(source("demo", files=sources("demo", before=before)))
    process = dock.project.start("-m", "flowkiln", "env", "lock", "flow.py", FLOWKILN_BUILD_WHERE=where)
    limit = time.monotonic() + 60
    while not _sleepers():
        assert time.monotonic() < limit, process.communicate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not _sleepers()
    none_left(dock)
    assert not (dock.project.folder / "flow.locks").exists()


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("global NAME\nNAME = 'other'", "another distribution"),
        ("return 'demo-1.0-py3-none-any.whl'", "did not leave it"),
        ("return 'nonsense'", "not the name of a wheel"),
        ("import sys; os._exit(0)", "left no answer"),
        (
            "open(folder + '/demo-1.0-py3-none-any.whl', 'w').write('x'); return 'demo-1.0-py3-none-any.whl'",
            "damaged",
        ),
        (
            "os.symlink('/etc/passwd', folder + '/demo-1.0-py3-none-any.whl'); return 'demo-1.0-py3-none-any.whl'",
            "not",
        ),
    ],
    ids=["other-name", "no-file", "no-wheel", "no-answer", "no-zip", "link"],
)
def test_a_build_without_a_usable_wheel_is_told(
    here: Project, package_index: PackageIndex, before: str, told: str
) -> None:
    package_index.add(source("demo", files=sources("demo", before=before)))
    here.run().failed(4, "error[BLD007]", "step 'start'", told)


def test_a_back_end_may_ask_for_more(here: Project, package_index: PackageIndex) -> None:
    extra = "def get_requires_for_build_wheel(config_settings=None):\n    return ['tool>=1']\n"
    before = "import tool, basis\nassert tool.VERSION == '1.5'"
    files = sources("demo", before=before, extra=extra, build_requires=["basis"])
    package_index.add(source("demo", files=files))
    package_index.add(wheel("tool", "1.5", files={"tool.py": "VERSION = '1.5'"}), wheel("basis", "1.0"))
    here.run().ok()
    assert locked(here)["tool"]["flowkiln"]["build"]["requires"] == ["basis==1.0", "tool==1.5"]


def test_a_build_requirement_without_a_wheel_is_told(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=sources("demo", build_requires=["basis"])), source("basis"))
    here.run().failed(4, "step 'start'", "build requirements of demo", "basis")


def test_the_newest_source_that_everything_allows_is_built(here: Project, package_index: PackageIndex) -> None:
    package_index.add(*(source("demo", version, sources("demo", version)) for version in ("1.0", "1.5", "2.0")))
    package_index.add(wheel("user", "1.0", requires=["demo<2"]))
    declare(here, '{"user": "*"}')
    assert "demo 1.5" in here.run().ok().out
    package_index.add(source("demo", "1.6", sources("demo", "1.6")))
    declare(here, '{"user": "*", "helper": "*"}')
    package_index.add(wheel("helper", "1.0"))
    assert "demo 1.5" in here.run().ok().out  # nothing moves without need
    here.flowkiln("env", "lock", "--upgrade", "demo", "flow.py").ok()
    assert "demo 1.6" in here.run().ok().out


def test_the_sources_of_a_lock_of_another_tool_are_built(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=sources("demo", requires=["helper"])), wheel("helper", "1.0"))
    url, sha256 = f"{package_index.base}/files/demo/demo-1.0.tar.gz", source_hash("demo", requires=["helper"])
    here.write(
        "pylock.toml",
        f"""
lock-version = "1.0"
created-by = "somebody"

[[packages]]
name = "demo"
version = "1.0"
sdist = {{ name = "demo-1.0.tar.gz", url = "{url}", hashes = {{ sha256 = "{sha256}" }} }}
""",
    )
    flow = FLOW.replace("packages={PACKAGES}", 'source="pylock.toml"')
    here.write("flow.py", flow)
    assert "demo 1.0" in here.run().ok().out
    entry = locked(here)
    assert entry["sdist"]["hashes"]["sha256"] == sha256
    assert entry["tool"]["flowkiln"]["wheel"]["name"] == "demo-1.0-py3-none-any.whl"
    flow = flow.replace('python="3.11"', 'python="3.11", platforms=["linux/amd64", "linux/arm64"]')
    here.write("flow.py", flow)
    again = here.run().ok()
    assert "building" not in again.err
    assert locked(here, platform="linux-arm64") == entry


def test_what_is_compiled_elsewhere_is_not_compiled_for_nothing(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=sources("demo", before="raise SystemExit('built in vain')")))
    files = {"demo.py": "VERSION = 1"}
    package_index.add(wheel("demo", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64", files=files))
    done = here.run().ok()  # arm64 was not asked for by name
    assert "building" not in done.err
    done = here.run(FLOWKILN_PLATFORMS="linux/arm64,linux/amd64")
    done.failed(4, "error[ENV003]", "step 'start'", "linux/arm64", "demo")
    assert "building demo" not in done.err
    assert "--no-build" not in done.err


def test_a_source_that_changed_is_not_built(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo"), sha256="0" * 64)
    here.run().failed(5, "demo-1.0.tar.gz", "step 'start'")


def test_two_commands_at_once_build_once(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=sources("demo", before="import time; time.sleep(2)")))
    declare(here)
    results: list[str] = []

    def lock() -> None:
        results.append(here.flowkiln("env", "lock", "flow.py").ok().err)

    threads = [threading.Thread(target=lock) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sum("building demo" in text for text in results) == 1
    records = list((here.home / "cache" / "built").glob("*/build.json"))
    assert len(records) == 1
    assert json.loads(records[0].read_text())["name"] == "demo"


def test_a_build_ends_with_the_command_that_was_killed(here: Project, package_index: PackageIndex) -> None:
    before = f"os.execvp('sleep', ['sleep', '{LONG}'])"
    package_index.add(source("demo", files=sources("demo", before=before)))
    process = here.start("-m", "flowkiln", "env", "lock", "flow.py")
    limit = time.monotonic() + 60
    while not _sleepers():
        assert time.monotonic() < limit, process.communicate()
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    while _sleepers():
        assert time.monotonic() < limit
        time.sleep(0.05)
    package_index.remove("demo")
    package_index.add(source("demo"))
    assert "demo 1.0" in here.run().ok().out


def test_the_password_of_an_index_is_nowhere_after_a_build(dock: Dock, package_index: PackageIndex) -> None:
    secret = "kiln-canary-51b0"
    told = "print('variables', sorted(os.environ.items()))"
    package_index.add(source("demo", files=sources("demo", before=told, build_requires=["basis"])))
    package_index.add(wheel("basis", "1.0"))
    package_index.require("reader", secret)
    url = package_index.url_with("reader", secret)
    repository = f"{stack.registry('plain').address}/team/canary-{os.getpid()}"
    settings = {"FLOWKILN_INDEXES": url, "FLOWKILN_IMAGES_REPOSITORY": repository}
    done = dock.project.run(**settings).ok()
    assert "demo 1.0" in done.out
    failing = {**settings, "FLOWKILN_CACHE": str(dock.project.home / "other"), "FLOWKILN_BUILD_WHERE": "host"}
    failed = dock.project.run("--locked", **failing)
    assert secret not in done.out + done.err + failed.out + failed.err
    assert canary.find(secret, dock.project.folder, dock.project.home, pairs=["reader"]) == []
    (record,) = (dock.project.home / "cache" / "built").glob("*/build.json")
    tag = f"fkw-{record.parent.name}"
    command = [str(stack.tool("crane")), "manifest", "--insecure", f"{repository}:{tag}"]
    manifest = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "demo-1.0-py3-none-any.whl" in manifest
    assert secret not in manifest


def test_uv_builds_the_same_sources_of_our_lock(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo", files=sources("demo", requires=["helper"])), wheel("helper", "1.0"))
    here.flowkiln("env", "lock", "flow.py").ok()
    venv = str(here.home / "venv")
    environ = here.variables(UV_CACHE_DIR=str(here.home / "uv"), UV_NO_CONFIG="1", VIRTUAL_ENV=venv)
    lock = here.folder / "flow.locks" / "pylock.start-linux-amd64.toml"
    program = uv.find(environ)
    for words in (["venv", "-q", venv], ["pip", "sync", "-q", "--preview", str(lock)]):
        subprocess.run([program, *words], check=True, env=environ)
    code = "import demo, helper; print(demo.VERSION)"
    done = subprocess.run([f"{venv}/bin/python", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "1.0\n"


def test_images_of_built_wheels_are_baked_once_for_the_team(dock: Dock, package_index: PackageIndex) -> None:
    package_index.add(source("demo"))
    repository = f"{stack.registry('plain').address}/team/baked-{os.getpid()}"
    settings = {"FLOWKILN_IMAGES_REPOSITORY": repository, "FLOWKILN_PLATFORMS": "linux/amd64,linux/arm64"}
    dock.project.flowkiln("env", "lock", "flow.py", **settings).ok()
    dock.project.flowkiln("env", "bake", "flow.py", "--push", **settings).ok()
    shutil.rmtree(dock.project.home / "cache")
    package_index.remove("demo")
    again = dock.project.flowkiln("env", "bake", "flow.py", "--push", **settings).ok()
    assert "building demo" not in again.err
    shown = dock.project.flowkiln("env", "show", "flow.py:start", "--json", **settings).ok().json
    (package,) = shown["shown"]["packages"]
    assert package["build"]["source"]["kind"] == "sdist"
    assert package["url"] == package["build"]["source"]["url"]


def test_collecting_takes_built_wheels_that_were_left(here: Project, package_index: PackageIndex) -> None:
    package_index.add(source("demo"))
    here.run().ok()
    (folder,) = (here.home / "cache" / "built").iterdir()
    long_ago = time.time() - 400 * 86400
    os.utime(folder, (long_ago, long_ago))
    assert "built" in here.flowkiln("cache", "gc", "--dry-run").ok().out
    here.flowkiln("cache", "gc").ok()
    assert not folder.exists()
    assert "demo 1.0" in here.run("--locked").ok().out  # what is installed stays
