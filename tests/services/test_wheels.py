"""The wheel factory: good wheels are good, broken ones are broken exactly where asked."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest
from installer.sources import WheelFile
from installer.utils import parse_wheel_filename

from tests.services.wheels import Member, link, sdist, understated, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.wheels import RecordFault


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


def test_equal_arguments_give_equal_bytes() -> None:
    assert wheel("demo", "1.0", requires=["x"]).data == wheel("demo", "1.0", requires=["x"]).data
    assert sdist("demo").data == sdist("demo").data


def test_good_wheel_satisfies_the_reference_reader(tmp_path: Path) -> None:
    made = wheel(
        "Demo-Pkg",
        "1.0",
        tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        console={"demo": "demo_pkg:main"},
        extras={"fast": ["speed; python_version>'3'"]},
    )
    assert parse_wheel_filename(made.filename).distribution == "Demo_Pkg"
    with WheelFile.open(made.write(tmp_path)) as source:
        source.validate_record()
    assert b"Requires-Dist: speed ; (python_version>'3') and extra == 'fast'" in made.metadata


@pytest.mark.parametrize("fault", ["wrong-hash", "omits", "no-hash", "missing"])
def test_broken_record_is_refused_by_the_reference_reader(fault: RecordFault, tmp_path: Path) -> None:
    made = wheel("demo", record=fault)
    with WheelFile.open(made.write(tmp_path)) as source, pytest.raises(Exception, match=r"(?i)record"):
        source.validate_record()


def test_two_members_of_one_name_and_a_link() -> None:
    made = wheel("demo", members=[Member("demo/a.py", b"1"), Member("demo/a.py", b"2"), link("demo/l", "/etc")])
    assert names(made.data).count("demo/a.py") == 2
    assert "demo/l" in names(made.data)


def test_understated_size_changes_what_the_archive_declares() -> None:
    made = understated(wheel("demo", files={"demo/big.bin": bytes(5000)}), "demo/big.bin", 10)
    with zipfile.ZipFile(io.BytesIO(made.data)) as archive:
        assert archive.getinfo("demo/big.bin").file_size == 10
