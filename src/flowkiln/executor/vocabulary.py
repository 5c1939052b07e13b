"""The closed vocabulary between the run state machine and its driver: events go in, instructions come out.

Only ``Sealed`` advances the graph. Events may come late, twice or never; instructions may be repeated. Times are
seconds of the driver's clock unless a name says otherwise. They are named tuples because two dozen frozen data
classes would cost every start of the launcher more than ten milliseconds: tell them apart by type, not by value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.outcome import Cause, FailureClass, Outcome

Phase = Literal["waiting", "running", "succeeded", "failed"]
TimerKind = Literal["retry", "grace", "resubmit", "kill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the state machine needs of an outcome: whether it succeeded, where it leads, why it failed.

    ``started`` and ``ended`` are microseconds since the epoch. ``takeover`` says that the attempt was given up
    because its driver had gone.
    """

    ok: bool
    targets: tuple[str, ...] = ()
    width: int | None = None
    caught: bool = False
    failure_class: FailureClass | None = None
    cause: Cause | None = None
    text: str = ""
    takeover: bool = False
    started: int = 0
    ended: int = 0

    @classmethod
    def of(cls, outcome: Outcome) -> Verdict:
        """The verdict of a sealed outcome."""
        transition, failure = outcome.transition, outcome.failure
        return cls(
            ok=outcome.ok,
            targets=() if transition is None else transition.targets,
            width=None if transition is None else transition.width,
            caught=outcome.caught,
            failure_class=None if failure is None or outcome.ok else failure.failure_class,
            cause=None if failure is None else failure.cause,
            text="" if failure is None else failure.text,
            takeover="takeover" in outcome.execution,
            started=outcome.started,
            ended=outcome.ended,
        )


def attempt_handle(task: int, attempt: int) -> str:
    """The handle of an attempt that is tracked by itself, not as a member of a batch; its index is 0."""
    return f"{task}/{attempt}"


# -- events ----------------------------------------------------------------------------------------------------


class RunOpened(NamedTuple):
    """The run's record exists; the parameters are sealed as task 0."""


class DriverTook(NamedTuple):
    """A driver took the run over and has replayed the journal; ``epoch`` counts drivers from 0."""

    epoch: int


class SubmitAccepted(NamedTuple):
    """The backend has the batch. ``handle`` is its own name for it, used in observations."""

    batch: int
    handle: str


class SubmitRefused(NamedTuple):
    """The backend did not take the batch and never will; ``final`` says that repeating it is pointless."""

    batch: int
    reason: str
    final: bool = False


class SubmitUnknown(NamedTuple):
    """The answer to a submission was lost: the batch may or may not be with the backend."""

    batch: int


class Began(NamedTuple):
    """The attempt's ``begin`` record exists: user code may be running."""

    task: int
    attempt: int


class Sealed(NamedTuple):
    """The attempt's one outcome exists in the store, and this is its verdict."""

    task: int
    attempt: int
    outcome: Verdict


class Observed(NamedTuple):
    """The backend says in which phase member ``array_index`` of ``handle`` is. A hint, never a result.

    ``evidence`` is the platform's own text. ``handle`` may be an ``attempt_handle``.
    """

    handle: str
    array_index: int
    phase: Phase
    evidence: str = ""


class Absent(NamedTuple):
    """The backend does not know member ``array_index`` of ``handle``; ``complete`` if its list was whole."""

    handle: str
    array_index: int
    complete: bool


class ObservationLost(NamedTuple):
    """The backend lost sight of its attempts for a while: events may be missing."""


class TimerFired(NamedTuple):
    """The time asked for by ``SetTimer(kind, task, attempt)`` has come."""

    kind: TimerKind
    task: int
    attempt: int


class CancelAsked(NamedTuple):
    """The run is to end now, because it was cancelled from elsewhere or its driver was interrupted."""

    how: Literal["cancelled", "interrupted"]


class CancelConfirmed(NamedTuple):
    """The backend has ended the attempt; its outcome may or may not have been sealed."""

    task: int
    attempt: int


Event = (
    RunOpened
    | DriverTook
    | SubmitAccepted
    | SubmitRefused
    | SubmitUnknown
    | Began
    | Sealed
    | Observed
    | Absent
    | ObservationLost
    | TimerFired
    | CancelAsked
    | CancelConfirmed
)


# -- instructions ----------------------------------------------------------------------------------------------


class Append(NamedTuple):
    """Append ``entry`` to the journal before performing anything that follows it."""

    entry: JSONObject


class Submit(NamedTuple):
    """Hand attempts of one step to the backend; answer with SubmitAccepted, -Refused or -Unknown."""

    batch: int
    step: str
    assignments: tuple[Assignment, ...]


class Find(NamedTuple):
    """Look whether the backend has these (task, attempt) members of a batch; answer with Observed or Absent.

    ``batch`` is 0 for attempts that are known by their ``begin`` record only.
    """

    batch: int
    members: tuple[tuple[int, int], ...]


class Probe(NamedTuple):
    """Read the attempt's records; answer with Sealed or Began if they exist.

    In a replay the answer to neither is ``Absent(attempt_handle(task, attempt), 0, complete=True)``.
    """

    task: int
    attempt: int


class Seal(NamedTuple):
    """Create the attempt's outcome with this failure unless one exists; answer with the Sealed that holds.

    ``takeover`` marks an attempt that went away with its driver: it costs nobody a retry.
    """

    task: int
    attempt: int
    failure_class: FailureClass
    cause: Cause
    text: str
    takeover: bool = False


class Cancel(NamedTuple):
    """Ask the backend to end the attempt."""

    task: int
    attempt: int


class SetTimer(NamedTuple):
    """Answer with TimerFired once ``at`` has passed."""

    kind: TimerKind
    task: int
    attempt: int
    at: float


class Report(NamedTuple):
    """Tell the observers; ``kind`` is a kind of ``progress.RunEvent``."""

    kind: Literal["foreach", "task-started", "task-ended", "task-retrying", "note"]
    task: int
    attempt: int
    data: JSONObject


class Close(NamedTuple):
    """Every task has ended: write the run's end record."""

    status: Literal["ok", "failed", "cancelled", "interrupted"]


Instruction = Append | Submit | Find | Probe | Seal | Cancel | SetTimer | Report | Close
