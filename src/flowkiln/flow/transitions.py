"""``self.next`` while a step runs: what is called must be what stands in the flow's text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln.executor.outcome import Transition
from flowkiln.flow.errors import EmptyForeach, ForeachTooWide, InvalidNextException
from flowkiln.store import artifacts, packs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flowkiln.executor.plan import StepPlan
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.flow.task import Task


def follow(flow: FlowSpec, targets: Sequence[Callable[..., Any]], keywords: Mapping[str, Any]) -> None:
    """Records what follows the running step; a foreach stores its items. Raises ``InvalidNextException``."""
    task = flow._flowkiln  # noqa: SLF001  the flow's own state
    plan = None if task is None else task.plan
    if task is None or plan is None:
        message = "self.next is called inside a step only"
        raise InvalidNextException(message)
    if task.transition is not None:
        _refuse(plan, "self.next was called twice", "It is the last statement of a step, once.")
    if plan.kind == "end":
        _refuse(plan, "the last step does not call self.next", "Remove the call.")
    names = _names(flow, plan, targets)
    foreach = _foreach(plan, keywords)
    if foreach is not None and len(names) != 1:
        _refuse(plan, "a foreach leads to exactly one step", "Lead to one step and split there.")
    _compare(plan, names, foreach)
    if foreach is None:
        task.transition = Transition(targets=names)
    else:
        width, pack = _fan_out(flow, task, plan, foreach)
        task.transition = Transition(targets=names, width=width, pack=pack.to_json())


def _names(flow: FlowSpec, plan: StepPlan, targets: Sequence[Callable[..., Any]]) -> tuple[str, ...]:
    if not targets:
        _refuse(plan, "self.next names no step", "Name the steps that follow: self.next(self.a)")
    for target in targets:
        if not getattr(target, "is_step", False) or getattr(target, "__self__", None) is not flow:
            _refuse(plan, f"self.next takes steps of this flow, not {target!r}", "Name them as self.NAME.")
    return tuple(target.name for target in targets)  # type: ignore[attr-defined]


def _foreach(plan: StepPlan, keywords: Mapping[str, Any]) -> str | None:
    unknown = sorted(set(keywords) - {"foreach"})
    if unknown:
        _refuse(plan, f"self.next does not take {', '.join(unknown)}", "It takes steps and foreach=.")
    foreach = keywords.get("foreach")
    if "foreach" in keywords and not (isinstance(foreach, str) and foreach):
        _refuse(plan, f"foreach is the name of an attribute, not {foreach!r}", 'Write foreach="items".')
    return foreach


def _compare(plan: StepPlan, names: tuple[str, ...], foreach: str | None) -> None:
    if names == plan.targets and foreach == plan.foreach:
        return
    called = _call(names, foreach)
    written = _call(plan.targets, plan.foreach)
    _refuse(
        plan,
        f"{called} was called, but the flow's text says {written}",
        "Keep one self.next, as the last statement.",
    )


def _call(names: Sequence[str], foreach: str | None) -> str:
    inside = [f"self.{name}" for name in names]
    if foreach is not None:
        inside.append(f"foreach={foreach!r}")
    return f"self.next({', '.join(inside)})"


def _fan_out(flow: FlowSpec, task: Task, plan: StepPlan, name: str) -> tuple[int, packs.Pack]:
    try:
        value = getattr(flow, name)
    except AttributeError as error:
        message = f"step {plan.name!r}: foreach={name!r}, but self.{name} is not set"
        raise InvalidNextException(message, step=plan.name, hint=f"Set self.{name} before self.next.") from error
    try:
        items = iter(value)
    except TypeError as error:
        message = f"step {plan.name!r}: foreach={name!r}, but self.{name} is {type(value).__name__}, not iterable"
        raise InvalidNextException(message, step=plan.name, hint="Make it a list.") from error
    if items is value:
        task.consumed.add(name)
    pack = packs.write(_encoded(task, plan, name, items), task.reader.store.blobs)
    if pack.count == 0:
        message = f"step {plan.name!r}: foreach={name!r}, but self.{name} has no items"
        raise EmptyForeach(message, step=plan.name, hint="Make sure that there is at least one item.")
    return pack.count, pack


def _encoded(task: Task, plan: StepPlan, name: str, items: Iterator[Any]) -> Iterator[bytes]:
    for position, item in enumerate(items):
        if position == task.max_splits:
            message = f"step {plan.name!r}: foreach={name!r} has more than {task.max_splits} items"
            raise ForeachTooWide(message, step=plan.name, hint="Raise --max-num-splits if that is intended.")
        yield artifacts.encode(f"{name}[{position}]", item)


def _refuse(plan: StepPlan, message: str, hint: str) -> NoReturn:
    text = f"step {plan.name!r}: {message}"
    raise InvalidNextException(text, step=plan.name, hint=hint)
