"""A past task as its step found it, in a shell or script of its own: inputs are read, nothing is stored."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flowkiln.executor.backend import Assignment
from flowkiln.executor.plan import RunPlan
from flowkiln.flow import worker
from flowkiln.flow.errors import FlowNotFound
from flowkiln.store.folder import FolderStore

if TYPE_CHECKING:
    from flowkiln.flow.joins import Inputs
    from flowkiln.flow.spec import FlowSpec

MODULE = "flowkiln_flow"
"""The name of the flow's file as a module: not ``__main__``, so that importing it starts no run."""


class Again(NamedTuple):
    """The flow instance as the step found it, and the ``inputs`` of a join, None for other steps."""

    self: FlowSpec
    inputs: Inputs | None


def task(described: str, names: dict[str, object]) -> Again:
    """The task that the file ``described`` names. ``names`` get what the flow's file defines.

    Stored values of the flow's own classes were made by its file as ``__main__``: ``names`` are those of the module
    that is so called now. Raises ``FlowNotFound`` and the store's errors.
    """
    document = json.loads(Path(described).read_bytes())
    plan, assignment = RunPlan.from_json(document["plan"]), Assignment.from_json(document["assignment"])
    code = document["code"]
    sys.path.insert(0, code)
    spec = importlib.util.spec_from_file_location(MODULE, f"{code}/{plan.script}")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[MODULE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in vars(module).items():
        if not name.startswith("__"):
            names.setdefault(name, value)
            vars(sys.modules["__main__"]).setdefault(name, value)
    kind = getattr(module, plan.flow, None)
    if not isinstance(kind, type):
        message = f"{plan.script} has no flow {plan.flow} any more"
        raise FlowNotFound(message)
    return Again(*worker.restored(kind, plan, assignment, FolderStore(document["store"]), document))
