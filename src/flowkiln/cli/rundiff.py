"""``flowkiln env diff`` of past runs and tasks: a line for each step, or a table for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkiln._base.report import counted
from flowkiln.cli.errors import BadUsage
from flowkiln.wiring import comparing, history

if TYPE_CHECKING:
    from flowkiln.cli.output import Session
    from flowkiln.wiring.comparing import Facts, Pair

_SHORT = 12


def pairs(a: str, b: str, speaker: Session) -> list[Pair]:
    """The steps of both sides, compared. Raises ``BadUsage`` for a run and a task, and the errors of stores."""
    store = history.open_store(speaker.own_settings())
    one, other = history.find(store, a), history.find(store, b)
    if (one.step is None) != (other.step is None):
        message = f"{a} and {b}: a whole run is compared with a whole run, a task with a task"
        raise BadUsage(message, hint="Write Flow/RUN Flow/RUN, or Flow/RUN/STEP Flow/RUN/STEP.")
    return comparing.compare(store, one, other)


def headline(found: list[Pair]) -> str:
    """What it comes to, in one sentence."""
    same = sum(pair.same is True for pair in found)
    if same == len(found):
        return "the same environment in every step" if len(found) > 1 else "the same environment"
    unknown = sum(pair.same is None for pair in found)
    if len(found) == 1:
        return found[0].why
    told = f"the same environment in {same} of {counted(len(found), 'step')}"
    return f"{told}, not known in {unknown}" if unknown else told


def lines(found: list[Pair]) -> list[str]:
    """The comparison for people."""
    shown = [headline(found)]
    for pair in found:
        shown.append(f"{pair.step}: {pair.why}{_identity(pair)}")
        shown += [f"  {one}" for one in pair.differences]
        shown += [f"  {change}" for change in pair.packages or ()]
        if pair.packages is None and pair.a is not None and pair.b is not None:
            shown.append("  packages are not known: the record of a run keeps no lock")
    return shown


def _identity(pair: Pair) -> str:
    if pair.same is not True or pair.a is None:
        return ""
    return f" ({_short(pair.a.env_id)}, tree {_short(pair.a.tree_digest)})"


def _short(digest: str | None) -> str:
    return (digest or "unknown").removeprefix("sha256:")[:_SHORT]


def markdown(a: str, b: str, found: list[Pair]) -> list[str]:
    """The comparison as a table, with what differs below it."""
    shown = [
        f"### `{a}` and `{b}`: {headline(found)}",
        "",
        f"| Step | `{a}` | `{b}` | |",
        "| --- | --- | --- | --- |",
    ]
    shown += [f"| `{pair.step}` | {_cell(pair.a)} | {_cell(pair.b)} | {pair.why} |" for pair in found]
    for pair in found:
        details = [str(one) for one in pair.differences] + [str(change) for change in pair.packages or ()]
        if details:
            shown += ["", f"**`{pair.step}`**", "", *(f"- `{text}`" for text in details)]
    return shown


def _cell(facts: Facts | None) -> str:
    if facts is None:
        return "-"
    words = [_short(facts.env_id) if facts.managed else "unmanaged", facts.platform, facts.backend, facts.level]
    return " ".join(word for word in words if word)
