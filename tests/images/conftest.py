"""Fixtures of the tests of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.images.registries import Clients

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    """Makes clients of registries that wait in no time."""
    made = Clients(tmp_path / "nobody")
    yield made
    made.close()
