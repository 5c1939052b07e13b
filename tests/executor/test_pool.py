"""Which templates a run has at a time."""

from __future__ import annotations

from collections.abc import Callable

from flowkiln._base.errors import FlowkilnError
from flowkiln.executor.plan import Prefix, StepPlan
from flowkiln.executor.vocabulary import Sealed

from .bench import HOST, RUN, Bench
from .test_child import failure, gone

Make = Callable[..., Bench]


class Changed(FlowkilnError):
    """A tree is not what was locked."""

    code = "ENV999"


def refuse(_prefix: Prefix, _level: str) -> None:
    raise Changed("a file of the tree was changed", step="work")


def test_a_template_starts_with_the_first_attempt_and_serves_all(bench: Make) -> None:
    run = bench("return os.getppid()")
    assert run.backend._pool._templates == {}
    pids = {outcome.artifacts["value"]["v"] for outcome in run.run(5)}
    assert pids == {template.pid for template in run.backend._pool._templates.values()}


def test_prewarming_starts_it_before(bench: Make) -> None:
    run = bench("return os.getppid()")
    run.backend.prewarm("work")
    (template,) = run.backend._pool._templates.values()
    assert run.run_one().artifacts["value"] == {"v": template.pid}


def test_what_follows_warms_up_meanwhile(bench: Make) -> None:
    end = StepPlan(name="end", kind="end", prefix=HOST, environ=(("OTHER", "1"),))
    run = bench("return 1", targets=("end",), more_steps=(end,))
    run.backend.prewarm("work")
    assert len(run.backend._pool._templates) == 1
    run.run_one()
    assert [key[1] for key in run.backend._pool._templates] == [(), end.environ]


def test_a_failed_verification_is_the_environments_fault(bench: Make) -> None:
    run = bench("print('ran')", verify=refuse)
    run.backend.prewarm("work")
    found = failure(run.run_one())
    assert (found.failure_class, found.cause, found.code) == ("environment", "mismatch", "ENV999")
    assert found.text == "a file of the tree was changed"
    assert run.lines == []
    assert run.store.records.names(f"r/{RUN}/t/1/0") == ["outcome"]


def test_idle_templates_end_when_memory_gets_short(bench: Make) -> None:
    run = bench("return os.getppid()")
    run.run_one()
    pool = run.backend._pool
    (first,) = pool._templates.values()
    pool._budget = 1
    pool._make_room()
    assert pool._templates == {}
    assert gone(first.pid)
    assert run.run_one().artifacts["value"]["v"] != first.pid


def test_busy_templates_are_kept(bench: Make) -> None:
    run = bench("print('on'); time.sleep(0.5); return os.getppid()")
    run.submit()
    run.poll_until_line("on")
    run.backend._pool._budget = 1
    run.backend._pool._make_room()
    run.poll_until(Sealed)
    assert run.outcome(1).ok


def test_at_most_max_workers_run_at_once(bench: Make) -> None:
    run = bench("begun = time.time(); time.sleep(0.05); return [begun, time.time()]", max_workers=3)
    spans = [outcome.artifacts["value"]["v"] for outcome in run.run(12)]
    for begun, _ in spans:
        assert sum(other[0] <= begun < other[1] for other in spans) <= 3
