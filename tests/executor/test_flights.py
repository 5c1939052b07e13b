from __future__ import annotations

from flowkiln.executor.flights import Flights
from flowkiln.executor.vocabulary import attempt_handle


def test_a_batch_is_forgotten_when_its_last_member_has_landed() -> None:
    flights = Flights()
    flights.launch(1, ((7, 0), (8, 2)))
    flights.accepted(1, "job")
    assert flights.resolve("job", 1) == (8, 2)
    assert flights.land(7) is not None
    assert [task for task, _ in flights.members(1)] == [8]
    flights.land(8)
    assert flights.resolve("job", 1) is None
    assert flights.land(8) is None
    assert len(flights) == 0


def test_a_handle_may_name_an_attempt() -> None:
    assert Flights().resolve(attempt_handle(12, 3), 0) == (12, 3)
    for strange in ("job", "1/", "/1", "a/b", "1/2/3", ""):
        assert Flights().resolve(strange, 0) is None


def test_only_the_present_attempt_is_in_flight() -> None:
    flights = Flights()
    flights.launch(1, ((7, 0),))
    flights.land(7)
    flights.launch(2, ((7, 1),))
    assert flights.get(7, 0) is None
    assert flights.get(7, 1) is not None
    assert list(flights.members(1)) == []


def test_an_answer_for_a_batch_that_has_landed_is_ignored() -> None:
    flights = Flights()
    flights.accepted(9, "job")
    assert flights.resolve("job", 0) is None
