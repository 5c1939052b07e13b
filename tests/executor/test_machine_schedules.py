"""The state machine under random schedules: nothing lost, nothing doubled, every run ends. Case J04."""

from __future__ import annotations

import pytest

from tests.executor.simulation import Faults, World

CALM = Faults()
FAILING = Faults(fail=0.05)
KILLS = Faults(kill=0.03, vanish=0.03, fail=0.02, repeat=0.2)
STORM = Faults(kill=0.02, lose=0.15, repeat=0.2, refuse=0.15, unknown=0.15, vanish=0.05, cancel=0.0005, fail=0.02)
CANCELS = Faults(cancel=0.02, kill=0.02, repeat=0.2, lose=0.1, unknown=0.1, refuse=0.1)

KINDS = [
    ("calm", CALM, False),
    ("failing", FAILING, False),
    ("killed-launchers", KILLS, False),
    ("cancelled", CANCELS, False),
    ("durable-storm", STORM, True),
    ("durable-cancelled", CANCELS, True),
]


def play(faults: Faults, durable: bool, seeds: range) -> dict[str, int]:
    ends: dict[str, int] = {}
    for seed in seeds:
        world = World(seed, durable=durable, faults=faults)
        try:
            world.play()
        except Exception as error:
            error.add_note(f"seed {seed}, durable {durable}, {faults}")
            raise
        ends[world.records.closed or ""] = ends.get(world.records.closed or "", 0) + 1
    return ends


@pytest.mark.parametrize(("name", "faults", "durable"), KINDS, ids=[kind[0] for kind in KINDS])
def test_j04_a_hundred_schedules(name: str, faults: Faults, durable: bool) -> None:
    play(faults, durable, range(100))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "faults", "durable"), KINDS, ids=[kind[0] for kind in KINDS])
def test_j04_ten_thousand_schedules(name: str, faults: Faults, durable: bool) -> None:
    ends = play(faults, durable, range(100, 1767))
    assert sum(ends.values()) == 1667
