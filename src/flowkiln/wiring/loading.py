"""A flow class from its file, without running it."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from typing import TYPE_CHECKING

from flowkiln.flow.spec import FlowSpec
from flowkiln.wiring.errors import NotAFlow

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

MODULE = "__flowkiln_flow__"


def load(path: Path) -> type[FlowSpec]:
    """The one flow class that the file defines. Raises ``NotAFlow``."""
    module = _module(path)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, FlowSpec) and value.__module__ == module.__name__
    ]
    bases = {base for kind in found for base in kind.__mro__[1:]}
    leaves = [kind for kind in dict.fromkeys(found) if kind not in bases]
    if len(leaves) == 1:
        return leaves[0]
    if not leaves:
        raise NotAFlow(f"{path} declares no flow", hint="A flow is a class that inherits from flowkiln.FlowSpec.")
    names = ", ".join(kind.__name__ for kind in leaves)
    raise NotAFlow(f"{path} declares several flows: {names}", hint="Give each flow a file of its own.")


def _module(path: Path) -> ModuleType:
    """The file's module, executed under a name that is not ``__main__``."""
    name = f"{MODULE}{abs(hash(str(path)))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotAFlow(f"{path} is not a Python file", hint="Give the path of a flow's file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's code
        del sys.modules[name]
        raise failed(path, error) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def failed(path: Path, error: BaseException) -> NotAFlow:
    """What to say when executing the flow's file raised ``error``."""
    place = str(path)
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if own:
            place = f"{path}:{own[-1].lineno}"
    message = f"{place}: {type(error).__name__}: {error}"
    hint = "What a step alone needs is imported inside the step." if isinstance(error, ImportError) else None
    return NotAFlow(message, hint=hint)
