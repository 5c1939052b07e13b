"""Which locks are used, made or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base import settings as settings_module
from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln._base.settings import Settings
from flowkiln.envs.errors import MissingLock, StaleLock
from flowkiln.envs.installerrors import PlatformTooOld
from flowkiln.envs.lock import AbsentPlatform, EnvLock, PlatformLock
from flowkiln.envs.lockfolder import LockFolder
from flowkiln.envs.spec import EnvSpec
from flowkiln.wiring import locks, trees
from flowkiln.wiring.locks import Request
from flowkiln.wiring.policy import Policy
from tests.envs.locking import Heard

AMD64, ARM64, MAC = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("darwin", "arm64")


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    monkeypatch.setenv("FLOWKILN_CACHE", str(tmp_path / "cache"))
    declared = tmp_path / "flow.py"
    declared.write_text("")
    spec = EnvSpec(requirements=("six",))
    return Request(name="fit", spec=spec, folder=LockFolder.beside(declared), declared=declared, steps=("fit",))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLOWKILN_CONFIG", str(tmp_path / "config.toml"))
    return settings_module.load(tmp_path, environ={"FLOWKILN_OFFLINE": "1"})


def lock_of(request: Request, *platforms: Platform) -> EnvLock:
    parts = tuple(PlatformLock(platform=one, python="3.11", wheels=()) for one in platforms)
    return EnvLock(
        name=request.name, spec_id=request.spec.spec_id, python="3.11", platforms=parts, steps=request.steps
    )


def stand(request: Request, lock: EnvLock) -> None:
    with request.folder.hold():
        request.folder.write({lock.name: lock})


def settle(request: Request, settings: Settings, **policy: Any) -> EnvLock:
    settled = locks.settle([request], settings, Silent(), policy=Policy(**policy), host=AMD64)
    assert not settled.made
    return settled.locks[request]


def test_channels_come_from_the_request_and_the_settings(
    request_of: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".condarc").write_text("channel_priority: flexible\nchannels: [of-file]\n")
    told = settings_module.load(tmp_path, environ={"FLOWKILN_CHANNELS": "one,two", "FLOWKILN_LOCK_TIMEOUT": "7"})
    heard = Heard()
    wanted = replace(request_of, spec=EnvSpec(conda=("python",)))
    found = locks.solver_of(wanted, told, heard).conda
    assert found is not None
    assert [channel.name for channel in found.plan.channels] == ["one", "two"]
    assert (found.limits.stall, found.limits.total) == (7, 70)
    assert "channel_priority: flexible" in heard.lines[0]
    assert locks.solver_of(request_of, told, heard).conda is None


def test_a_lock_that_holds_is_used_without_network(request_of: Request, settings: Settings) -> None:
    stand(request_of, lock_of(request_of, AMD64))
    for policy in ({}, {"locked": True}, {"frozen": True}):
        assert settle(request_of, settings, **policy).on(AMD64) is not None


def test_missing_is_an_error_when_locked_or_frozen(request_of: Request, settings: Settings) -> None:
    for policy in ({"locked": True}, {"frozen": True}):
        with pytest.raises(MissingLock) as caught:
            settle(request_of, settings, **policy)
        assert caught.value.step == "fit"
        assert "flowkiln env lock" in (caught.value.hint or "")


def test_stale_is_an_error_when_locked_and_used_when_frozen(request_of: Request, settings: Settings) -> None:
    stand(request_of, replace(lock_of(request_of, AMD64), spec_id="sha256:" + "0" * 64))
    with pytest.raises(StaleLock):
        settle(request_of, settings, locked=True)
    assert settle(request_of, settings, frozen=True).python == "3.11"


def test_a_lock_without_this_machine_is_missing(request_of: Request, settings: Settings) -> None:
    stand(request_of, lock_of(request_of, ARM64))
    for policy in ({"locked": True}, {"frozen": True}):
        with pytest.raises(MissingLock, match="for linux/amd64"):
            settle(request_of, settings, **policy)


def test_an_absent_platform_is_told_with_its_reason_when_it_is_used(
    request_of: Request, settings: Settings
) -> None:
    absent = (AbsentPlatform(platform=AMD64, reason="no wheels"),)
    stand(request_of, replace(lock_of(request_of, ARM64), absent=absent))
    lock = settle(request_of, settings, locked=True)
    with pytest.raises(MissingLock, match="no wheels"):
        trees.part_for(lock, AMD64, steps=("fit",))


def test_platforms_of_the_settings_widen_what_names_none(request_of: Request, tmp_path: Path) -> None:
    told = settings_module.load(tmp_path, environ={"FLOWKILN_PLATFORMS": "darwin/arm64"})
    assert locks.widened(request_of, told).spec.platforms == (MAC,)
    own = replace(request_of, spec=replace(request_of.spec, platforms=(AMD64,)))
    assert locks.widened(own, told) == own


def test_prune_removes_what_is_no_longer_declared(request_of: Request) -> None:
    other = replace(request_of, name="old", steps=("old",))
    with request_of.folder.hold():
        request_of.folder.write({"fit": lock_of(request_of, AMD64), "old": lock_of(other, AMD64)})
    assert locks.prune(request_of.folder, {"fit"})[0] == ["old"]
    assert set(request_of.folder.read()) == {"fit"}
    assert not list(request_of.folder.path.glob("pylock.old-*"))


def test_a_floor_above_this_machines_glibc_is_refused_before_anything_is_looked_for(
    request_of: Request, settings: Settings, tmp_path: Path
) -> None:
    part = PlatformLock(platform=AMD64, python="3.99", wheels=(), glibc=(2, 99))
    for wanted in (
        lambda: trees.Host(settings).ensure([part], Silent()),
        lambda: trees.Host(settings).repair(part, Silent()),
    ):
        with pytest.raises(PlatformTooOld, match=r"needs glibc 2\.99; this machine has "):
            wanted()
    assert not (tmp_path / "cache" / "trees").exists()
