from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowkiln._base import settings
from flowkiln._base.platforms import host
from flowkiln._base.report import Silent
from flowkiln.envs import driver
from flowkiln.envs.installerrors import DriverTooOld
from flowkiln.envs.lock import PlatformLock
from flowkiln.wiring import trees
from tests.cli.declaring import run
from tests.envs import condalocks
from tests.services.home import Home

CLOSED = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  12.3\n"
)
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.86.10  Release Build  (root@host)\n"


def part(*virtual: tuple[str, str]) -> PlatformLock:
    return replace(condalocks.part(), virtual=virtual)


def told(folder: Path, text: str) -> Path:
    path = folder / "version"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (CLOSED, "535.104.05"),
        (OPEN, "570.86.10"),
        ("NVRM version: something else 12\n", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_either_kernel_module(tmp_path: Path, text: str, version: str | None) -> None:
    assert driver.found(told(tmp_path, text)) == version
    assert driver.found(tmp_path / "absent") is None


@pytest.mark.parametrize(("cuda", "fits"), [("12.0", True), ("12.2", True), ("12.3", False), ("12.4", False)])
def test_a_driver_is_held_against_the_cuda_of_the_lock(tmp_path: Path, cuda: str, fits: bool) -> None:
    file = told(tmp_path, CLOSED)
    if fits:
        driver.check(part(("cuda", cuda)), file)
        return
    with pytest.raises(DriverTooOld, match=rf"CUDA {cuda}, which needs .* or newer; this machine has 535\.104\.05"):
        driver.check(part(("cuda", cuda)), file)


def test_what_is_not_known_is_no_refusal(tmp_path: Path) -> None:
    driver.check(part(("cuda", "12.4")), tmp_path / "absent")
    driver.check(part(("cuda", "99.9")), told(tmp_path, CLOSED))
    driver.check(part(("glibc", "2.28")), told(tmp_path, CLOSED))


def test_a_step_is_refused_before_anything_is_made(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(driver, "KERNEL_FILE", told(tmp_path, CLOSED))
    mine = replace(condalocks.part(), platform=host(), virtual=(("cuda", "12.4"),))
    lock = replace(condalocks.lock(), platforms=(mine,))
    with pytest.raises(DriverTooOld, match=r"550\.54\.14") as caught:
        trees.prefixes({"start": None, "fit": lock}, settings.load(tmp_path), Silent())
    assert caught.value.step == "fit"
    assert not (home.cache / "trees").exists()


def test_doctor_shows_the_driver(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "KERNEL_FILE", told(tmp_path, OPEN))
    run("doctor", "--offline")
    assert "NVIDIA driver 570.86.10" in capsys.readouterr().out
