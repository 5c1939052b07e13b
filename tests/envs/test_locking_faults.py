"""What goes wrong while locking: each case of the list by its name, as the error that users see."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flowkiln._base.command import Limits
from flowkiln._base.errors import ExitCode
from flowkiln.envs import errors, uv
from tests.envs.locking import AMD64, Heard, lock, request, solver, versions
from tests.services.index import Fault
from tests.services.wheels import sdist, wheel

if TYPE_CHECKING:
    from flowkiln.envs.spec import EnvSpec
    from flowkiln.envs.uv import Solver
    from tests.services.home import Home
    from tests.services.index import PackageIndex


def refused(kind: type[errors.EnvError], wanted: EnvSpec, asked: str | Solver) -> errors.EnvError:
    """The error of ``kind`` that locking ends with, after the checks that hold for every one."""
    with pytest.raises(kind) as caught:
        lock(wanted, asked)
    error = caught.value
    shown = [*error.message.splitlines(), *(error.hint or "").splitlines()]
    assert len(shown) <= 24
    assert error.hint, "no next action"
    assert error.step == "train"
    assert "'fit'" in error.message
    assert "linux/" in error.message
    if error.log is not None:
        assert Path(error.log).exists()
        assert Path(error.log).stat().st_mode & 0o077 == 0
    assert "/scratch" not in error.message
    return error


def test_no_such_package(package_index: PackageIndex) -> None:
    error = refused(errors.NoSuchPackage, request("panda"), package_index.url)
    assert "'panda'" in error.message
    assert package_index.url.rstrip("/") in error.message
    assert error.exit_code == ExitCode.UNSOLVABLE
    assert error.log is not None


def test_no_such_package_deep_down_names_the_chain(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", requires=["ghost"]))
    error = refused(errors.NoSuchPackage, request("a"), package_index.url)
    assert "'ghost'" in error.message
    assert "a" in error.message.splitlines()[1]


def test_no_version_satisfies(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"))
    error = refused(errors.NoSuchVersion, request("a>=2"), package_index.url)
    assert "only a==1.0 is available" in error.message
    assert "no version of a satisfies" in error.message
    error = refused(errors.NoSuchVersion, request("a==99"), package_index.url)
    assert "there is no version of a==99" in error.message
    assert error.exit_code == ExitCode.UNSOLVABLE


def test_a_long_explanation_keeps_its_conclusion(package_index: PackageIndex) -> None:
    for number in range(30):
        package_index.add(wheel("a", f"1.{number}", requires=[f"b=={number}", f"c{number}"]))
        package_index.add(wheel(f"c{number}", requires=[f"b>{number}"]), wheel("b", str(number)))
    error = refused(errors.Conflict, request("a", "b>=2"), package_index.url)
    assert "more lines in the log" in error.message
    assert "are unsatisfiable" in error.message
    assert len(error.message.splitlines()) <= 17


def test_conflicting_pins(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", requires=["b<2"]), wheel("b", "1.0"), wheel("b", "2.0"))
    error = refused(errors.Conflict, request("a", "b>=2"), package_index.url)
    assert "depend on b<2" in error.message
    assert error.exit_code == ExitCode.UNSOLVABLE


def test_no_wheel_for_the_platform(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", tag="cp311-cp311-win_amd64"), wheel("a", tag="cp311-cp311-macosx_11_0_arm64"))
    error = refused(errors.NoWheel, request("a", platforms=["linux/amd64"]), package_index.url)
    assert "win_amd64" in error.message
    assert "macosx_11_0_arm64" in error.message
    assert "3.11" in error.message


def test_no_wheel_for_this_python(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", tag="cp312-cp312-manylinux_2_17_x86_64"))
    error = refused(errors.NoWheel, request("a", platforms=["linux/amd64"]), package_index.url)
    assert "cp312" in error.message


def test_source_only_packages_are_not_built(package_index: PackageIndex, tmp_path: Path) -> None:
    package_index.add(sdist("a"))
    error = refused(errors.NoWheel, request("a"), package_index.url)
    assert "'a'" in error.message or " a " in error.message


def test_only_yanked_versions(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", "1.0"), wheel("a", "1.1"), yanked="oops")
    error = refused(errors.OnlyYanked, request("a"), package_index.url)
    assert "yanked" in error.message
    assert "==" in str(error.hint)


def test_python_of_a_package_is_too_new(package_index: PackageIndex) -> None:
    package_index.add(wheel("a", requires_python=">=3.13"))
    assert ">=3.13" in refused(errors.Conflict, request("a"), package_index.url).message


def test_index_asks_for_a_password(package_index: PackageIndex) -> None:
    package_index.require("ann", "secret")
    package_index.add(wheel("a"))
    error = refused(errors.IndexDenied, request("a"), package_index.url)
    assert "401" in error.message
    assert error.exit_code == ExitCode.SERVICE
    assert "netrc" in str(error.hint)
    assert versions(lock(request("a"), package_index.url_with("ann", "secret"))) == {"a": "1.0"}


@pytest.mark.parametrize("on", ["page", "any"])
def test_index_forbids(package_index: PackageIndex, on: str) -> None:
    package_index.add(wheel("a"))
    package_index.fault("a", Fault(status=403), on=on)  # type: ignore[arg-type]
    assert "403" in refused(errors.IndexDenied, request("a"), package_index.url).message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_index_fails_again_and_again(package_index: PackageIndex, status: int) -> None:
    package_index.add(wheel("a"))
    package_index.fault("a", Fault(status=status, retry_after="0"))
    error = refused(errors.IndexUnavailable, request("a"), solver(package_index.url, UV_HTTP_RETRIES="1"))
    assert str(status) in error.message
    assert error.retryable
    assert error.exit_code == ExitCode.SERVICE


def test_index_fails_once(package_index: PackageIndex) -> None:
    package_index.add(wheel("a"))
    package_index.fault("a", Fault(status=503, times=1))
    assert versions(lock(request("a"), package_index.url)) == {"a": "1.0"}


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/simple"
        error = refused(errors.IndexUnavailable, request("a"), solver(address, UV_HTTP_RETRIES="1"))
    assert address in str(error.hint)


def test_index_stalls(package_index: PackageIndex) -> None:
    package_index.add(wheel("alpha"))
    package_index.fault("alpha", Fault(delay=60), on="page")
    heard = Heard()
    started = time.monotonic()
    error = refused(
        errors.LockTimeout,
        request("alpha"),
        solver(package_index.url, limits=Limits(total=60, stall=6), reporter=heard),
    )
    assert time.monotonic() - started < 40
    assert "alpha" in error.message
    assert "6 s" in error.message
    assert "FLOWKILN_LOCK_TIMEOUT" in str(error.hint)
    progress = [line for line in heard.lines if line.startswith("locking fit for linux/amd64")]
    assert progress, "silent for more than five seconds"
    assert "alpha" in progress[0]


def test_wrong_metadata_hash_or_name_is_not_swallowed(package_index: PackageIndex) -> None:
    package_index.add(wheel("a"), metadata=b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    error = refused(errors.EnvError, request("a"), package_index.url)
    assert error.code


def test_offline_without_a_cache(package_index: PackageIndex, home: Home) -> None:
    package_index.add(wheel("a"))
    error = refused(errors.Offline, request("a"), solver(package_index.url, offline=True))
    assert "--offline" in str(error.hint)
    assert package_index.total == 0


def test_bad_requirement_that_only_uv_notices(package_index: PackageIndex) -> None:
    error = refused(errors.BadRequirement, replace(request(), requirements=("foo bar ==",)), package_index.url)
    assert "foo bar" in error.message


@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 3", "not a usable uv"), ("echo 'uv 0.4.1 (abc)'", r"uv 0\.4\.1 .* too old")],
)
def test_uv_is_unusable_or_too_old(tmp_path: Path, script: str, said: str, package_index: PackageIndex) -> None:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(errors.UvUnusable, match=said) as caught:
        lock(request("a"), solver(package_index.url, FLOWKILN_UV=str(program)))
    assert "pip install" in str(caught.value.hint)


def test_uv_is_missing(tmp_path: Path, package_index: PackageIndex) -> None:
    with pytest.raises(errors.UvUnusable):
        lock(request("a"), solver(package_index.url, FLOWKILN_UV=str(tmp_path / "none")))


def test_uv_killed_from_outside_is_an_error_of_ours(tmp_path: Path, package_index: PackageIndex) -> None:
    program = tmp_path / "uv"
    real = uv.find({})
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\nkill -9 $$\n')
    program.chmod(0o755)
    error = refused(errors.ResolveFailed, request("a"), solver(package_index.url, FLOWKILN_UV=str(program)))
    assert error.log is not None


def test_interrupting_ends_uv(package_index: PackageIndex, tmp_path: Path) -> None:
    package_index.add(wheel("a"))
    package_index.fault("a", Fault(delay=60), on="page")
    code = (
        "import sys; from tests.envs.locking import lock, request;"
        "print('ready', flush=True); lock(request('a'), sys.argv[1])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, package_index.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:
        deadline = time.monotonic() + 20
        while package_index.count("a") == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        found = children.read_text().split() if children.exists() else []
        running.send_signal(signal.SIGINT)
        assert running.wait(20) != 0
    for child in found:
        assert not Path(f"/proc/{child}").exists()


def test_the_message_names_amd64_first(package_index: PackageIndex) -> None:
    assert str(AMD64) in refused(errors.NoSuchPackage, request("nothing-here"), package_index.url).message
