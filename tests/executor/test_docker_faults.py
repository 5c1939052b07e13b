"""What becomes of attempts when the engine fails at the worst moment: faults around calls to a real engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkiln._base.engineerrors import EngineFailed, EngineFull, EngineUnreachable
from flowkiln.executor.outcome import Outcome
from flowkiln.executor.vocabulary import Absent, Began, Sealed

from . import images
from .bench import worker
from .dockbench import DockBench

pytestmark = pytest.mark.e2e


class Faulty:
    """A real engine whose calls fail as told: ``before`` without effect, ``after`` with the answer lost.

    Both map a method's name to the errors of its next calls; one that is no list is raised for ever.
    """

    def __init__(self, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None) -> None:
        self._engine = images.engine("overlay2")
        self._faults = {"before": before or {}, "after": after or {}}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._engine, name)
        if not callable(real):
            return real

        def call(*values: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            self._raise("before", name)
            answer = real(*values, **keywords)
            self._raise("after", name)
            return answer

        return call

    def _raise(self, when: str, name: str) -> None:
        errors = self._faults[when].get(name)
        if isinstance(errors, list):
            errors = errors.pop(0) if errors else None
        if errors is not None:
            raise errors


def gone() -> EngineUnreachable:
    return EngineUnreachable("the engine closed the connection", retryable=True)


@pytest.fixture
def faulty(tmp_path: Path) -> Any:
    made: list[DockBench] = []

    def make(
        body: str, before: dict[str, Any] | None = None, after: dict[str, Any] | None = None, **more: Any
    ) -> DockBench:
        engine: Any = Faulty(before, after)
        run = f"f{time.time_ns()}"
        made.append(DockBench(tmp_path / run, engine, worker(body), images.plain(), run, **more))
        return made[-1]

    yield make
    for one in made:
        one.backend.close()
        for left in images.engine("overlay2").containers(labels={"io.flowkiln.run": one.run_id}):
            images.engine("overlay2").remove(left["Id"])


Make = Callable[..., DockBench]

LOST: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("create", {"create": [gone()]}, {}),
    ("create's answer", {}, {"create": [gone()]}),
    ("start", {"start": [gone()]}, {}),
    ("start's answer", {}, {"start": [gone(), gone()]}),
    ("events", {"events": gone()}, {}),
    ("logs", {"logs": gone()}, {}),
    ("removal", {"remove": gone()}, {}),
    ("the look at the end", {"containers": gone()}, {}),
]


@pytest.mark.parametrize(("before", "after"), [each[1:] for each in LOST], ids=[each[0] for each in LOST])
def test_a_lost_call_or_answer_changes_nothing(
    faulty: Make, before: dict[str, Any], after: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkiln.executor.docker._LOOK", 0.2)
    run = faulty("print('hi'); open('/tmp/ran', 'a').write('x')", before, after)
    outcome = run.run_one()
    assert outcome.ok, outcome.failure
    assert run.shown() == run.log(outcome) == ["hi"]
    assert [type(event) for event in run.events if not isinstance(event, Sealed)] == [Began]


def test_an_end_that_cannot_be_looked_up_is_looked_up_again(faulty: Make) -> None:
    run = faulty("os.kill(os.getpid(), 9)", {"inspect": [None, gone()]})
    assert run.run_one().failure is not None


@pytest.mark.parametrize(
    ("error", "kind"),
    [(EngineFull("no space left on device"), "infrastructure"), (EngineFailed("no GPU here"), "environment")],
)
def test_what_the_engine_cannot_do_is_told(faulty: Make, error: Exception, kind: str) -> None:
    outcome: Outcome = faulty("", {"create": error}).run_one()
    assert outcome.failure is not None
    assert (outcome.failure.failure_class, outcome.failure.cause) == (kind, "not-started")
    assert str(error) in outcome.failure.text
    assert ("@docker" in (outcome.failure.hint or "")) is (kind == "environment")


def test_an_engine_that_stays_away_ends_attempts_after_a_while(faulty: Make) -> None:
    outcome = faulty("", {"create": gone()}, patience=0.6).run_one()
    assert outcome.failure is not None
    assert (outcome.failure.failure_class, outcome.failure.cause) == ("infrastructure", "not-started")


def test_a_container_whose_engine_stays_away_is_unknown_not_gone(faulty: Make) -> None:
    run = faulty("", {"containers": gone()})
    run.backend.find(1, [(1, 0)])
    assert run.poll_until(Absent) == [Absent("1/0", 0, complete=False)]


def test_a_launcher_that_leaves_while_the_engine_is_away_seals_nothing(faulty: Make) -> None:
    run = faulty("", {"start": gone()})
    run.submit()
    run.poll_until(Began)
    run.backend.close()
    assert run.store.records.names(f"r/{run.run_id}/t/1/0") == ["begin"]
