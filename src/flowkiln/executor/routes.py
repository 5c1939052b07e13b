"""A backend made of two: steps with an image run in containers, the others as processes of this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowkiln.executor.vocabulary import Observed, Sealed, attempt_handle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.docker import DockerBackend
    from flowkiln.executor.plan import RunPlan
    from flowkiln.executor.process import ProcessBackend
    from flowkiln.executor.vocabulary import Event


class Routed:
    """Implements ``backend.DurableBackend`` for a plan whose steps run in different places.

    Processes end with their launcher: ``find`` knows those of this one alone. Waiting for both kinds is waiting for
    the processes: a byte in a pipe wakes it when something comes from the containers.
    """

    def __init__(self, plan: RunPlan, processes: ProcessBackend, containers: DockerBackend) -> None:
        self._contained = {step.name for step in plan.steps if step.image is not None}
        self._processes = processes
        self._containers = containers
        self._here: set[tuple[int, int]] = set()
        self._wake, self._bell = os.pipe()
        for descriptor in (self._wake, self._bell):
            os.set_blocking(descriptor, False)
        processes.wake_by(self._wake)
        containers.mailbox.ring(self._bell)

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Hands the attempts, all of one step, to the backend of their step."""
        if assignments[0].step in self._contained:
            self._containers.submit(assignments)
            return
        self._here.update((one.task, one.attempt) for one in assignments)
        self._processes.submit(assignments)

    def poll(self, timeout: float) -> list[Event]:
        """What happened on either side, waiting up to ``timeout`` seconds for the first event."""
        events = self._containers.poll(0.0)
        events += self._noted(self._processes.poll(0.0 if events else timeout))
        return events or self._containers.poll(0.0)

    def cancel(self, task: int, attempt: int) -> None:
        """Begins to end an attempt where it runs."""
        if (task, attempt) in self._here:
            self._processes.cancel(task, attempt)
        else:
            self._containers.cancel(task, attempt)

    def find(self, batch: int, members: Sequence[tuple[int, int]]) -> None:
        """Looks for attempts among the containers; processes of this launcher are known to be here."""
        for member in self._here.intersection(members):
            self._containers.mailbox.put(Observed(attempt_handle(*member), 0, "running"))
        elsewhere = [member for member in members if member not in self._here]
        if elsewhere:
            self._containers.find(batch, elsewhere)

    def prewarm(self, step: str) -> None:
        """Starts the template of a step that runs as a process."""
        if step not in self._contained:
            self._processes.prewarm(step)

    def close(self) -> None:
        """Closes both."""
        try:
            self._containers.close()
        finally:
            self._processes.close()
            self._containers.mailbox.ring(None)
            for descriptor in (self._wake, self._bell):
                if descriptor >= 0:
                    os.close(descriptor)
            self._wake = self._bell = -1

    def _noted(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, Sealed):
                self._here.discard((event.task, event.attempt))
        return events
