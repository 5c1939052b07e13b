"""A lock is a function of the request and the index: hosts, users, settings and uv versions change no byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base import paths
from flowkiln.envs import uv
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.locking import AMD64, lock, request, solver, versions
from tests.services import unavailable
from tests.services.home import HOSTILE, Home
from tests.services.index import Fault
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from tests.services.index import PackageIndex

ROOT = Path(__file__).parents[2]
LOCKER = """
import json, sys
from pathlib import Path
from flowkiln._base import platforms
from flowkiln.envs.lockfolder import LockFolder
from tests.envs.locking import lock, request
made = lock(request("t", "plain", "extra[x]"), sys.argv[1], host=platforms.host())
LockFolder(Path(sys.argv[2])).write({"fit": made.lock})
"""


@pytest.fixture
def filled(package_index: PackageIndex) -> PackageIndex:
    guards = ("nv; sys_platform == 'linux' and platform_machine == 'x86_64'", "mac; sys_platform == 'darwin'")
    late = "late; python_full_version >= '3.11.7'"
    return package_index.add(
        wheel("t", requires=[*guards, late]),
        *(wheel(name) for name in ("nv", "mac", "late", "leaf")),
        wheel("plain", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        wheel("plain", "1.0"),
        wheel("plain", "2.0", tag="cp311-cp311-manylinux_2_39_x86_64"),
        wheel("extra", requires=["plain"], extras={"x": ["leaf"]}),
    )


def locked_in(
    folder: Path, url: str, *, interpreter: str = sys.executable, umask: int = 0o022, **environ: str
) -> dict[str, bytes]:
    """The bytes that a process of its own writes, with nothing shared with others but the index."""
    own = Home(folder / "home").prepare()
    given = own.environ(PYTHONPATH=os.pathsep.join([str(ROOT / "src"), str(ROOT), *sys.path[1:]]), **environ)
    where = folder / "flow.locks"
    ended = subprocess.run(
        [interpreter, "-c", LOCKER, url, str(where)],
        env=given,
        cwd=folder,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return {path.name: path.read_bytes() for path in where.iterdir()}


def linux_part(written: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in written.items() if "-linux-" in name}


def test_the_same_bytes_from_other_folders_names_zones_locales_and_seeds(
    filled: PackageIndex, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "another place" / "dépôt"
    for folder in (one, two):
        folder.mkdir(parents=True)
    first = locked_in(one, filled.url, PYTHONHASHSEED="1", TZ="UTC", LC_ALL="C")
    second = locked_in(
        two, filled.url, umask=0o077, PYTHONHASHSEED="4711", TZ="Pacific/Kiritimati", LANG="de_DE.UTF-8",
        HOSTNAME="elsewhere", USER="somebody", FLOWKILN_CACHE=str(two / "my cache"), UV_CACHE_DIR=str(two / "uv"),
    )  # fmt: skip
    assert first == second
    assert len(first) == 3


@pytest.mark.parametrize("host", ["darwin/arm64", "linux/arm64"])
def test_the_same_linux_bytes_from_another_host(filled: PackageIndex, tmp_path: Path, host: str) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = locked_in(tmp_path / "here", filled.url, FLOWKILN_HOST_PLATFORM="linux/amd64")
    there = locked_in(tmp_path / "there", filled.url, FLOWKILN_HOST_PLATFORM=host)
    assert linux_part(here) == linux_part(there)
    if host == "linux/arm64":
        assert here == there
    else:
        assert {name for name in there if "darwin" in name} == {"pylock.fit-darwin-arm64.toml"}
        assert b"mac" in there["pylock.fit-darwin-arm64.toml"]


def test_hostile_settings_of_uv_pip_and_the_machine_change_nothing(filled: PackageIndex, tmp_path: Path) -> None:
    for name in ("calm", "storm"):
        (tmp_path / name).mkdir()
    calm = locked_in(tmp_path / "calm", filled.url)
    storm = tmp_path / "storm"
    own = Home(storm / "home")
    bad = "http://127.0.0.1:9/simple"
    for config in (storm, own.root / "xdg-config" / "uv", own.home / ".config" / "uv"):
        config.mkdir(parents=True, exist_ok=True)
        (config / "uv.toml").write_text(f'index-url = "{bad}"\nresolution = "lowest"\nno-index = true\n')
    (storm / "pyproject.toml").write_text(f'[tool.uv]\nindex-url = "{bad}"\nprerelease = "allow"\n')
    (storm / ".python-version").write_text("2.7\n")
    for config in (own.root / "xdg-config" / "pip", own.home / ".pip"):
        config.mkdir(parents=True, exist_ok=True)
        (config / "pip.conf").write_text(f"[global]\nindex-url = {bad}\nfind-links = /nowhere\npre = true\n")
    more = {"UV_EXCLUDE_NEWER": "2001-01-01", "PIP_FIND_LINKS": str(storm), "UV_CONSTRAINT": "/nowhere"}
    more |= {
        "UV_CONFIG_FILE": str(storm / "uv.toml"),
        "MACOSX_DEPLOYMENT_TARGET": "10.9",
        "UV_PYTHON_DOWNLOADS": "auto",
    }
    hostile = {name: value for name, value in HOSTILE.items() if name != "PYTHONDONTWRITEBYTECODE"}
    assert locked_in(storm, filled.url, umask=0o077, **{**hostile, **more}) == calm


def test_a_lock_does_not_depend_on_the_interpreter_that_makes_it(filled: PackageIndex, tmp_path: Path) -> None:
    """The launcher is a Python of its own; the resolution needs none of the version that is locked."""
    own = request("t", "plain", python="3.14")
    made = lock(own, filled.url).lock
    assert made.python == "3.14"
    assert set(versions(made)) == {"t", "nv", "late", "plain"}
    assert not [one for one in filled.seen if "python-build-standalone" in one.path]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.12.24"])
def test_the_same_bytes_from_another_uv(filled: PackageIndex, tmp_path: Path, version: str) -> None:
    program = other_uv(version)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert locked_in(tmp_path / "one", filled.url) == locked_in(
        tmp_path / "two", filled.url, FLOWKILN_UV=str(program)
    )


def other_uv(version: str) -> Path:
    """The uv of ``version``, installed once into the developer's cache; the test is skipped where it cannot be."""
    folder = Path.home().parent / f"uv-{version}"
    program = folder / "bin" / "uv"
    if not program.exists():
        command = [uv.find({}), "pip", "install", "--target", folder, f"uv=={version}"]
        ended = subprocess.run(
            [*map(str, command), "--python", sys.executable], capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            unavailable(f"uv {version} cannot be installed here: {ended.stderr.strip()[-200:]}")
    return program


def test_uv_sees_only_what_is_listed(filled: PackageIndex) -> None:
    given = uv.environment(solver(filled.url, SECRET="x", UV_OFFLINE="1", PIP_X="1", SSL_CERT_FILE="/ca.pem"))
    assert "SECRET" not in given
    assert not [name for name in given if name.startswith("PIP_")]
    assert "UV_OFFLINE" not in given
    assert given["SSL_CERT_FILE"] == "/ca.pem"
    assert given["UV_NO_CONFIG"] == "1"
    assert given["UV_PYTHON_DOWNLOADS"] == "never"


CANARY = "CANARY123"


def no_canary(*folders: Path) -> None:
    found = [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize(
    "way", ["url", "UV_DEFAULT_INDEX", "UV_INDEX", "PIP_INDEX_URL", "netrc", "pip.conf", "named"]
)
def test_credentials_reach_uv_and_nothing_else(
    package_index: PackageIndex, tmp_path: Path, home: Home, way: str
) -> None:
    package_index.require("ann", CANARY)
    package_index.add(wheel("a", "1.0"), wheel("a", "2.0", tag="cp311-cp311-macosx_11_0_arm64"))
    secret = package_index.url_with("ann", CANARY)
    environ: dict[str, str] = {}
    declared: list[str] = []
    if way == "url":
        declared = [secret]
    elif way == "netrc":
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine 127.0.0.1 login ann password {CANARY}\n")
        netrc.chmod(0o600)
        environ, declared = {"NETRC": str(netrc)}, [package_index.url]
    elif way == "pip.conf":
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\nindex-url = {secret}\n")
        environ = {"PIP_CONFIG_FILE": str(config)}
    elif way == "named":
        environ = {"UV_INDEX": f"Own={package_index.url}", "UV_INDEX_OWN_USERNAME": "ann"}
        environ["UV_INDEX_OWN_PASSWORD"] = CANARY
    else:
        environ = {way: secret}
    asked = solver(*declared, **environ)  # type: ignore[arg-type]
    made = lock(request("a", indexes=declared or None), asked)
    assert versions(made) == {"a": "1.0"}
    assert "macosx_11_0_arm64" in str(made.passed_over[0]), "the index page was read with the credentials"
    folder = LockFolder(tmp_path / "flow.locks")
    folder.write({"fit": made.lock})
    assert CANARY not in json.dumps([str(one) for one in made.passed_over]) + repr(made.lock) + repr(made.warnings)
    no_canary(folder.path, paths.cache_root())
    package_index.fault("ghost", Fault(status=403))
    for wanted in ("a>=3", "ghost"):
        with pytest.raises(Exception, match="fit") as caught:
            lock(request(wanted, indexes=declared or None), asked)
        assert CANARY not in repr(caught.value.__dict__) + str(caught.value)
    no_canary(paths.cache_root())


def test_uv_installs_our_pylock(package_index: PackageIndex, tmp_path: Path) -> None:
    package_index.add(wheel("top", requires=["leaf"]), wheel("leaf", "2.0"), wheel("leaf", "1.0"))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = lock(request("top", python=running), package_index.url)
    folder = LockFolder(tmp_path / "flow.locks")
    folder.write({"fit": made.lock})
    program = str(uv.find({}))
    environ = {**os.environ, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    for verb in (["sync"], ["install", "-r"]):
        venv = tmp_path / f"venv-{verb[0]}"
        subprocess.run([program, "venv", "-q", "--python", sys.executable, str(venv)], env=environ, check=True)
        file = str(folder.path / f"pylock.fit-{AMD64.slug}.toml")
        command = [program, "pip", *verb, file, "--python", str(venv / "bin" / "python")]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        listed = subprocess.run(
            [program, "pip", "list", "--format", "json", "--python", str(venv / "bin" / "python")],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        found = {one["name"]: one["version"] for one in json.loads(listed.stdout)}
        assert found == versions(made)


def test_no_process_but_uv_and_our_own_interpreter_is_started(package_index: PackageIndex, tmp_path: Path) -> None:
    """A06: locking for a foreign target runs no foreign program and unpacks nothing."""
    package_index.add(wheel("a", tag="cp311-cp311-manylinux_2_17_aarch64"))
    started: list[str] = []
    sys.addaudithook(lambda event, args: started.append(str(args[0])) if event == "subprocess.Popen" else None)
    before = len(started)
    lock(request("a", platforms=["linux/arm64"]), package_index.url)
    assert {Path(one).name for one in started[before:]} == {"uv"}
    left = [path for path in paths.cache_root().rglob("*") if path.suffix in {".whl", ".so"}]
    assert left == []
