from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkiln.executor.memory import MemoryKills, memory_limit

from .bench import Bench
from .test_child import failure

Make = Callable[..., Bench]


def counters(kills: MemoryKills, path: Path, count: int) -> None:
    path.write_text(f"low 0\noom 3\noom_kill {count}\n")
    kills._sources = [path]


def test_a_kill_is_told_once(tmp_path: Path) -> None:
    kills = MemoryKills()
    counters(kills, tmp_path / "events", 4)
    kills.happened()
    assert not kills.happened()
    counters(kills, tmp_path / "events", 5)
    text = kills.explain(3 << 30)
    assert text is not None
    assert "lack of memory" in text
    assert "3.0 GiB of " in text
    counters(kills, tmp_path / "events", 6)
    assert "96 MiB of " in str(kills.explain(96 << 20))
    assert kills.explain(0) is None


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    kills = MemoryKills()
    kills._sources = [tmp_path / "absent"]
    assert not kills.happened()


def test_the_limit_is_known_here() -> None:
    limit = memory_limit()
    assert limit is None or limit > 1 << 20


@pytest.mark.parametrize(("grown", "cause"), [(True, "out-of-memory"), (False, "signal")])
def test_a_sigkill_is_for_memory_when_the_kernel_says_so(
    bench: Make, tmp_path: Path, grown: bool, cause: str
) -> None:
    run = bench("import signal; os.kill(os.getpid(), signal.SIGKILL)")
    kills = run.backend._memory
    counters(kills, tmp_path / "events", 1)
    kills.happened()
    counters(kills, tmp_path / "events", 2 if grown else 1)
    found = failure(run.run_one())
    assert (found.failure_class, found.cause, found.signal) == ("user", cause, signal.SIGKILL)
