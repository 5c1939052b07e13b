from __future__ import annotations

import sys

import pytest

from flowkiln.envs.errors import UnsupportedPython
from flowkiln.envs.pythons import NEWEST_PATCH, SUPPORTED, check, decide, full, minor

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_supported_versions_and_their_patches() -> None:
    assert SUPPORTED == ("3.11", "3.12", "3.13", "3.14", "3.15")
    assert full("3.11") == f"3.11.{NEWEST_PATCH['3.11']}"
    assert full("3.11.2") == "3.11.2"
    assert full("3.11", {"3.11": "3.11.7"}) == "3.11.7"
    assert minor("3.11.2") == minor("3.11") == "3.11"


@pytest.mark.parametrize(
    "text", ["3.10", "3.9.1", "2.7", "3.13t", "3.13.1t", "3.16", "3", "", "latest", "3.11.x", "4.0"]
)
def test_unsupported(text: str) -> None:
    with pytest.raises(UnsupportedPython) as caught:
        check(text)
    assert "3.11" in str(caught.value.hint)


def test_what_is_asked_for_wins() -> None:
    assert decide("3.13", None, "3.12") == "3.13"
    assert decide("3.13.1", ">=3.13", None) == "3.13.1"
    assert decide(None, None, "3.12") == "3.12"
    assert decide(None, None, None) == RUNNING
    assert decide(None, ">=3.14", "3.12") == "3.15"
    assert decide(None, ">=3.11,<3.13", "3.14") in {"3.11", "3.12"}


@pytest.mark.parametrize(("asked", "admitted"), [("3.11", ">=3.12"), (None, "<3.11"), (None, ">=3.16")])
def test_contradictions(asked: str | None, admitted: str) -> None:
    with pytest.raises(UnsupportedPython, match="requires-python"):
        decide(asked, admitted, None)
