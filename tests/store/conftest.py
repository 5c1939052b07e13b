"""A store in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln.store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / ".flowkiln")
