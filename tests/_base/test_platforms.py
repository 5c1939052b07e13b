from __future__ import annotations

import pytest

from flowkiln._base import platforms
from flowkiln._base.platforms import Platform


@pytest.mark.parametrize(
    ("system", "machine", "translated", "expected"),
    [
        ("linux", "x86_64", False, "linux/amd64"),
        ("linux", "aarch64", False, "linux/arm64"),
        ("darwin", "arm64", False, "darwin/arm64"),
        ("darwin", "x86_64", False, "darwin/amd64"),
        ("darwin", "x86_64", True, "darwin/arm64"),
        ("linux", "AMD64", False, "linux/amd64"),
    ],
)
def test_host_platform_table(system: str, machine: str, translated: bool, expected: str) -> None:
    assert str(platforms.from_system(system, machine, translated=translated)) == expected


@pytest.mark.parametrize("text", ["linux/amd64", "linux-x86_64", "Linux/X86_64", "linux-amd64"])
def test_common_spellings_name_one_platform(text: str) -> None:
    assert Platform.parse(text) == Platform("linux", "amd64")


@pytest.mark.parametrize("text", ["", "linux", "windows/amd64", "linux/riscv64", "amd64/linux"])
def test_unknown_platform_names_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="linux/amd64, linux/arm64, darwin/arm64"):
        Platform.parse(text)


@pytest.mark.parametrize("machine", ["i686", "ppc64le", "armv7l"])
def test_unsupported_machine_is_not_taken_for_another(machine: str) -> None:
    with pytest.raises(ValueError, match="unknown platform"):
        platforms.from_system("linux", machine)


def test_host_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKILN_HOST_PLATFORM", "darwin/arm64")
    assert platforms.host() == Platform("darwin", "arm64")


@pytest.mark.parametrize("known", platforms.KNOWN, ids=str)
def test_text_and_slug_read_back(known: Platform) -> None:
    assert Platform.parse(str(known)) == known
    assert Platform.parse(known.slug) == known
