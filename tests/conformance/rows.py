"""The table: what each flow must come to, wherever its steps run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Place = tuple[str, tuple[int, ...]]
"""A step with its indices in the foreaches around it."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one attempt ended that did not succeed by itself. ``text`` is part of what is told of it."""

    failure_class: str
    cause: str
    text: str = ""
    signal: int | None = None
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One flow of ``flows/`` and what must come of it.

    ``words`` are its parameters, ``code`` is the exit code of ``run``. ``tasks`` counts the tasks of each step.
    ``values`` are artifacts, ``out`` and ``err`` all lines that the last attempt of a task wrote to each stream,
    where they are given. ``endings`` are the failed attempts in order, caught ones too. ``cheap`` rows run with
    every engine. A row that ``needs`` something runs where a target has it.
    """

    flow: str
    words: tuple[str, ...] = ()
    code: int = 0
    tasks: Mapping[str, int]
    values: Mapping[Place, Mapping[str, object]] = field(default_factory=dict)
    out: Mapping[Place, list[str]] = field(default_factory=dict)
    err: Mapping[Place, list[str]] = field(default_factory=dict)
    endings: tuple[tuple[Place, int, Ending], ...] = ()
    cheap: bool = False
    needs: frozenset[str] = frozenset()


def _at(step: str, *indices: int) -> Place:
    return step, indices


_START, _END = _at("start"), _at("end")
_TEXT = "'\"`$(id) \\ %s {x}\n\t日本 🔥 é"
_LONG = "long " * 20_000

ROWS = (
    Row(
        flow="linear",
        words=("--alpha", "5"),
        tasks={"start": 1, "middle": 1, "end": 1},
        values={
            _at("middle"): {"versions": ["1.0", "2.0"]},
            _END: {"total": 10, "mask": "0o22", "optimised": 0, "foreign": [], "user_site": 1},
        },
        out={_at("middle"): ["middle has 1.0 2.0"], _END: []},
        cheap=True,
    ),
    Row(
        flow="branch",
        tasks={"start": 1, "left": 1, "right": 1, "join": 1, "end": 1},
        values={_END: {"sides": ["left", "right"], "only_right": (7, None), "shared": {"k": [1, 2]}}},
        out={_END: ["['left', 'right'] (7, None) {'k': [1, 2]}"]},
    ),
    Row(
        flow="nested",
        tasks={"start": 1, "outer": 2, "inner": 3, "inner_join": 2, "outer_join": 1, "end": 1},
        values={
            _at("inner", 1, 1): {"word": "b1"},
            _at("inner_join", 1): {"words": ["b0", "b1"]},
            _END: {"words": [["a0"], ["b0", "b1"]]},
        },
        out={_END: ["[['a0'], ['b0', 'b1']]"]},
    ),
    Row(
        flow="wide",
        tasks={"start": 1, "each": 40, "join": 1, "end": 1},
        values={_END: {"squares": [number**2 for number in range(40)]}, _at("each", 39): {"square": 1521}},
        out={_at("each", number): [f"square {number**2}"] for number in range(40)},
    ),
    Row(
        flow="retried",
        tasks={"start": 1, "end": 1},
        values={_START: {"tries": 2}},
        out={_START: ["attempt 2"]},
        err={_START: ["trouble 2"]},
        endings=tuple(
            (_START, attempt, Ending(failure_class="user", cause="exception", text=f"not yet: {attempt}"))
            for attempt in range(2)
        ),
        cheap=True,
    ),
    Row(
        flow="caught",
        tasks={"start": 1, "end": 1},
        values={_END: {"kept": "before", "told": ["KeyError", "'gone'"]}},
        endings=((_START, 0, Ending(failure_class="user", cause="exception", text="gone")),),
    ),
    Row(
        flow="late",
        code=1,
        tasks={"start": 1},
        out={_START: ["sleeping"]},
        endings=((_START, 0, Ending(failure_class="timeout", cause="timeout", text="1 second")),),
    ),
    Row(
        flow="large",
        tasks={"start": 1, "end": 1},
        values={_END: {"total": 7999998000000.0, "first": 3999999.0}},
        out={_START: [], _END: []},
    ),
    Row(
        flow="odd",
        words=("--text", _TEXT, "--dashes", "--dashes", "--long", _LONG, "--tree", '{"a b": ["ü", null, "--x"]}'),
        tasks={"start": 1, "end": 1},
        values={
            _START: {"size": len(_LONG), "long": _LONG},
            _END: {"again": [_TEXT, "--dashes", {"a b": ["ü", None, "--x"]}]},
        },
        out={_START: [ascii(_TEXT)]},
        cheap=True,
    ),
    Row(
        flow="wrong",
        code=1,
        tasks={"start": 1},
        out={_START: ["before"]},
        endings=((_START, 0, Ending(failure_class="user", cause="exception", text="this is wrong")),),
        cheap=True,
    ),
    Row(
        flow="leaves",
        code=1,
        tasks={"start": 1},
        out={_START: ["without a newline"]},
        err={_START: []},
        endings=((_START, 0, Ending(failure_class="user", cause="exit", text="42", exit_code=42)),),
    ),
    Row(
        flow="crash",
        code=1,
        tasks={"start": 1},
        out={_START: ["now"]},
        endings=((_START, 0, Ending(failure_class="user", cause="signal", text="SIGSEGV", signal=11)),),
        cheap=True,
    ),
    Row(
        flow="hungry",
        code=1,
        tasks={"start": 1},
        out={_START: ["hungry"]},
        endings=((_START, 0, Ending(failure_class="user", cause="out-of-memory", text="of 96 MiB", signal=9)),),
        needs=frozenset({"memory limit"}),
        cheap=True,
    ),
    Row(
        flow="talks",
        tasks={"start": 1, "end": 1},
        out={
            _START: [f"out {number}" for number in range(100_000)],
            _END: ["half \\xff a line", "progress 2", "\ttabs"],
        },
        err={_START: [f"error {number}" for number in range(100_000)], _END: []},
    ),
)
