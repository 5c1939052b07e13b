"""Whether a pinned base carries an environment: both sides are named where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkiln._base.platforms import Platform
from flowkiln.envs.basepin import BaseFacts
from flowkiln.images import fitness
from flowkiln.images.errors import BaseLibraryUnfit, BaseOfAnotherPlatform, BasePythonDiffers, ImageError
from tests.images import made

ARM64 = Platform("linux", "arm64")
FACTS = made.pin().facts
NO_PYTHON = replace(FACTS, python=None, interpreter=None, stdlib=None)


@pytest.mark.parametrize(
    ("facts", "bounds"),
    [
        (FACTS, {}),
        (replace(FACTS, glibc=(2, 28)), {}),
        (replace(FACTS, glibc=(3, 0)), {}),
        (FACTS, {"python_minimum": "3.11.2", "python_below": "3.11.3"}),
        (replace(FACTS, python="3.11.10"), {"python_minimum": "3.11.9"}),
        (replace(FACTS, libc="musl", glibc=None), {"glibc": None}),
    ],
)
def test_a_base_that_fits(facts: BaseFacts, bounds: dict[str, object]) -> None:
    part = replace(made.part(), **bounds)  # type: ignore[arg-type]
    fitness.check(replace(made.pin(), facts=facts), part, name="fit")


PYTHON, LIBRARY = BasePythonDiffers, BaseLibraryUnfit
BASE, FIT = "base python:3.11-slim", "environment 'fit' needs"


@pytest.mark.parametrize(
    ("facts", "bounds", "kind", "said", "hint"),
    [
        (NO_PYTHON, {}, PYTHON, f"{BASE} has no Python, {FIT} 3.11", "python:3.11-slim"),
        (replace(FACTS, python="3.13.1"), {}, PYTHON, f"{BASE} has Python 3.13.1, {FIT} 3.11", "python:3.11-slim"),
        (
            FACTS,
            {"python_minimum": "3.11.4"},
            PYTHON,
            f"{BASE} has Python 3.11.2, {FIT} 3.11 (>= 3.11.4)",
            "python:3.11-slim",
        ),
        (
            replace(FACTS, python="3.11.10"),
            {"python_below": "3.11.9"},
            PYTHON,
            f"{BASE} has Python 3.11.10, {FIT} 3.11 (< 3.11.9)",
            "python:3.11.8-slim",
        ),
        (replace(FACTS, glibc=(2, 17)), {}, LIBRARY, f"{BASE} has glibc 2.17, {FIT} glibc 2.28", "lower floor"),
        (
            replace(FACTS, libc="musl", glibc=None),
            {},
            LIBRARY,
            f"{BASE} has musl, as Alpine Linux does; {FIT} glibc 2.28",
            "python:3.11-slim",
        ),
        (
            replace(FACTS, glibc=None),
            {},
            LIBRARY,
            f"{BASE} does not say which glibc it has; {FIT} glibc 2.28",
            "python:3.11-slim",
        ),
        (
            replace(FACTS, libc="none", glibc=None),
            {},
            LIBRARY,
            f"{BASE} has no C library; {FIT} glibc 2.28",
            "python:3.11-slim",
        ),
    ],
)
def test_a_base_that_does_not_fit(
    facts: BaseFacts, bounds: dict[str, object], kind: type[ImageError], said: str, hint: str
) -> None:
    part = replace(made.part(), **bounds)  # type: ignore[arg-type]
    with pytest.raises(kind) as caught:
        fitness.check(replace(made.pin(), facts=facts), part, name="fit")
    assert caught.value.message == said
    assert hint in (caught.value.hint or "")


def test_a_pin_of_another_platform() -> None:
    with pytest.raises(
        BaseOfAnotherPlatform, match=r"is pinned for linux/arm64, environment 'fit' needs linux/amd64"
    ):
        fitness.check(replace(made.pin(), platform=ARM64), made.part(), name="fit")
