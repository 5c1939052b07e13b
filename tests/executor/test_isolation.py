from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from flowkiln.executor import isolation

from .bench import Bench

Make = Callable[..., Bench]


def test_openblas_threads_do_not_hinder_forking(bench: Make) -> None:
    run = bench(
        "import numpy; a = numpy.ones((300, 300)); return float((a @ a).sum())",
        preload="import numpy; a = numpy.ones((300, 300)); a @ a",
        environ=(("OPENBLAS_NUM_THREADS", "2"),),
    )
    outcome = run.run_one()
    assert outcome.environment["isolation"] == "fork", outcome.environment
    assert outcome.artifacts["value"]["v"] == 300.0**3


def test_other_systems_never_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isolation.never_forks() is None or sys.platform != "linux"
    monkeypatch.setattr(sys, "platform", "darwin")
    reason = isolation.never_forks()
    assert reason is not None
    assert "darwin" in reason
