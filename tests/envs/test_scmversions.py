"""The version that the tags of a repository give, as setuptools-scm would guess it."""

from __future__ import annotations

import pytest

from flowkiln.envs import scmversions


@pytest.mark.parametrize(
    ("described", "version"),
    [
        ("v1.2-0-gabc1234", "1.2"),
        ("1.2.3-0-gabc1234", "1.2.3"),
        ("v1.2-3-gabc1234", "1.3.dev3+gabc1234"),
        ("v1.2.3-10-gabc1234", "1.2.4.dev10+gabc1234"),
        ("v2.0rc1-2-gabc1234", "2.0rc2.dev2+gabc1234"),
        ("mylib-0.4-1-gabc1234", "0.5.dev1+gabc1234"),
        ("release-1-gabc1234", "0.1.dev0+gfedcba9"),
        (None, "0.1.dev0+gfedcba9"),
        ("nonsense", "0.1.dev0+gfedcba9"),
    ],
)
def test_versions(described: str | None, version: str) -> None:
    assert scmversions.of(described, "fedcba9876543210") == version


def test_back_ends_are_told() -> None:
    assert scmversions.variables("1.2")["SETUPTOOLS_SCM_PRETEND_VERSION"] == "1.2"
    assert scmversions.variables(None) == {}


def test_the_history_is_fetched_for_those_alone_that_ask() -> None:
    assert scmversions.asked_by(["setuptools", "setuptools-scm"])
    assert not scmversions.asked_by(["setuptools", "wheel"])
