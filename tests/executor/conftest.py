from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .bench import Bench, worker


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs of a session, so that the runtime folder is made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Iterator[Callable[..., Bench]]:
    """Makes one run whose step has the given body; closed at the end of the test."""
    made: list[Bench] = []

    def make(
        body: str = "", *, script: str | None = None, head: str = "", preload: str = "pass", **more: Any
    ) -> Bench:
        folder = tmp_path / f"run{len(made)}"
        folder.mkdir()
        text = worker(body, head=head, preload=preload) if script is None else script
        made.append(Bench(folder, more.pop("cache", cache), text, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
