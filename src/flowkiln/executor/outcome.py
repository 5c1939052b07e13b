"""The one sealed outcome of an attempt, as a value and as the document stored under the outcome key.

The step's own process makes the user's half (status, artifacts, transition, error); the supervisor adds times,
logs and the environment's proof, or makes the whole when the process could not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject

OUTCOME_SCHEMA = 1

Status = Literal["ok", "failed"]
FailureClass = Literal["user", "environment", "infrastructure", "cancelled", "timeout"]
Cause = Literal[
    "exception",  # user code raised
    "exit",  # the process ended without finishing: os._exit, sys.exit, closed
    "signal",  # killed by a signal that is not ours: segfault, kill
    "out-of-memory",
    "artifact",  # a value could not be stored
    "transition",  # self.next was called wrongly
    "foreach-width",  # wider than --max-num-splits, or empty
    "mismatch",  # the environment is not the one that was locked
    "not-started",  # the process could not be started
    "lost",  # ended with nothing left behind
    "interrupted",  # the launcher or platform ended it
    "cancelled",
    "timeout",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What follows: the targets taken and, after a foreach, its width and the pack of its values.

    ``pack`` is the JSON form of ``store.packs.Pack``.
    """

    targets: tuple[str, ...]
    width: int | None = None
    pack: JSONObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed: the class decides on retries, the cause explains.

    ``kind`` is the exception's dotted type, ``text`` its message in one line, ``trace`` the traceback cut to the
    user's frames. ``exit_code`` and ``signal`` are those of the process, where they say something; ``code`` and
    ``hint`` are those of an error of flowkiln's own.
    """

    failure_class: FailureClass
    cause: Cause
    text: str
    kind: str | None = None
    trace: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    code: str | None = None
    hint: str | None = None


def text_of(error: BaseException) -> str:
    """The message of an error, whatever its ``__str__`` does."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  the user's own code: its error must not hide this one
        return f"{type(error).__qualname__}: <str() failed>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one attempt. Times are microseconds since the epoch.

    ``artifacts`` maps names to the JSON form of ``store.artifacts.Artifact``: inherited ones by reference.
    ``caught`` is set when ``@catch`` turned ``failure`` into a success. ``logs`` is the JSON form that
    ``store.logs`` reads. ``environment`` holds env_id, lock_id, tree_digest, level, python, platform and
    whether it was ``unmanaged``.
    """

    status: Status
    artifacts: dict[str, JSONObject] = field(default_factory=dict)
    transition: Transition | None = None
    failure: Failure | None = None
    caught: bool = False
    started: int = 0
    ended: int = 0
    logs: JSONObject = field(default_factory=dict)
    environment: JSONObject = field(default_factory=dict)
    usage: JSONObject = field(default_factory=dict)
    execution: JSONObject = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the attempt succeeded (a caught failure did)."""
        return self.status == "ok"

    def to_json(self) -> JSONObject:
        """As the stored document."""
        document: JSONObject = {"schema": OUTCOME_SCHEMA}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, (Transition, Failure)):
                value = {key: getattr(value, key) for key in value.__dataclass_fields__}
            document[name] = value
        return document

    @classmethod
    def from_json(cls, document: JSONObject) -> Outcome:
        """The value that ``to_json`` wrote."""
        values = {key: value for key, value in document.items() if key != "schema"}
        if values.get("transition") is not None:
            transition = dict(values["transition"])
            transition["targets"] = tuple(transition["targets"])
            values["transition"] = Transition(**transition)
        if values.get("failure") is not None:
            values["failure"] = Failure(**values["failure"])
        return cls(**values)
