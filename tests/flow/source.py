"""Flows given as text: written to a file of their own and imported from there."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from pathlib import Path

from flowkiln.flow.spec import FlowSpec

_HEAD = "from flowkiln import *\n"
_COUNT = itertools.count()


def load(folder: Path, text: str, *, name: str = "F", head: str = _HEAD, file: str | None = None) -> type[FlowSpec]:
    """The flow class ``name`` of a new module with ``text`` below ``head``, which is one line."""
    module_name = f"flow_{next(_COUNT)}"
    path = folder / (file or f"{module_name}.py")
    path.write_text(head + textwrap.dedent(text), encoding="utf-8")
    # A file of the same size written in the same second would be taken from the bytecode of the one before.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    flow: type[FlowSpec] = getattr(module, name)
    assert issubclass(flow, FlowSpec)
    return flow
