from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.platforms import Platform
from flowkiln.envs.wheels import Target, tags_of

AMD64 = Target(Platform("linux", "amd64"), "3.11", (2, 28))
ARM64 = Target(Platform("linux", "arm64"), "3.11", (2, 28))
MAC = Target(Platform("darwin", "arm64"), "3.11", None)


@pytest.mark.parametrize(
    ("floor", "wanted"),
    [
        ((2, 17), "2_17"),
        ((2, 27), "2_17"),
        ((2, 28), "2_28"),
        ((2, 30), "2_28"),
        ((2, 31), "2_31"),
        ((2, 99), "2_40"),
    ],
)
def test_uv_gets_the_highest_manylinux_it_knows_below_the_floor(floor: tuple[int, int], wanted: str) -> None:
    target = Target(Platform("linux", "arm64"), "3.12", floor)
    assert target.uv_platform == f"aarch64-manylinux_{wanted}"


def test_uv_names_of_macs() -> None:
    assert MAC.uv_platform == "aarch64-apple-darwin"
    assert Target(Platform("darwin", "amd64"), "3.11", None).uv_platform == "x86_64-apple-darwin"


@pytest.mark.parametrize(
    ("target", "tags", "fits"),
    [
        (AMD64, "cp311-cp311-manylinux_2_28_x86_64", True),
        (AMD64, "cp311-cp311-manylinux_2_29_x86_64", False),
        (AMD64, "cp311-cp311-manylinux1_x86_64", True),
        (AMD64, "cp311-cp311-manylinux_2_28_aarch64", False),
        (AMD64, "cp311-cp311-musllinux_1_2_x86_64", False),
        (AMD64, "cp311-cp311-linux_x86_64", True),
        (AMD64, "cp39-abi3-manylinux2014_x86_64", True),
        (AMD64, "cp312-abi3-manylinux2014_x86_64", False),
        (AMD64, "cp311-cp311t-manylinux2014_x86_64", False),
        (AMD64, "py3-none-any", True),
        (AMD64, "py2.py3-none-any", True),
        (AMD64, "py2-none-any", False),
        (AMD64, "cp310-cp310-manylinux2014_x86_64", False),
        (AMD64, "cp311-cp311-win_amd64", False),
        (ARM64, "cp311-cp311-manylinux2014_aarch64", True),
        (ARM64, "cp311-cp311-manylinux1_aarch64", False),
        (MAC, "cp311-cp311-macosx_11_0_arm64", True),
        (MAC, "cp311-cp311-macosx_14_0_arm64", True),
        (MAC, "cp311-cp311-macosx_15_0_arm64", False),
        (MAC, "cp311-cp311-macosx_10_9_universal2", True),
        (MAC, "cp311-cp311-macosx_11_0_x86_64", False),
        (AMD64, "nonsense", False),
    ],
)
def test_what_fits(target: Target, tags: str, fits: bool) -> None:
    assert (target.rank(f"a-1.0-{tags}.whl") is not None) is fits


BEST_FIRST = [
    "a-1.0-2-cp311-cp311-manylinux_2_28_x86_64.whl",
    "a-1.0-1-cp311-cp311-manylinux_2_28_x86_64.whl",
    "a-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "a-1.0-cp311-abi3-manylinux_2_28_x86_64.whl",
    "a-1.0-cp39-abi3-manylinux_2_17_x86_64.whl",
    "a-1.0-py3-none-manylinux_2_17_x86_64.whl",
    "a-1.0-py3-none-any.whl",
]


@given(st.sets(st.sampled_from(BEST_FIRST), min_size=1), st.randoms())
def test_the_best_tag_wins_in_any_order(chosen: set[str], random: object) -> None:
    shuffled = sorted(chosen)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert AMD64.best([*shuffled, "a-1.0-cp311-cp311-win_amd64.whl", "not a wheel"]) == min(
        chosen, key=BEST_FIRST.index
    )


def test_nothing_fits() -> None:
    assert AMD64.best(["a-1.0-cp312-cp312-manylinux_2_17_x86_64.whl"]) is None
    assert AMD64.best([]) is None


def test_the_tag_part_of_a_name() -> None:
    assert tags_of("a_b-1.0-1-cp311-cp311-manylinux_2_28_x86_64.whl") == "cp311-cp311-manylinux_2_28_x86_64"
