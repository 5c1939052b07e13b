from __future__ import annotations

import builtins
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln.envs import condaside, indexes
from flowkiln.envs.condaerrors import CondaConflict, CondaUnsupported, ProvidedConflict
from flowkiln.envs.lockfileerrors import NoMd5
from flowkiln.envs.resolve import resolve
from flowkiln.envs.spec import EnvSpec
from tests.envs.condasolving import conda_solver, made
from tests.envs.locking import AMD64, ARM64, MAC, Heard, lock, solver
from tests.services.condacases import dist_info
from tests.services.condapackages import package
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flowkiln.envs.lock import PlatformLock
    from flowkiln.envs.resolve import Resolution
    from flowkiln.envs.uv import Solver
    from tests.services.channel import Channel, ChannelServer
    from tests.services.index import PackageIndex

pytestmark = pytest.mark.usefixtures("home")

LINUX = (AMD64, ARM64)


def numpy(version: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    files = dist_info("lib/python3.11/site-packages", "numpy", version)
    return "numpy-base", version, {"depends": ["python 3.11.*"], "files": files, **more}


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return made(tmp_path / "channel", numpy("2.1.0"), numpy("2.2.0"), ("tool", "1.0"), ("tool", "2.0"))


@pytest.fixture
def both(channel: Channel, channel_server: ChannelServer, package_index: PackageIndex) -> Solver:
    """A solver for the test index and the channel."""
    package_index.add(
        wheel("wants-numpy", requires=["numpy>=2"]),
        wheel("wants-new", requires=["numpy>=3"]),
        wheel("numpy", "3.0"),
    )
    return replace(solver(package_index.url), conda=conda_solver(channel_server.mount("main", channel)))


def spec(*conda: str, pypi: tuple[str, ...] = (), **options: Any) -> EnvSpec:
    return EnvSpec(**{"python": "3.11", "conda": conda, "requirements": pypi, **options})


def on(made_: Resolution, platform: Any = AMD64) -> PlatformLock:
    part = made_.lock.on(platform)
    assert part is not None
    return part


def conda_versions(part: PlatformLock) -> dict[str, str]:
    return {one.name: one.version for one in part.conda if one.name != "python"}


def test_conda_alone_asks_no_index(both: Solver, package_index: PackageIndex) -> None:
    found = lock(spec("tool"), both)
    for platform in LINUX:
        part = on(found, platform)
        assert conda_versions(part) == {"tool": "2.0"}
        assert part.own_python is not None
        assert ("glibc", "2.28") in part.virtual
        assert part.wheels == ()
        assert part.python_minimum is None
    assert found.lock.channels == (both.conda.plan.channels[0].shown,)  # type: ignore[union-attr]
    assert package_index.total == 0


def test_a_mixed_environment_has_each_distribution_from_one_side(both: Solver) -> None:
    found = lock(spec("numpy-base", pypi=("wants-numpy",)), both)
    for platform in LINUX:
        part = on(found, platform)
        assert conda_versions(part) == {"numpy-base": "2.2.0"}
        assert [one.name for one in part.wheels] == ["wants-numpy"]
        assert part.conda[0].provides == (("numpy", "2.2.0"),)
        assert (part.python_minimum, part.python_below) == (None, None)
    assert lock(spec("numpy-base", pypi=("wants-numpy", "numpy<=2.2")), both).lock.platforms == found.lock.platforms


def test_a_conflict_of_the_sides_is_named_from_both(both: Solver) -> None:
    with pytest.raises(ProvidedConflict) as caught:
        lock(spec("numpy-base", pypi=("wants-new",)), both)
    for part in ("wants-new", "numpy>=3", "numpy 2.2.0 of conda", "in the package numpy-base 2.2.0"):
        assert part in caught.value.message
    assert "+conda" not in caught.value.message
    assert caught.value.step == "train"
    with pytest.raises(ProvidedConflict, match="numpy>=3"):
        lock(spec("numpy-base", pypi=("numpy>=3",)), both)


def test_locking_again_moves_nothing_unless_told(both: Solver, channel: Channel) -> None:
    first = lock(spec("tool", "numpy-base", pypi=("wants-numpy",)), both)
    package(channel.folder, "tool", "3.0")
    package(channel.folder, "numpy-base", "2.3.0", **numpy("2.3.0")[2])
    channel.index()
    kept = lock(spec("tool", "numpy-base"), both, previous=first.lock)
    assert conda_versions(on(kept)) == {"numpy-base": "2.2.0", "tool": "2.0"}
    same = lock(spec("tool", "numpy-base", pypi=("wants-numpy",)), both, previous=first.lock)
    assert same.lock == first.lock
    one = lock(
        spec("tool", "numpy-base", pypi=("wants-numpy",)), both, previous=first.lock, upgrade=frozenset({"Tool"})
    )
    assert conda_versions(on(one)) == {"numpy-base": "2.2.0", "tool": "3.0"}
    every = lock(spec("tool", "numpy-base"), both, previous=first.lock, upgrade=True)
    assert conda_versions(on(every)) == {"numpy-base": "2.3.0", "tool": "3.0"}


def test_linux_platforms_have_equal_versions_where_there_are_such(both: Solver, channel: Channel) -> None:
    for subdir, versions in (("linux-64", ("1.0", "2.0")), ("linux-aarch64", ("1.0",))):
        for version in versions:
            package(channel.folder, "uneven", version, subdir=subdir)
    package(channel.folder, "apart", "1.0", subdir="linux-64")
    package(channel.folder, "apart", "2.0", subdir="linux-aarch64")
    channel.index()
    found = lock(spec("uneven"), both)
    assert [conda_versions(on(found, platform)) for platform in LINUX] == [{"uneven": "1.0"}] * 2
    assert found.warnings == []
    apart = lock(spec("apart"), both)
    assert "apart is 1.0 on linux/amd64, 2.0 on linux/arm64" in apart.warnings[0]


def test_a_lock_is_the_same_from_every_host_and_with_a_gpu(both: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = spec("tool", pypi=("wants-numpy",), platforms=LINUX)
    first = lock(wanted, both)
    for variable in ("CUDA", "GLIBC", "ARCHSPEC", "LINUX"):
        monkeypatch.setenv(f"CONDA_OVERRIDE_{variable}", "99")
    monkeypatch.setenv("CONDA_SUBDIR", "osx-arm64")
    for host in (ARM64, MAC):
        assert lock(wanted, both, host=host).lock == first.lock


def test_a_default_platform_without_a_solution_is_absent_with_its_reason(both: Solver, channel: Channel) -> None:
    package(channel.folder, "intel", "1.0", subdir="linux-64")
    channel.index()
    found = lock(spec("intel"), both)
    assert [part.platform for part in found.lock.platforms] == [AMD64]
    assert [(one.platform, bool(one.reason)) for one in found.lock.absent] == [(ARM64, True)]
    with pytest.raises(CondaConflict):
        lock(spec("intel", platforms=LINUX), both)


@pytest.mark.parametrize(
    ("conda", "told", "found"),
    [
        (("python 3.12.*",), {}, ("3.12", None)),
        (("python ==3.12.4",), {}, ("3.12", None)),
        (("python ==3.12.4",), {"python": "3.11"}, ("3.11", None)),
        (("python >=3.11,<3.13",), {}, (None, ">=3.11,<3.13")),
        (("python >=3.11",), {"requires_python": "<3.14"}, (None, "<3.14,>=3.11")),
        (("python 3.11.*|3.13.*",), {}, (None, None)),
        (("python", "python-dateutil ==3.12"), {}, (None, None)),
        (("conda-forge::python 3.13.*",), {}, ("3.13", None)),
    ],
)
def test_the_python_of_the_conda_packages_is_the_environments(
    conda: tuple[str, ...], told: dict[str, Any], found: tuple[str | None, str | None]
) -> None:
    assert condaside.python_of(EnvSpec(conda=conda, **told)) == found


def test_without_the_solver_the_error_says_what_to_install(both: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "rattler":
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "flowkiln.envs.condasolve", raising=False)
    monkeypatch.delattr("flowkiln.envs.condasolve", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CondaUnsupported) as caught:
        lock(spec("tool"), both)
    assert "flowkiln[conda]" in str(caught.value.hint)


def test_progress_is_told(both: Solver) -> None:
    heard = Heard()
    assert both.conda is not None
    told = replace(both, conda=replace(both.conda, reporter=heard))
    resolve("fit", spec("tool", platforms=(AMD64,)), told, host=AMD64)
    assert any("fit for linux/amd64" in line and both.conda.plan.shown in line for line in heard.lines)


def test_a_package_that_a_lock_cannot_name_is_refused(both: Solver, channel: Channel) -> None:
    channel.state(channel.find("tool", "2.0"), md5=None)
    channel.index()
    with pytest.raises(NoMd5, match=r"tool-2\.0"):
        lock(spec("tool"), both)


def test_cuda_of_the_request_is_assumed_by_both_sides(both: Solver, channel: Channel) -> None:
    package(channel.folder, "gpu", "1.0", depends=["__cuda >=12"])
    channel.index()
    assert ("cuda", "12.4") in on(lock(spec("gpu", cuda="12.4"), both)).virtual
    with pytest.raises(CondaConflict):
        lock(spec("gpu", cuda="cpu"), both)


def test_an_index_pin_of_what_conda_provides_pins_nothing(
    both: Solver, start_index: Callable[[], PackageIndex]
) -> None:
    other = start_index().add(wheel("numpy", "9.0"), wheel("alone"))
    pins = [("numpy", other.url), ("alone", other.url)]
    pinned = replace(both, plan=indexes.plan([both.plan.shown], pins=pins))
    part = on(lock(spec("numpy-base", pypi=("wants-numpy", "alone")), pinned))
    assert {one.name: one.index for one in part.wheels} == {
        "alone": other.url.rstrip("/"),
        "wants-numpy": both.plan.shown,
    }
