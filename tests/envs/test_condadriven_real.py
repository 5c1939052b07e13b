"""A real conda, driven by the real conda-lock: it chooses, keeps, moves and refuses as the built-in solver does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flowkiln.envs.condaerrors import CondaConflict
from flowkiln.envs.condasolve import ask
from tests.envs.condasolving import chosen, conda_solver, made, question
from tests.envs.test_condadriven import CASES, driven, solved
from tests.services.condapackages import package
from tests.services.realconda import conda

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.channel import Channel

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.slow]


@pytest.fixture(scope="module")
def program() -> Path:
    return conda()


@pytest.fixture
def channel(tmp_path: Path) -> Channel:
    return made(
        tmp_path / "channel",
        ("demo", "1.0", {"depends": ["leaf >=1"]}),
        ("demo", "2.0", {"depends": ["leaf >=2"]}),
        ("leaf", "1.0"),
        ("leaf", "2.0"),
        ("apart", "1.0"),
        ("openssl", "1.0"),
        ("gpu", "1.0", {"depends": ["__cuda >=12"]}),
        ("old-leaf", "1.0", {"depends": ["leaf <2"]}),
    )


@pytest.mark.parametrize("number", [0, 3, 9])
def test_it_chooses_the_same(number: int, conda_channel: Channel, program: Path) -> None:
    specs, platform, options = CASES[number]
    wanted, solver = question(*specs, platform=platform, **options), conda_solver(conda_channel.url)
    assert ask(driven(solver, program), wanted) == ask(solver, wanted)


def test_it_keeps_an_earlier_lock_and_moves_what_is_named(channel: Channel, program: Path) -> None:
    url, asked = channel.url, ("demo", "apart", "openssl")
    before = solved(url, program, "demo ==1.0", "leaf ==1.0", *asked[1:]).packages
    for name in asked[1:]:
        package(channel.folder, name, "2.0")
    channel.index()
    old = {"apart": "1.0", "openssl": "1.0"}
    assert chosen(solved(url, program, *asked, preferred=before)) == {"demo": "1.0", "leaf": "1.0", **old}
    leaf = solved(url, program, *asked, preferred=before, upgrade=frozenset({"leaf"}))
    assert chosen(leaf) == {"demo": "1.0", "leaf": "2.0", **old}
    demo = solved(url, program, *asked, preferred=before, upgrade=frozenset({"demo"}))
    assert chosen(demo) == {"demo": "2.0", "leaf": "2.0", **old}
    every = solved(url, program, *asked, preferred=before, upgrade=True)
    assert chosen(every) == {"demo": "2.0", "leaf": "2.0", "apart": "2.0", "openssl": "2.0"}


@pytest.mark.parametrize(
    ("specs", "parts", "hint"),
    [
        (("dmeo",), ["dmeo"], "spelling of dmeo"),
        (("gpu",), ["__cuda", "gpu"], "cuda="),
        (("old-leaf", "demo >=2"), ["old-leaf", "leaf"], ""),
    ],
)
def test_its_refusals_keep_its_words(
    specs: tuple[str, ...], parts: list[str], hint: str, channel: Channel, program: Path
) -> None:
    with pytest.raises(CondaConflict) as caught:
        solved(channel.url, program, *specs)
    said = caught.value.message.partition("Assumed:")[0]
    for part in parts:
        assert part in said
    assert hint in str(caught.value.hint)
    assert "scratch" not in said
