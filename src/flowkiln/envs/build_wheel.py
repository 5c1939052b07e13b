"""Builds one wheel, as a program inside of the build environment: ``python build_wheel.py REQUEST.json``.

On the standard library alone, for it runs under whatever Python the build environment has. It calls the project's
back end (PEP 517) in the project's folder. The request names ``root``, ``backend``, ``backend_path``, ``known``
(build requirements that are installed), ``seconds`` after which it gives up, and ``answer``, a folder. There it
leaves the wheel with ``answer.json``: ``{"wheel": NAME}``, or ``{"requires": [...]}`` where the back end asks for
more than is known.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

TOO_LONG = 124
"""Exit code of a build that gave up."""


def main(path: str) -> None:
    """Answers the request in the file at ``path``."""
    request: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    root, answer = Path(request["root"]), Path(request["answer"])
    signal.signal(signal.SIGALRM, lambda *_: os._exit(TOO_LONG))
    signal.alarm(request["seconds"])  # whoever asked may be gone, and then nobody else ends it
    os.chdir(root)
    sys.argv = ["build_wheel"]
    sys.path[:0] = [str(root / one) for one in request["backend_path"]]
    backend = _backend(request["backend"])
    asking = getattr(backend, "get_requires_for_build_wheel", None)
    wanted = list(asking(None)) if asking is not None else []
    if set(wanted) <= set(request["known"]):
        told: dict[str, Any] = {"wheel": Path(backend.build_wheel(str(answer), None, None)).name}
    else:
        told = {"requires": wanted}
    (answer / "answer.json").write_text(json.dumps(told), encoding="utf-8")


def _backend(name: str) -> Any:
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
