from __future__ import annotations

import threading

import pytest

from flowkiln.envs.spread import spread


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 200])
def test_results_are_in_order(threads: int | None, count: int) -> None:
    assert spread(lambda number: number * 2, range(count), threads=threads) == [
        number * 2 for number in range(count)
    ]


def test_several_threads_work() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(spread(lambda _: meeting.wait(), [1, 2, 3], threads=3)) == 3


def test_the_first_error_is_raised_and_ends_the_work() -> None:
    done: list[int] = []

    def some(number: int) -> None:
        if number == 3:
            raise ValueError(number)
        done.append(number)

    with pytest.raises(ValueError, match="3"):
        spread(some, range(1000), threads=1)
    assert done == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        spread(lambda _: (_ for _ in ()).throw(KeyboardInterrupt), [1, 2], threads=2)
