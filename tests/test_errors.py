"""Every error of the package: a unique code in its folder's range, a title, a page for users."""

from __future__ import annotations

import importlib
import pickle
import re

import pytest

from flowkiln._base.errors import ExitCode, FlowkilnError, leaves
from tests.source import modules, relative

RANGES = {
    "_base": ("CFG", "SYS"),
    "envs": ("ENV",),
    "store": ("STO",),
    "executor": ("RUN",),
    "flow": ("FLW",),
    "cli": ("CLI",),
    "wiring": ("CLI",),
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
    assert [kind.code for kind in leaves()] >= codes


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
