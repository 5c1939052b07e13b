"""Real services for the tests, and what a test does where one cannot run."""

from __future__ import annotations

from typing import NoReturn

import pytest

from tests.services.home import MACHINE


def unavailable(reason: str) -> NoReturn:
    """Skips the test with ``reason``; with ``CI`` set that is a failure, so that nothing is skipped unseen."""
    if MACHINE.get("CI"):
        pytest.fail(f"CI runs every test: {reason}")
    pytest.skip(reason)
