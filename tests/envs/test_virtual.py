from __future__ import annotations

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs import virtual
from flowkiln.envs.errors import UnknownOption
from tests.envs.locking import AMD64, ARM64, MAC

INTEL_MAC = Platform("darwin", "amd64")


def shown(platform: Platform, **more: tuple[tuple[str, str], ...]) -> set[str]:
    found = virtual.assumed(platform, glibc=(2, 28), **more)
    return {f"{one.name}={one.version}={one.build}" for one in found}


def test_a_platform_has_its_virtual_packages() -> None:
    linux = {"__unix=0=0", "__linux=5.10=0", "__glibc=2.28=0"}
    assert shown(AMD64) == {*linux, "__archspec=1=x86_64"}
    assert shown(ARM64) == {*linux, "__archspec=1=aarch64"}
    assert shown(MAC) == {"__unix=0=0", "__osx=14.0=0", "__archspec=1=m1"}
    assert shown(INTEL_MAC) == {"__unix=0=0", "__osx=14.0=0", "__archspec=1=x86_64"}


def test_the_request_adds_and_replaces_and_a_mac_has_no_cuda() -> None:
    own = (("cuda", "12.4"), ("linux", "6.1"), ("archspec", "x86_64_v3"))
    assert {"__cuda=12.4=0", "__linux=6.1=0", "__archspec=1=x86_64_v3"} < shown(AMD64, own=own)
    assert not any("cuda" in one for one in shown(MAC, own=(("cuda", "12.4"),)))


def test_nothing_of_this_machine_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {platform: virtual.assumed(platform, glibc=(2, 28)) for platform in (AMD64, ARM64, MAC)}
    for name in ("CUDA", "GLIBC", "LINUX", "OSX", "ARCHSPEC"):
        monkeypatch.setenv(f"CONDA_OVERRIDE_{name}", "99.9")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    assert {platform: virtual.assumed(platform, glibc=(2, 28)) for platform in before} == before


def test_a_lock_records_names_without_underscores_and_each_says_its_origin() -> None:
    found = {one.pair: str(one) for one in virtual.assumed(AMD64, glibc=(2, 34), own=(("cuda", "12"),))}
    assert found["glibc", "2.34"] == "__glibc 2.34 (glibc)"
    assert found["cuda", "12"] == "__cuda 12 (cuda)"
    assert found["archspec", "x86_64"] == "__archspec x86_64 (linux/amd64)"


@pytest.mark.parametrize("own", [("cuda", "new"), ("cuda", ""), ("__cuda", "12"), ("CUDA", "12")])
def test_what_is_no_virtual_package_is_refused(own: tuple[str, str]) -> None:
    with pytest.raises(UnknownOption):
        virtual.assumed(AMD64, glibc=(2, 28), own=(own,))
