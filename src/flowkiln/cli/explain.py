"""``flowkiln explain``: the page of an error code."""

from __future__ import annotations

import difflib
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import click

import flowkiln
from flowkiln._base.errors import ExitCode, leaves
from flowkiln.cli.errors import UnknownCode
from flowkiln.cli.options import session, verb
from flowkiln.cli.output import table

if TYPE_CHECKING:
    from flowkiln._base.errors import FlowkilnError


def registry() -> dict[str, type[FlowkilnError]]:
    """Every error with a code, by code, from the ``*errors`` modules of every folder."""
    for path in sorted(Path(flowkiln.__file__).parent.glob("*/*errors.py")):
        importlib.import_module(f"flowkiln.{path.parent.name}.{path.stem}")
    return {kind.code: kind for kind in leaves() if kind.__module__.startswith("flowkiln.")}


def page(kind: type[FlowkilnError]) -> str:
    """The text about an error for people."""
    return inspect.cleandoc(kind.__doc__ or "")


@verb("explain", example="flowkiln explain ENV012")
@click.argument("code", required=False)
@click.pass_context
def explain(context: click.Context, code: str | None) -> int:
    """Explain an error CODE: what happened and what to do. Without CODE, list all of them."""
    speaker = session(context)
    known = registry()
    if code is None:
        rows = [[kind.code, kind.title, str(int(kind.exit_code))] for kind in known.values()]
        codes = [{"code": k.code, "title": k.title, "exit_code": int(k.exit_code)} for k in known.values()]
        speaker.result({"codes": codes}, table(["CODE", "TITLE", "EXIT"], rows))
        return ExitCode.OK
    kind = known.get(code.strip("[]").upper())
    if kind is None:
        near = difflib.get_close_matches(code.upper(), list(known), n=1)
        message = f"no error has the code {code!r}"
        raise UnknownCode(
            message, hint=f"Did you mean {near[0]}?" if near else "`flowkiln explain` lists all codes."
        )
    document = {"code": kind.code, "title": kind.title, "exit_code": int(kind.exit_code), "text": page(kind)}
    speaker.result(document, [f"{kind.code}: {kind.title} (exit code {int(kind.exit_code)})", "", page(kind)])
    return ExitCode.OK
