"""The services are what the tests of images take them for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.home import MACHINE
from tests.source import ROOT
from tests.stack import Base, Engine, Registry, base, tool
from tests.stack.bases import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e


def run(*command: object, more: dict[str, str] | None = None) -> str:
    """What a program prints; it must succeed."""
    environ = {**os.environ, **(more or {})}
    done = subprocess.run([*map(str, command)], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_container(engine: Engine, image: str, *command: str) -> str:
    run(tool("docker"), "--host", engine.host, "pull", "--quiet", image)
    return run(tool("docker"), "--host", engine.host, "run", "--rm", "--network=none", image, *command)


def exported(image: str, folder: Path, platform: str = "linux/amd64") -> list[tarfile.TarInfo]:
    archive = folder / "image.tar"
    run(tool("crane"), "export", "--insecure", "--platform", platform, image, archive)
    with tarfile.open(archive) as opened:
        return opened.getmembers()


def config(image: str, platform: str = "linux/amd64") -> Any:
    return json.loads(run(tool("crane"), "config", "--insecure", "--platform", platform, image))


def test_engines_are_two_kinds(docker_engine: Engine, containerd_engine: Engine) -> None:
    drivers = {}
    for engine in (docker_engine, containerd_engine):
        command = ("info", "--format", "{{.Driver}} {{json .DriverStatus}}")
        drivers[engine.kind] = run(tool("docker"), "--host", engine.host, *command)
    assert drivers["overlay2"].startswith("overlay2 ")
    assert drivers["containerd"].startswith("overlayfs ")
    assert "io.containerd.snapshotter" in drivers["containerd"]


def test_engine_answers_over_the_network(any_engine: Engine) -> None:
    assert any_engine.tcp is not None
    server = run(tool("docker"), "--host", any_engine.tcp, "version", "--format", "{{.Server.Version}}")
    assert server.strip() == any_engine.version


VERSION = "import sys; print(sys.version_info[:2], sys.prefix)"


@pytest.mark.parametrize("name", [name for name in RECIPES if "no-python" not in name])
def test_base_runs_its_python(any_engine: Engine, name: Base) -> None:
    image = base(name)
    program = () if "distroless" in name else ("python3",)
    prefix = "/usr/local" if "slim" in name else "/usr"
    said = in_container(any_engine, image, *program, "-c", VERSION)
    assert said.strip() == f"{(3, int(name[-2:]))} {prefix}"


def test_slim_base_is_laid_out_as_the_official_one(docker_engine: Engine, slim_base: str) -> None:
    code = (
        "import bz2, ctypes, dbm, json, lzma, os, pip, readline, sqlite3, ssl, sys, sysconfig, uuid, zlib;"
        "print(json.dumps([sys.path[-1], sysconfig.get_paths()['purelib'], dict(os.environ), sys.version]))"
    )
    last, purelib, environ, version = json.loads(in_container(docker_engine, slim_base, "python", "-c", code))
    assert last == purelib == "/usr/local/lib/python3.11/site-packages"
    assert environ["PATH"].startswith("/usr/local/bin:")
    assert environ["LANG"] == "C.UTF-8"
    assert environ["PYTHON_VERSION"] == version.split()[0]


@pytest.mark.parametrize("name", ["slim-python:3.11", "slim-python:3.13", "distroless-python:3.11"])
def test_base_has_no_bytecode(name: Base, tmp_path: Path) -> None:
    names = [member.name for member in exported(base(name), tmp_path)]
    assert any(one.endswith("/json/decoder.py") for one in names)
    assert not [one for one in names if one.endswith(".pyc") or "__pycache__" in one]


def test_debian_base_has_the_bytecode_that_its_packages_wrote(debian_base: str, tmp_path: Path) -> None:
    names = [member.name for member in exported(debian_base, tmp_path)]
    assert any(one.endswith("/json/__pycache__/decoder.cpython-311.pyc") for one in names)


def test_bare_base_has_no_python(any_engine: Engine, bare_base: str) -> None:
    search = "grep ^VERSION_CODENAME /etc/os-release; ls /usr/bin /usr/local/bin | grep ^python || echo none"
    assert in_container(any_engine, bare_base, "sh", "-c", search).split() == ["VERSION_CODENAME=bookworm", "none"]


def test_distroless_base_has_no_shell_and_no_package_tool(distroless_base: str, tmp_path: Path) -> None:
    names = {Path(member.name).name for member in exported(distroless_base, tmp_path) if "bin/" in member.name}
    assert names == {"python", "python3", "python3.11"}
    assert config(distroless_base)["config"]["User"] == "65532"


def test_slim_base_is_for_two_platforms(slim_base: str, tmp_path: Path) -> None:
    index = json.loads(run(tool("crane"), "manifest", "--insecure", slim_base))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert {one["platform"]["architecture"] for one in index["manifests"]} == {"amd64", "arm64"}
    assert config(slim_base, "linux/arm64")["architecture"] == "arm64"
    members = {member.name: member for member in exported(slim_base, tmp_path, "linux/arm64")}
    assert members["bin"].linkname == "usr/bin"
    assert "usr/local/bin/python3.11" in members
    assert any("lib-dynload" in name and "aarch64-linux-gnu" in name for name in members)


@pytest.fixture
def signed_in(tls_registry: Registry, tmp_path: Path) -> dict[str, str]:
    """Variables with which crane trusts the registry and knows its password."""
    login = ("auth", "login", tls_registry.address, "-u", tls_registry.user, "-p", tls_registry.password)
    more = {"SSL_CERT_FILE": str(tls_registry.ca_file), "DOCKER_CONFIG": str(tmp_path / "docker")}
    run(tool("crane"), *login, more=more)
    return more


def test_crane_copies_between_the_registries(
    bare_base: str, tls_registry: Registry, signed_in: dict[str, str]
) -> None:
    target = f"{tls_registry.address}/stack/crane:one"
    run(tool("crane"), "copy", bare_base, target, more=signed_in)
    before = run(tool("crane"), "digest", bare_base)
    assert run(tool("crane"), "digest", target, more=signed_in) == before


def test_skopeo_copies_between_the_registries(bare_base: str, tls_registry: Registry, tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    assert tls_registry.ca_file is not None
    (certificates / "ca.crt").write_bytes(tls_registry.ca_file.read_bytes())
    password = f"{tls_registry.user}:{tls_registry.password}"
    target = f"docker://{tls_registry.address}/stack/skopeo:one"
    pushed = ("--src-tls-verify=false", f"--dest-cert-dir={certificates}", f"--dest-creds={password}")
    run(tool("skopeo"), "--insecure-policy", "copy", *pushed, f"docker://{bare_base}", target)
    pulled = (f"--src-cert-dir={certificates}", f"--src-creds={password}")
    run(tool("skopeo"), "--insecure-policy", "copy", *pulled, target, f"oci:{tmp_path / 'pulled'}:one")
    digest = run(tool("crane"), "digest", bare_base).strip()
    assert json.loads((tmp_path / "pulled" / "index.json").read_text())["manifests"][0]["digest"] == digest


def test_registry_asks_for_its_password(tls_registry: Registry, tmp_path: Path) -> None:
    more = {**os.environ, "SSL_CERT_FILE": str(tls_registry.ca_file), "DOCKER_CONFIG": str(tmp_path)}
    command = [str(tool("crane")), "catalog", tls_registry.address]
    done = subprocess.run(command, env=more, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "UNAUTHORIZED" in done.stderr


def test_registry_deletes(bare_base: str, plain_registry: Registry) -> None:
    target = f"{plain_registry.address}/stack/deleted"
    run(tool("crane"), "copy", bare_base, f"{target}:one")
    run(tool("crane"), "delete", f"{target}@{run(tool('crane'), 'digest', bare_base).strip()}")
    done = subprocess.run([str(tool("crane")), "digest", f"{target}:one"], capture_output=True, check=False)
    assert done.returncode != 0


class Shell:
    """``python -m tests.stack`` with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {**MACHINE, "FLOWKILN_TEST_STACK": str(folder)}

    def begin(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stack", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env={**self.environ, **more}, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def __call__(self, *arguments: str, code: int = 0, **more: str) -> str:
        with self.begin(*arguments, **more) as process:
            said, _ = process.communicate()
        assert process.returncode == code, said
        return said

    def pid(self) -> int:
        return int(json.loads((self.folder / "run" / "registry-plain" / "state.json").read_text())["pid"])

    def running(self) -> int:
        """How many registries run with this folder's settings."""
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return sum(os.fsencode(self.folder / "run" / "registry-plain" / "config.json") in one for one in commands)


@pytest.fixture
def shell(tmp_path: Path, plain_registry: Registry) -> Iterator[Shell]:
    own = Shell(tmp_path / "stack")
    yield own
    own("stop")


def test_start_of_what_runs_starts_nothing(shell: Shell) -> None:
    assert "ok, http://127.0.0.1:" in shell("start", "registry-plain")
    pid = shell.pid()
    shell("start", "registry-plain")
    assert shell.pid() == pid
    assert shell("start", "registry-plain", "--new").splitlines()[-1] == ""
    assert f"process {pid}" in shell("status", "registry-plain")


def test_two_that_start_at_once_start_one(shell: Shell) -> None:
    both = [shell.begin("start", "registry-plain") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert shell.running() == 1


def test_stop_ends_what_was_started_and_no_more(shell: Shell, plain_registry: Registry) -> None:
    assert shell("start", "registry-plain", "--new").splitlines()[-1] == "registry-plain"
    assert Counter(shell("stop").split())["stopped"] == 1
    assert shell.running() == 0
    assert "not running" in shell("status", "registry-plain")
    assert run(tool("crane"), "catalog", plain_registry.address)


def test_what_was_killed_is_started_again_at_its_old_address(shell: Shell) -> None:
    address = shell("start", "registry-plain").split()[2]
    pid = shell.pid()
    os.kill(pid, signal.SIGKILL)
    while shell.running():
        pass
    assert "ended by itself" in shell("status", "registry-plain")
    assert shell("start", "registry-plain").split()[2] == address
    assert shell.pid() != pid


def test_reason_is_told_where_a_service_cannot_run(shell: Shell, tmp_path: Path) -> None:
    said = shell("start", "registry-plain", code=1, PATH=str(tmp_path))
    assert "docker-registry cannot run here because it is not installed (Debian: docker-registry)" in said


def test_unknown_service_is_refused(shell: Shell) -> None:
    assert "no service is called nonsense; there are registry-plain, " in shell("start", "nonsense", code=2)
