from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from flowkiln import FlowSpec, step
from flowkiln.flow.errors import EmptyForeach, ForeachTooWide, InvalidNextException
from tests.flow.harness import Drive, drive


class Over(FlowSpec):
    """A foreach over what ``make`` gives."""

    make: ClassVar[Callable[[], Any]]

    @step
    def start(self) -> None:
        self.items = type(self).make()
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        self.got = self.input
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        self.all = [one.got for one in inputs]
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def over(make: Callable[[], Any]) -> type[FlowSpec]:
    return type("Over", (Over,), {"make": staticmethod(make)})


def generator() -> Iterator[int]:
    yield from (1, 2, 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: [1, "two", None], [1, "two", None]),
        (lambda: (1, 2), [1, 2]),
        (lambda: "abc", ["a", "b", "c"]),
        (lambda: {"x": 1, "y": 2}, ["x", "y"]),
        (lambda: {7}, [7]),
        (lambda: range(3), [0, 1, 2]),
        (generator, [1, 2, 3]),
        (lambda: (n * n for n in range(3)), [0, 1, 4]),
        (lambda: zip("ab", (1, 2), strict=True), [("a", 1), ("b", 2)]),
    ],
    ids=["list", "tuple", "str", "dict", "set", "range", "generator", "genexp", "zip"],
)
def test_a_foreach_runs_over_whatever_a_for_loop_does(
    tmp_path: Path, make: Callable[[], Any], expected: list[Any]
) -> None:
    assert drive(over(make), tmp_path).value("join", "all") == expected


def test_a_generator_is_consumed_once_and_lives_on_in_its_pack(tmp_path: Path) -> None:
    run = drive(over(generator), tmp_path)
    assert "items" not in run.task("start").outcome.artifacts
    assert run.task("work", 0).outcome.transition is not None
    opened = run.task("start").outcome.transition
    assert opened is not None
    assert opened.width == 3


def test_a_list_stays_an_attribute(tmp_path: Path) -> None:
    assert drive(over(lambda: [1, 2]), tmp_path).value("work", "items", 0) == [1, 2]


def test_numpy_arrays_are_run_over_by_their_first_axis(tmp_path: Path) -> None:
    found = drive(over(lambda: np.arange(6).reshape(3, 2)), tmp_path).value("join", "all")
    assert [row.tolist() for row in found] == [[0, 1], [2, 3], [4, 5]]


def failed(run: Drive) -> tuple[str, str, str]:
    failure = run.last.outcome.failure
    assert failure is not None
    assert failure.kind is not None
    return failure.kind.rpartition(".")[2], failure.cause, failure.text


@pytest.mark.parametrize("make", [list, lambda: iter(()), dict], ids=["list", "iterator", "dict"])
def test_a_foreach_over_nothing_names_step_and_attribute(tmp_path: Path, make: Callable[[], Any]) -> None:
    kind, cause, text = failed(Drive(over(make), tmp_path).run())
    assert (kind, cause) == (EmptyForeach.__name__, "foreach-width")
    assert text == "step 'start': foreach='items', but self.items has no items"


def test_a_foreach_wider_than_allowed_stops_early(tmp_path: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(sys.maxsize):
            taken.append(number)
            yield number

    kind, cause, text = failed(Drive(over(endless), tmp_path, max_splits=10).run())
    assert (kind, cause) == (ForeachTooWide.__name__, "foreach-width")
    assert "more than 10 items" in text
    assert len(taken) == 11


def test_exactly_the_allowed_width_runs(tmp_path: Path) -> None:
    assert len(drive(over(lambda: range(10)), tmp_path, max_splits=10).value("join", "all")) == 10


def test_a_foreach_over_no_iterable(tmp_path: Path) -> None:
    kind, cause, text = failed(Drive(over(lambda: 5), tmp_path).run())
    assert (kind, cause) == (InvalidNextException.__name__, "transition")
    assert "self.items is int, not iterable" in text


def test_an_item_that_cannot_be_stored_is_named(tmp_path: Path) -> None:
    kind, _, text = failed(Drive(over(lambda: [1, {"f": lambda: 0}]), tmp_path).run())
    assert kind == "UnpicklableArtifact"
    assert "items[1]" in text


def test_an_error_while_items_are_made_is_the_users(tmp_path: Path) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("half way")

    assert failed(Drive(over(broken), tmp_path).run()) == ("ValueError", "exception", "half way")


def test_many_items_make_one_stored_object(tmp_path: Path) -> None:
    run = Drive(over(lambda: (str(n) * 100 for n in range(20_000))), tmp_path, max_splits=100_000)
    before = sum(1 for path in Path(run.store.root).rglob("*") if path.is_file())
    run.run(steps=1)
    after = sum(1 for path in Path(run.store.root).rglob("*") if path.is_file())
    assert after - before == 2  # the pack and the outcome
    opened = run.last.outcome.transition
    assert opened is not None
    assert opened.width == 20_000


class Calling(FlowSpec):
    """Calls ``self.next`` as ``how`` does, whatever the text below says."""

    how: ClassVar[Callable[[Any], None]]

    @step
    def start(self) -> None:
        self.items = [1]
        type(self).how(self)
        self.next(self.end)

    @step
    def other(self) -> None:
        pass

    @step
    def end(self) -> None:
        type(self).how(self)


def called(tmp_path: Path, how: Callable[[Any], None]) -> str:
    kind = type("Calling", (Calling,), {"how": staticmethod(how)})
    name, cause, text = failed(Drive(kind, tmp_path, checked=False).run())
    assert (name, cause) == (InvalidNextException.__name__, "transition")
    return text


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda flow: flow.next(flow.other), "self.next(self.other) was called, but the flow's text says"),
        (lambda flow: flow.next(flow.end, foreach="items"), "says self.next(self.end)"),
        (lambda flow: flow.next(), "self.next names no step"),
        (lambda flow: flow.next("end"), "self.next takes steps of this flow, not 'end'"),
        (lambda flow: flow.next(Calling.end), "self.next takes steps of this flow"),
        (lambda flow: flow.next(flow.how), "self.next takes steps of this flow"),
        (lambda flow: flow.next(flow.end, wide=1), "self.next does not take wide"),
        (lambda flow: flow.next(flow.end, foreach=[1]), "foreach is the name of an attribute, not [1]"),
        (lambda flow: flow.next(flow.end, foreach=""), "foreach is the name of an attribute, not ''"),
        (lambda flow: flow.next(flow.end, flow.other, foreach="items"), "a foreach leads to exactly one step"),
        (lambda flow: flow.next(flow.end), "self.next was called"),
    ],
    ids=lambda value: "" if callable(value) else value[:30],
)
def test_what_is_called_must_be_what_is_written(tmp_path: Path, how: Callable[[Any], None], said: str) -> None:
    assert said in called(tmp_path, how)


def test_self_next_outside_of_a_step() -> None:
    flow = Over(use_cli=False)
    with pytest.raises(InvalidNextException, match="inside a step only"):
        flow.next(flow.work)
