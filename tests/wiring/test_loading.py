"""A flow class from its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.wiring.errors import NotAFlow
from flowkiln.wiring.loading import load

BASE = "from flowkiln import FlowSpec, step\n"


def test_the_one_flow_is_found_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        BASE
        + "class Base(FlowSpec):\n    pass\nclass One(Base):\n    pass\nif __name__ == '__main__':\n    One()\n"
    )
    assert load(path).__name__ == "One"


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_flow.py").write_text("from flowkiln import FlowSpec\nNAME = 'x'\n")
    path = tmp_path / "two.py"
    path.write_text("from beside_the_flow import NAME, FlowSpec\nclass Two(FlowSpec):\n    name_of = NAME\n")
    assert load(path).__name__ == "Two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "declares no flow"),
        (BASE, "declares no flow"),
        (BASE + "class A(FlowSpec):\n    pass\nclass B(FlowSpec):\n    pass\n", "several flows: A, B"),
        ("import nonesuch_at_all\n", ":1: ModuleNotFoundError"),
        ("x = 1\nraise RuntimeError('no')\n", ":2: RuntimeError: no"),
        ("def broken(:\n", ":1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", ":2: SystemExit: 3"),
    ],
)
def test_what_is_no_flow_file_says_why_and_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(NotAFlow) as caught:
        load(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
