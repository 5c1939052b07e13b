"""A project that declares environments, and the index that its settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.declaring import project
from tests.services.wheels import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.home import Home
    from tests.services.index import PackageIndex


@pytest.fixture
def index(package_index: PackageIndex) -> PackageIndex:
    package_index.add(wheel("alpha", "1.0"), wheel("beta", "1.0", requires=["alpha"]))
    return package_index


@pytest.fixture
def folder(home: Home, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pyproject.toml names the index; the command is given from elsewhere unless a test says so."""
    place = tmp_path / "project"
    elsewhere = tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    project(place, index)
    return place
