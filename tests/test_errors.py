"""Every error of the package: a unique code in its folder's range, a title, a page for users."""

from __future__ import annotations

import ast
import importlib
import pickle
import re

import pytest

from flowkiln._base.errors import ExitCode, FlowkilnError, leaves
from tests.source import modules, relative

RANGES = {
    "_base": ("CFG", "ENG", "SYS"),
    "envs": ("ENV", "BLD"),
    "store": ("STO",),
    "executor": ("RUN",),
    "images": ("IMG",),
    "flow": ("FLW",),
    "cli": ("CLI",),
    "wiring": ("CLI",),
}


WITHOUT_NEXT_STEP = {
    "InvalidFlow",  # its message has a next step for each problem
    "RunCancelled",  # somebody wanted it
    "BadKey",  # a bug of the caller inside flowkiln
}


def every_class() -> list[type[FlowkilnError]]:
    for path in modules():
        if path.name.endswith("errors.py"):
            importlib.import_module("flowkiln." + relative(path).removesuffix(".py").replace("/", "."))
    found: list[type[FlowkilnError]] = []
    pending: list[type[FlowkilnError]] = [FlowkilnError]
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        if kind.__module__.startswith("flowkiln.") and kind.__dict__.get("code"):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.code)


ALL = every_class()


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in ALL]
    assert len(codes) == len(set(codes))
    assert {kind.code for kind in leaves()} >= set(codes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.code)
def test_error_has_a_page_and_survives_pickling(kind: type[FlowkilnError]) -> None:
    part = kind.__module__.split(".")[1]
    assert re.fullmatch(r"[A-Z]{3}\d{3}", kind.code)
    assert kind.code.startswith(RANGES[part])
    assert kind.__module__.endswith("errors"), "errors live in a module of their folder that says so"
    assert kind.title
    assert not kind.title.endswith(".")
    assert len((kind.__doc__ or "").strip()) > 40, "the docstring is the page that `explain` shows"
    assert kind.exit_code in ExitCode
    error = kind.__new__(kind)
    FlowkilnError.__init__(error, "what happened", hint="do this", step="fit")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.message, copy.hint, copy.step) == ("what happened", "do this", "fit")


def test_every_error_that_is_raised_says_what_to_do_next() -> None:
    """A hint where it is raised, or the advice of its kind. A hint passed on as a variable counts."""
    kinds = {kind.__name__: kind for kind in ALL}
    silent = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds):
                continue
            told = kinds[node.func.id].advice or any(word.arg in ("hint", None) for word in node.keywords)
            if not told and node.func.id not in WITHOUT_NEXT_STEP:
                silent.append(f"{relative(path)}:{node.lineno}: {node.func.id}")
    assert silent == []


def test_advice_is_the_hint_where_there_is_no_better_one() -> None:
    kind = next(kind for kind in ALL if kind.advice)
    assert kind("what happened").hint == kind.advice
    assert kind("what happened", hint="do this").hint == "do this"
