"""Running one attempt of a task in the step's own process."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flowkiln.executor.outcome import Failure, Outcome, Transition
from flowkiln.executor.plan import RunPlan
from flowkiln.flow import failures
from flowkiln.flow.attributes import FOREACH_STACK, Attributes, freeze_constants
from flowkiln.flow.current import current, user_name
from flowkiln.flow.errors import CaughtException, FlowNotFound, InvalidNextException
from flowkiln.flow.joins import Inputs
from flowkiln.flow.parameters import parameters_of
from flowkiln.flow.task import Reader, Task, frames_of
from flowkiln.store import artifacts, keys

if TYPE_CHECKING:
    from flowkiln._base.errors import FlowkilnError
    from flowkiln._base.json import JSONObject
    from flowkiln.executor.backend import Assignment
    from flowkiln.executor.plan import StepPlan
    from flowkiln.flow.spec import FlowSpec
    from flowkiln.store.folder import FolderStore

CATCH_EXCEPTION = "_catch_exception"
_LATE = ("flowkiln.flow.transitions", "flowkiln.store.origins")
_ARRAYS = "flowkiln.store.arrays"
HANDLED = "flowkiln.flow.errors.FailureHandledByCatch"


def serve(flow: type[FlowSpec]) -> NoReturn:
    """Turns this process into the worker of ``flow``: it runs attempts until the launcher is gone."""
    from flowkiln.executor import template  # noqa: PLC0415  not needed to perform an attempt

    template.serve(partial(perform, flow), partial(preload, flow))
    raise SystemExit(0)


def preload(flow: type[FlowSpec]) -> None:
    """Imports what the steps of ``flow`` import and what storing values needs, before attempts are forked."""
    from flowkiln.flow import imports  # noqa: PLC0415  reads source text, which an attempt does not

    imports.preload(flow)
    for name in _LATE:
        importlib.import_module(name)
    if "numpy" in sys.modules:
        importlib.import_module(_ARRAYS)


def perform(flow: type[FlowSpec], assignment: Assignment, store: FolderStore, info: JSONObject) -> Outcome:
    """Runs the attempt that ``assignment`` describes and returns the user's half of its outcome.

    ``info`` is the template's hello document: ``plan`` (a ``RunPlan``), and optionally ``code_dir`` (the unpacked
    code), ``tags``, ``user`` and ``full_trace`` (whether tracebacks show flowkiln's own frames). Errors of the
    store are raised, those of the step are in the outcome.
    """
    started = time.time_ns() // 1000
    plan = RunPlan.from_json(info["plan"])
    step = plan.step(assignment.step)
    kind = _flow_called(flow, plan.flow)
    instance, task = _instance(kind, plan, step, assignment, store)
    _enter(kind, plan, assignment, info)
    os.environ.update(step.environ)
    try:
        if assignment.fallback:
            failure: Failure | None = _lost(task.reader, assignment)
        else:
            failure = _call(instance, task, step, assignment, info)
        outcome = _sealed(instance, task, step, assignment, failure)
    finally:
        current.leave()
    return replace(outcome, started=started, ended=time.time_ns() // 1000)


def restored(
    kind: type[FlowSpec], plan: RunPlan, assignment: Assignment, store: FolderStore, info: JSONObject
) -> tuple[FlowSpec, Inputs | None]:
    """The flow instance as the step of ``assignment`` finds it, with the inputs of a join; the step is not run."""
    step = plan.step(assignment.step)
    instance, found = _instance(kind, plan, step, assignment, store)
    _enter(kind, plan, assignment, info)
    return instance, _inputs(instance, found, assignment) if step.kind == "join" else None


def _flow_called(flow: type[FlowSpec], name: str) -> type[FlowSpec]:
    """``flow`` itself, or the other flow of the file that the run is about."""
    if flow.__name__ == name:
        return flow
    found = getattr(sys.modules.get(flow.__module__), name, None)
    if isinstance(found, type):
        return found
    message = f"the flow file started {flow.__name__}, but the run is one of {name}"
    raise FlowNotFound(message)


def _instance(
    kind: type[FlowSpec], plan: RunPlan, step: StepPlan, assignment: Assignment, store: FolderStore
) -> tuple[FlowSpec, Task]:
    reader = Reader(assignment.run, store)
    frozen = freeze_constants(kind) | {parameter.attribute for parameter in parameters_of(kind)}
    opened = reader.table(0, 0) if assignment.parent is None else reader.table(*assignment.parent)
    hint = None
    if step.kind == "join":
        hint = "A join inherits nothing: read it from `inputs`, or call self.merge_artifacts(inputs) first."
    task = Task(
        step=step.name,
        number=assignment.task,
        reader=reader,
        attributes=Attributes(opened, store.blobs, owner=f"step {step.name!r}", frozen=frozen, hint=hint),
        frames=frames_of(plan, assignment, reader),
        plan=step,
        max_splits=plan.max_splits,
    )
    instance = kind.__new__(kind)
    vars(instance)["_flowkiln"] = task
    return instance, task


def _enter(kind: type[FlowSpec], plan: RunPlan, assignment: Assignment, info: JSONObject) -> None:
    user = info.get("user") or user_name()
    values = {
        "flow_name": plan.flow,
        "run_id": assignment.run,
        "step_name": assignment.step,
        "task_id": str(assignment.task),
        "retry_count": assignment.retry_count,
        "pathspec": f"{plan.flow}/{assignment.run}/{assignment.step}/{assignment.task}",
        "namespace": f"user:{user}" if user else None,
        "username": user,
        "tags": frozenset(info.get("tags") or plan.tags),
        "parameter_names": [parameter.attribute for parameter in parameters_of(kind)],
    }
    current.enter(values, partial(_described, kind))


def _described(kind: type[FlowSpec]) -> JSONObject:
    from flowkiln.flow import graph, graphinfo  # noqa: PLC0415  only for those who ask

    return graphinfo.describe(graph.read(kind), kind)


def _call(
    instance: FlowSpec, task: Task, step: StepPlan, assignment: Assignment, info: JSONObject
) -> Failure | None:
    """Runs the user's function; the failure it ended in, None after a success. Tells failures on standard error."""
    try:
        method = getattr(instance, step.name)
        if step.kind == "join":
            method(_inputs(instance, task, assignment))
        else:
            method()
        _require_transition(task, step)
    except BaseException as error:  # noqa: BLE001  whatever user code raises is the outcome of its step
        failure = failures.describe(error, full=bool(info.get("full_trace")), root=info.get("code_dir"))
        quiet = step.catch and assignment.last and not step.catch_print
        if not quiet:
            _tell(failure.trace or failure.text)
        return failure
    return None


def _require_transition(task: Task, step: StepPlan) -> None:
    if step.kind != "end" and task.transition is None:
        message = f"step {step.name!r} ended without calling self.next"
        raise InvalidNextException(message, step=step.name, hint="Make self.next its last statement.")


def _inputs(instance: FlowSpec, task: Task, assignment: Assignment) -> Inputs:
    key = assignment.inputs or keys.inputs(assignment.run, assignment.task)
    return Inputs(type(instance), task.reader.record(key), task.reader, task.attributes.frozen)


def _sealed(
    instance: FlowSpec, task: Task, step: StepPlan, assignment: Assignment, failure: Failure | None
) -> Outcome:
    """The outcome: what the step set is stored whether it failed or not, and ``@catch`` has the last word."""
    transition = task.transition
    table, errors = task.attributes.seal(instance, skip=(*task.consumed, FOREACH_STACK, CATCH_EXCEPTION))
    if errors and failure is None:
        failure = _unstored(step.name, errors)
        _tell(failure.trace or failure.text)
    caught = failure is not None and failure.failure_class != "cancelled" and step.catch and assignment.last
    if step.catch:
        table.update(_caught(step, failure if caught else None, task))
    if task.frames:
        rows = [frame.to_list() for frame in task.frames]
        table[FOREACH_STACK] = _small(FOREACH_STACK, rows, task)
    if caught and step.kind != "end":
        transition = Transition(targets=step.targets)
    ok = failure is None or caught
    return Outcome(
        status="ok" if ok else "failed",
        artifacts=table,
        transition=transition if ok else None,
        failure=failure,
        caught=caught,
    )


def _caught(step: StepPlan, failure: Failure | None, task: Task) -> dict[str, JSONObject]:
    value = None
    table: dict[str, JSONObject] = {}
    if failure is not None:
        value = CaughtException(failure.text, failure.kind or failure.cause, failure.trace or "")
        table[CATCH_EXCEPTION] = _small(CATCH_EXCEPTION, value, task)
    if step.catch_var is not None:
        table[step.catch_var] = _small(step.catch_var, value, task)
    return table


def _small(name: str, value: Any, task: Task) -> JSONObject:
    return artifacts.save(name, value, task.reader.store.blobs).to_json()


def _unstored(step: str, errors: list[FlowkilnError]) -> Failure:
    """The failure of a step whose attributes could not all be stored."""
    lines = [f"step {step!r}: {error.message}" for error in errors]
    hints = [f"hint: {errors[0].hint}"] if errors[0].hint else []
    kind = type(errors[0])
    return Failure(
        failure_class="user",
        cause="artifact",
        text=lines[0],
        kind=f"{kind.__module__}.{kind.__qualname__}",
        trace="\n".join([*lines, *hints, ""]),
        code=kind.code,
        hint=errors[0].hint,
    )


def _lost(reader: Reader, assignment: Assignment) -> Failure:
    """The failure to hand to ``@catch`` when the process of the step itself died."""
    text, trace = "the step's process ended without finishing", None
    data = None
    if assignment.attempt > 0:
        key = keys.outcome(assignment.run, assignment.task, assignment.attempt - 1)
        data = reader.store.records.read(key)
    if data is not None:
        failure = json.loads(data).get("failure") or {}
        text, trace = failure.get("text") or text, failure.get("trace")
    return Failure(
        failure_class="user", cause="lost", text=text, kind=HANDLED, trace=trace or f"{HANDLED}: {text}\n"
    )


def _tell(text: str) -> None:
    try:
        sys.stderr.write(text if text.endswith("\n") else f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return  # standard error is closed or broken: the outcome holds the same text
