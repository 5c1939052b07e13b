from __future__ import annotations

from pathlib import Path

import pytest

from flowkiln._base.errors import leaves
from flowkiln.flow import failures
from flowkiln.flow.errors import (
    BadStepName,
    CaughtException,
    EmptyForeach,
    FlowError,
    InvalidNextException,
    StepError,
    TimeoutException,
)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_the_kind_and_the_first_line_of_the_message() -> None:
    found = failures.describe(raised(ValueError("first\nsecond")))
    assert (found.kind, found.text, found.failure_class, found.cause) == (
        "ValueError",
        "first",
        "user",
        "exception",
    )
    assert failures.describe(raised(KeyError())).text == "KeyError"
    assert failures.describe(raised(BadStepName("m"))).code == "FLW002"
    assert failures.describe(raised(BadStepName("m"))).kind == "flowkiln.flow.errors.BadStepName"


def test_an_error_whose_str_fails_is_still_named() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    found = failures.describe(raised(Odd()))
    assert found.text.endswith("Odd: <str() failed>")
    assert found.kind is not None
    assert found.kind.endswith("Odd")


@pytest.mark.parametrize(
    ("error", "failure_class", "cause"),
    [
        (TimeoutException("t"), "timeout", "timeout"),
        (InvalidNextException("n"), "user", "transition"),
        (EmptyForeach("e"), "user", "foreach-width"),
        (MemoryError(), "user", "out-of-memory"),
        (KeyboardInterrupt(), "cancelled", "interrupted"),
    ],
)
def test_classes_and_causes(error: BaseException, failure_class: str, cause: str) -> None:
    found = failures.describe(raised(error))
    assert (found.failure_class, found.cause) == (failure_class, cause)


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (3, 3), (-1, 255), ("text", 1)])
def test_sys_exit(code: int | str | None, expected: int) -> None:
    found = failures.describe(raised(SystemExit(code)))
    assert (found.cause, found.exit_code) == ("exit", expected)
    assert "sys.exit(" in found.text


def test_frames_of_flowkiln_are_cut_in_every_chained_error() -> None:
    def outer() -> None:
        try:
            failures.traceback_of(None)  # type: ignore[arg-type]
        except Exception as error:
            raise RuntimeError("outer") from error

    try:
        outer()
    except RuntimeError as error:
        shown, full = failures.traceback_of(error), failures.traceback_of(error, full=True)
    assert "failures.py" in full
    assert f"{Path('flow') / 'failures.py'}" not in shown
    assert "The above exception was the direct cause" in shown


def test_a_hint_stands_below_the_traceback() -> None:
    shown = failures.traceback_of(raised(BadStepName("m", hint="Rename it.")))
    assert shown.endswith("hint: Rename it.\n")


def test_files_of_the_package_are_shown_relative_to_it() -> None:
    here = Path(__file__)
    shown = failures.traceback_of(raised(ValueError("x")), root=str(here.parent))
    assert f'File "{here.name}", line' in shown


def test_what_catch_stores_is_text() -> None:
    value = CaughtException("boom", "ValueError", "Traceback...\n")
    assert (str(value), repr(value)) == ("Traceback...\n", "<ValueError: boom>")
    assert str(CaughtException("boom", "ValueError", "")) == "ValueError: boom"
    assert value == CaughtException("boom", "ValueError", "Traceback...\n")
    assert value != CaughtException("other", "ValueError", "")


def test_every_error_has_a_code_of_its_own_range() -> None:
    found = list(leaves(FlowError))
    assert all(kind.code.startswith("FLW") and kind.title and kind.__doc__ for kind in found)
    assert len({kind.code for kind in found}) == len(found)
    assert all(issubclass(kind, StepError) == (kind.code >= "FLW040") for kind in found)
