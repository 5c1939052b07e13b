"""The attempts that are with the backend, and what is known and doubted of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class Flight:
    """One attempt between submission and seal.

    ``began``: its ``begin`` record was seen. ``seen``: the backend knows it. ``absent``: the backend's whole
    list lacks it. ``inherited``: a former driver submitted it. ``doubted``: a grace period runs, after which
    it counts as lost, with ``evidence`` as the reason. ``cancels`` counts requests to end it.
    """

    attempt: int
    batch: int
    began: bool = False
    seen: bool = False
    absent: bool = False
    inherited: bool = False
    doubted: bool = False
    cancels: int = 0
    evidence: str = ""


class Flights:
    """The flights by task, their batches and the backend's handles."""

    def __init__(self) -> None:
        self._flights: dict[int, Flight] = {}
        self._members: dict[int, tuple[tuple[int, int], ...]] = {}
        self._left: dict[int, int] = {}
        self._batch_of: dict[str, int] = {}
        self._handle_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __iter__(self) -> Iterator[tuple[int, Flight]]:
        return iter(list(self._flights.items()))

    def get(self, task: int, attempt: int) -> Flight | None:
        """The flight of that very attempt."""
        flight = self._flights.get(task)
        return flight if flight is not None and flight.attempt == attempt else None

    def launch(self, batch: int, members: tuple[tuple[int, int], ...]) -> None:
        """Adds the (task, attempt) members of a new batch."""
        self._members[batch] = members
        self._left[batch] = len(members)
        for task, attempt in members:
            self._flights[task] = Flight(attempt, batch)

    def adopt(self, task: int, attempt: int, batch: int) -> Flight:
        """Adds a flight that a former driver submitted in ``batch`` (0: not in a batch)."""
        flight = self._flights[task] = Flight(attempt, batch, inherited=True)
        return flight

    def accepted(self, batch: int, handle: str) -> None:
        """Notes the backend's handle of a batch that is still in flight."""
        if batch in self._members:
            self._batch_of[handle] = batch
            self._handle_of[batch] = handle

    def members(self, batch: int) -> Iterator[tuple[int, Flight]]:
        """The flights of ``batch`` that are left."""
        for task, attempt in self._members.get(batch, ()):
            flight = self.get(task, attempt)
            if flight is not None and flight.batch == batch:
                yield task, flight

    def land(self, task: int) -> Flight | None:
        """Takes the task's flight out and returns it, None if there was none."""
        flight = self._flights.pop(task, None)
        if flight is not None and flight.batch in self._left:
            self._left[flight.batch] -= 1
            if not self._left[flight.batch]:
                self._forget(flight.batch)
        return flight

    def resolve(self, handle: str, index: int) -> tuple[int, int] | None:
        """The (task, attempt) that a backend means by a handle and an index, None if it is not known."""
        batch = self._batch_of.get(handle)
        if batch is not None:
            members = self._members[batch]
            return members[index] if 0 <= index < len(members) else None
        task, slash, attempt = handle.partition("/")
        return (int(task), int(attempt)) if slash and task.isdecimal() and attempt.isdecimal() else None

    def _forget(self, batch: int) -> None:
        del self._members[batch], self._left[batch]
        handle = self._handle_of.pop(batch, None)
        if handle is not None:
            self._batch_of.pop(handle, None)
