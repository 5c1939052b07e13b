"""Builds one wheel, as a program inside of the build environment: ``python build_wheel.py REQUEST.json``.

On the standard library alone, for it runs under whatever Python the build environment has. It calls the project's
back end (PEP 517) in the project's folder. The request names ``root``, ``backend``, ``backend_path``, ``known``
(build requirements that are installed) and ``answer``, a folder; there it leaves the wheel with ``answer.json``:
``{"wheel": NAME}``, or ``{"requires": [...]}`` where the back end asks for more than is known.
"""

# ruff: noqa: PTH100, PTH118, PTH119, PTH123
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import importlib
import json
import os
import sys


def main(path):
    """Answers the request in the file at ``path``."""
    with open(path, encoding="utf-8") as stream:
        request = json.load(stream)
    root, answer = request["root"], request["answer"]
    os.chdir(root)
    sys.argv = ["build_wheel"]
    sys.path[:0] = [os.path.join(root, one) for one in request["backend_path"]]
    backend = _backend(request["backend"])
    asking = getattr(backend, "get_requires_for_build_wheel", None)
    wanted = list(asking(None)) if asking is not None else []
    if set(wanted) <= set(request["known"]):
        told = {"wheel": os.path.basename(backend.build_wheel(answer, None, None))}
    else:
        told = {"requires": wanted}
    with open(os.path.join(answer, "answer.json"), "w", encoding="utf-8") as stream:
        json.dump(told, stream)


def _backend(name):
    module, _, attributes = name.partition(":")
    found = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        found = getattr(found, attribute)
    return found


if __name__ == "__main__":
    main(sys.argv[1])
